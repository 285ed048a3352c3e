"""simscale view: what is recorded, what is drawn, what a browser shows and does."""

import threading

import jax
import mujoco
import numpy as np
import pytest

from simscaleai_jax.sim.factory import make_functional_env
from simscaleai_jax.tools import cli
from simscaleai_jax.tools.commands.view import ViewOptions, open_player
from simscaleai_jax.tools.viewer.geometry import shapes, triangles
from simscaleai_jax.tools.viewer.player import Player
from simscaleai_jax.tools.viewer.recording import Recording, record

from .browser import Page, wait_for

EVERY_SHAPE = """<mujoco><asset><mesh name="tetra" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset><worldbody>
<geom type="plane" size="2 3 .1"/><geom type="box" size=".1 .2 .3"/><geom type="sphere" size=".4"/>
<geom type="ellipsoid" size=".1 .2 .3"/><geom type="cylinder" size=".1 .5"/><geom type="capsule" size=".1 .5"/>
<geom type="mesh" mesh="tetra"/><geom type="box" size="1 1 1" group="3"/><geom type="box" size="1 1 1" rgba="0 0 0 0"/>
</worldbody></mujoco>"""


@pytest.fixture(scope="module")
def recording() -> Recording:
    env = make_functional_env("reach", dt=0.01, cameras=[], max_episode_steps=6)
    return record(env, None, num_episodes=3, seed=5)


def test_a_recording_is_what_the_environment_does(recording):
    env = make_functional_env("reach", dt=0.01, cameras=[], max_episode_steps=6)
    assert recording.num_episodes == 3
    assert recording.qpos.shape == (6, 3, env.physics.host_model.nq)
    np.testing.assert_array_equal(recording.lengths, [6, 6, 6])
    np.testing.assert_allclose(recording.returns(1)[-1], sum(v[:6, 1].sum() for v in recording.terms.values()), 1e-5)
    data = mujoco.MjData(recording.model)
    recording.pose(data, 1, 5)
    np.testing.assert_array_equal(data.qpos, recording.qpos[5, 1])
    other = mujoco.MjData(recording.model)
    recording.pose(other, 1, 0)
    assert np.abs(data.geom_xpos - other.geom_xpos).max() > 1e-3, "the arm has moved"
    again = record(env, None, num_episodes=3, seed=5)
    jax.tree.map(np.testing.assert_array_equal, recording.terms, again.terms)


def test_every_shape_is_drawn_at_its_size():
    model = mujoco.MjModel.from_xml_string(EVERY_SHAPE)
    drawn = {geom: vertices for geom, vertices, _, _ in shapes(model)}
    assert list(drawn) == [0, 1, 2, 3, 4, 5, 6], "what is transparent or hidden is left out"
    spans = {geom: np.ptp(vertices, axis=0) for geom, vertices in drawn.items()}
    wanted = {1: (0.2, 0.4, 0.6), 2: (0.8, 0.8, 0.8), 3: (0.2, 0.4, 0.6), 4: (0.2, 0.2, 1), 5: (0.2, 0.2, 1.2)}
    for geom, span in wanted.items():
        np.testing.assert_allclose(spans[geom], span, atol=0.01)
        np.testing.assert_allclose(drawn[geom].min(0) + drawn[geom].max(0), 0, atol=0.01)
    np.testing.assert_allclose(spans[0][:2], (4, 6))
    for geom in drawn:
        vertices, faces = triangles(model, geom)
        assert faces.max() < len(vertices)


def test_a_height_field_is_refused_by_name():
    xml = '<mujoco><asset><hfield name="h" nrow="2" ncol="2" size="1 1 1 1"/></asset><worldbody>'
    model = mujoco.MjModel.from_xml_string(f'{xml}<geom name="hill" type="hfield" hfield="h"/></worldbody></mujoco>')
    with pytest.raises(ValueError, match="geom hill is a mjGEOM_HFIELD"):
        triangles(model, 0)


class Still:
    """A renderer that compiles nothing; what pictures show is test_render_adapters' matter."""

    def picture(self, data, camera, width, height):
        return np.zeros((height, width, 3), np.uint8)

    def close(self) -> None: ...


def test_playing_goes_through_all_episodes(recording, monkeypatch):
    monkeypatch.setattr("simscaleai_jax.tools.viewer.player.make_host_renderer", lambda model: Still())
    player = Player(recording, "title", port=8210)
    try:
        seen = []
        for _ in range(2 * 3 * 6):
            player._advance()
            player.show()
            seen.append((player.episode, int(player.steps.value)))
        assert set(seen) == {(episode, step) for episode in range(3) for step in range(6)}
        recording.pose(data := mujoco.MjData(recording.model), *seen[-1])
        for geom, mesh in player.meshes.items():
            np.testing.assert_allclose(mesh.position, data.geom_xpos[geom], atol=1e-6)
    finally:
        player.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-episodes", "0"], "--n-episodes must be at least 1"),
        (["nowhere"], "nowhere"),
        (["--env-name", "fold"], "fold"),
    ],
)
def test_what_cannot_be_shown_is_said(options, message, capsys):
    assert cli.main(["view", *options]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.browser
def test_a_browser_shows_episodes_and_plays_them(tmp_path):
    player = open_player(ViewOptions(env_name="pick_place", n_episodes=2, max_steps=30, port=8220))
    thread = threading.Thread(target=player.play)
    thread.start()
    try:
        with Page(f"http://127.0.0.1:{player.port}", tmp_path) as page:
            text = wait_for(lambda: "return so far" in page.text() and page.text(), 120)
            assert "pick_place, random actions: 0 of 2 episodes succeed" in text
            assert {"place", "grasp", "reach"} < set(text.split())
            wait_for(lambda: page.text() != text, 60)  # numbers change while it plays
            page.click("Pause")
            wait_for(lambda: not player.is_playing and "Play" in page.text(), 60)
            step = int(player.steps.value)
            threading.Event().wait(1)  # the last step's numbers are on their way
            still = page.text()
            threading.Event().wait(1.5)
            assert (page.text(), int(player.steps.value)) == (still, step)
            assert page.run("!!document.querySelector('canvas')"), "the scene"
            assert page.run("[...document.images].some(image => image.naturalWidth == 320)"), "a camera's picture"
            assert len(page.screenshot()) > 20_000
            page.click("Play")
            wait_for(lambda: player.is_playing and player.steps.value != step, 60)
    finally:
        player.close()
        thread.join(30)
    assert not thread.is_alive()
