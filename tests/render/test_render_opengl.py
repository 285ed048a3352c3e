"""The ray-caster and the host renderers against mujoco.Renderer under software OpenGL (make test-opengl)."""

import mujoco
import numpy as np
import pytest

from simscaleai_jax.sim.render import make_host_renderer

from .render_gallery import away_from_edges, random_states

pytestmark = pytest.mark.opengl

SIZE, STATES = 128, 20  # pixels; random states per scene
BAND = 2  # pixels left out around silhouettes
TOLERANCE = 2e-3  # m


@pytest.fixture(scope="module", params=["reach", "pick_place"])
def task_scene(request):
    from importlib.resources import files

    path = files("simscaleai_jax.sim") / "assets" / f"{request.param}.xml"
    model = mujoco.MjModel.from_xml_path(str(path))
    return model, _random_arms(model)


def _random_arms(model: mujoco.MjModel) -> list[mujoco.MjData]:
    """Arms around home, any gripper opening, every mocap body and free object somewhere on or over the table."""
    rng = np.random.default_rng(0)
    low, high = model.jnt_range[:7].T
    states = []
    for _ in range(STATES):
        data = mujoco.MjData(model)
        home = np.array([0, 0, 0, -1.9, 0, 1.9, 0.785])
        data.qpos[:7] = np.clip(home + rng.uniform(-0.5, 0.5, 7), low, high)
        data.qpos[7:9] = rng.uniform(0, 0.04)
        for start in range(9, model.nq, 7):
            data.qpos[start : start + 3] = rng.uniform([0.4, -0.2, 0.02], [0.65, 0.2, 0.3])
            quat = rng.normal(size=4)
            data.qpos[start + 3 : start + 7] = quat / np.linalg.norm(quat)
        data.mocap_pos[:] += rng.uniform(-0.05, 0.05, data.mocap_pos.shape)
        mujoco.mj_forward(model, data)
        states.append(data)
    return states


def compare(model, states, cameras) -> None:
    """The stated tolerances hold for every single picture."""
    ours, theirs = make_host_renderer(model), make_host_renderer(model, "mujoco")
    try:
        for camera in cameras:
            for data in states:
                images, expected = (
                    r.images(data, camera, SIZE, SIZE, depth=True, segmentation=True) for r in (ours, theirs)
                )
                flat = away_from_edges(expected["segmentation"], BAND)
                assert flat.mean() > 0.4
                error = np.abs(images["depth"] - expected["depth"])[flat]
                assert np.mean(error < TOLERANCE) >= 0.99, (camera, error.max())
                assert np.mean((images["segmentation"] == expected["segmentation"])[flat]) >= 0.999, camera
                assert np.mean(images["segmentation"] == expected["segmentation"]) >= 0.99, camera
                assert images["segmentation"].dtype == expected["segmentation"].dtype == np.int32
    finally:
        theirs.close()


def test_task_scenes_agree(task_scene):
    model, states = task_scene
    compare(model, states, ("front_cam", "wrist_cam"))


def test_every_primitive_agrees(model):
    compare(model, random_states(model, 5), ("front", "rider"))


def test_field_of_view_and_odd_sizes_agree(task_scene):
    model, states = task_scene
    ours, theirs = make_host_renderer(model), make_host_renderer(model, "mujoco")
    fovy = float(model.camera("front_cam").fovy[0])
    try:
        images, expected = (
            r.images(states[0], "front_cam", 90, 61, fovy=75.0, depth=True, segmentation=True) for r in (ours, theirs)
        )
    finally:
        theirs.close()
    flat = away_from_edges(expected["segmentation"], BAND)
    assert images["rgb"].shape == expected["rgb"].shape == (61, 90, 3)
    assert np.mean(np.abs(images["depth"] - expected["depth"])[flat] < TOLERANCE) >= 0.99
    assert float(model.camera("front_cam").fovy[0]) == fovy


def test_colours_are_near_mujocos(model):
    """Same light model but for MuJoCo's highlights, and the same checker cells; the gallery's lamp has no cone here."""
    states = random_states(model, 3)
    ours, theirs = make_host_renderer(model), make_host_renderer(model, "mujoco")
    try:
        for data in states:
            images, expected = (r.images(data, "front", SIZE, SIZE, segmentation=True) for r in (ours, theirs))
            flat = away_from_edges(expected["segmentation"], BAND)
            floor = flat & (expected["segmentation"] == model.geom("floor").id)
            ours_red, theirs_red = (im["rgb"][floor].astype(float).sum(axis=-1) for im in (images, expected))
            assert np.corrcoef(ours_red, theirs_red)[0, 1] > 0.7
    finally:
        theirs.close()
