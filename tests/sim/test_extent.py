"""Objects of any shape: how far they reach around their origin, and what randomizing their size does to them."""

import re
from pathlib import Path

import jax
import mujoco
import numpy as np
import pytest

from simscaleai_jax.sim import make_env
from simscaleai_jax.sim.randomization import DERIVED_FIELDS, PRESETS, apply_to_host, draw_between, resolve
from simscaleai_jax.sim.registry import asset
from simscaleai_jax.sim.render import geom_poses, make_scene
from simscaleai_jax.sim.robot.extent import half_size
from simscaleai_jax.sim.robot.feasibility import check_reaches_scene

SHAPES = {
    "box": ('<geom type="box" size=".01 .02 .03"/>', (0.01, 0.02, 0.03)),
    "off its origin": ('<geom type="box" size=".01 .02 .03" pos="0 .1 .02"/>', (0.01, 0.02, 0.01)),
    "turned": ('<geom type="capsule" size=".01 .03" quat="1 0 1 0"/>', (0.04, 0.01, 0.01)),
    "lying": ('<geom type="cylinder" size=".02 .03" quat="1 1 0 0"/>', (0.02, 0.03, 0.02)),
    "ellipsoid": ('<geom type="ellipsoid" size=".01 .02 .03" quat="1 1 0 0"/>', (0.01, 0.03, 0.02)),
    "compound": (
        '<geom type="box" size=".03 .02 .01" pos="0 0 -.03"/><geom type="sphere" size=".02" pos="0 0 .005"/>'
        '<geom type="box" size=".1 .1 .1" contype="0" conaffinity="0" group="3"/>',
        (0.03, 0.02, 0.04),
    ),
    "mesh": ('<geom type="mesh" mesh="t"/>', (0.05, 0.05, 0.0)),
}
ON_PARTS = '<body pos="0 0 .05"><geom type="sphere" size=".02"/></body>'


def scene(geoms, height=0.0):
    return mujoco.MjModel.from_xml_string(
        f"""<mujoco><option timestep=".001"/>
        <asset><mesh name="t" vertex="0 0 0  .1 0 0  0 .1 0  0 0 .1"/></asset>
        <worldbody><light/><geom type="plane" size="1 1 .1" margin=".01"/>
        <body name="object" pos="0 0 {height}"><freejoint/>{geoms}</body></worldbody></mujoco>"""
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_the_extent_of_any_shape(shape):
    geoms, wanted = SHAPES[shape]
    np.testing.assert_allclose(half_size(scene(geoms), 1), wanted, atol=1e-6)


def test_parts_welded_to_an_object_belong_to_it():
    np.testing.assert_allclose(half_size(scene(ON_PARTS), 1), (0.02, 0.02, -0.03), atol=1e-6)


@pytest.mark.parametrize("size", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("shape", sorted(set(SHAPES) - {"mesh"}))
def test_an_object_of_any_size_rests_where_it_is_put(shape, size):
    geoms, half = SHAPES[shape]
    model, nominal = scene(geoms, half[2] * size), scene(geoms)
    overrides = draw_between(jax.random.key(0), {"object_size": (size, size)}, {}, nominal)
    apply_to_host(model, nominal, overrides)
    np.testing.assert_allclose(overrides["object_half_size"], np.multiply(half, size), atol=1e-6)
    for name in set(DERIVED_FIELDS) & set(overrides):  # MJX is given what MuJoCo derives
        np.testing.assert_allclose(getattr(model, name), overrides[name], rtol=1e-4, atol=1e-6)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert data.ncon > 0, "it starts in the air"
    np.testing.assert_allclose(data.contact.dist.min(), 0.0, atol=1e-5)
    poses = geom_poses(make_scene(nominal), data.xpos, data.xmat.reshape(-1, 3, 3), overrides.get("geom_pos"))
    np.testing.assert_allclose(poses[0], data.geom_xpos, atol=1e-6)


@pytest.mark.parametrize(
    ("geoms", "reason"),
    [
        (SHAPES["mesh"][0], "its geom #1 is a mesh"),
        (SHAPES["box"][0] + ON_PARTS, "it has geoms on bodies of their own"),
    ],
)
def test_an_object_that_cannot_be_scaled_keeps_its_size_and_says_so(geoms, reason):
    model = scene(geoms)
    with pytest.raises(ValueError, match=rf"object_size \({reason}"):
        check_reaches_scene(resolve({"object_size": (0.9, 1.1)}), model)
    friction = pytest.warns(UserWarning, match="friction is not randomized in this scene")
    with friction, pytest.warns(UserWarning, match=f"object_size is not randomized in this scene: {reason}"):
        check_reaches_scene(PRESETS["light"], model)
    drawn = draw_between(jax.random.key(0), {"object_size": (2.0, 2.0), "object_mass": (3.0, 3.0)}, {}, model)
    assert not {"geom_size", "geom_pos", "object_half_size"} & set(drawn)
    np.testing.assert_allclose(drawn["body_inertia"][1], 3.0 * model.body_inertia[1], rtol=1e-6)


def test_an_episode_begins_with_any_object_on_the_table(tmp_path):
    """Its origin is at its foot, and its top is a geom of its own."""
    text = Path(asset("pick_place.xml")).read_text().replace("panda.xml", asset("panda.xml"))
    (cube,) = re.findall(r'<geom name="object" type="box".*?/>', text)
    foot = cube.replace("/>", ' pos="0 0 .02"/>')
    (tmp_path / "pick.xml").write_text(text.replace(cube, foot + '<geom type="sphere" size=".01" pos="0 0 .05"/>'))
    settings = {"domain_randomization": True, "randomization": {"object_size": (0.8, 1.2)}, "cameras": []}
    env = make_env("pick_place", xml_path=str(tmp_path / "pick.xml"), **settings)
    for seed in range(4):
        obs, _ = env.reset(seed=seed)
        assert obs["object_pos"][2] == pytest.approx(env.task.robot.table_height, abs=1e-5)
        geoms = [g for g in range(env.model.ngeom) if env.model.geom_bodyid[g] == env.task.robot.object_body[0]]
        size = env.model.geom_size[geoms[1], 0] / 0.01
        assert size != 1.0
        gap = env.data.geom_xpos[geoms[1], 2] - env.data.geom_xpos[geoms[0], 2]
        assert gap == pytest.approx(0.03 * size, rel=1e-5)
