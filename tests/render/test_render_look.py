"""Colours: Lambert's law by hand, checker cells, shadows, materials, sky, meshes."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from simscaleai_jax.sim.render import look_at, make_scene, render

from .render_gallery import body_poses, random_states

STILL = np.zeros(3, np.float32)

LAMP_ROOM = """
<mujoco>
  <statistic extent="2"/>
  <visual><headlight ambient=".1 .1 .1" diffuse="0 0 0"/></visual>
  <worldbody>
    <light pos="0 0 2" diffuse=".8 .8 .8"/>
    <geom type="plane" size="3 3 .1" rgba=".5 1 .25 1"/>
    <geom type="box" size=".2 .2 .05" pos="0 0 1" rgba="1 0 0 1"/>
  </worldbody>
</mujoco>
"""


def still_picture(scene, camera, size, **options) -> dict[str, np.ndarray]:
    drawn = jax.jit(lambda: render(scene, scene.world_pos, scene.world_mat, camera, size, size, **options))()
    return {name: np.asarray(image) for name, image in drawn.items()}


@pytest.fixture(scope="module")
def lamp_room():
    """The floor seen from below the box: pictures without and with shadows."""
    scene = make_scene(mujoco.MjModel.from_xml_string(LAMP_ROOM))
    camera = look_at((0, -1.5, 0.8), (0, 0, 0), fovy=60)
    return camera, [still_picture(scene, camera, 48, shadows=flag) for flag in (False, True)]


def floor_points(camera, depth: np.ndarray) -> np.ndarray:
    size = len(depth)
    slopes = (2 * np.arange(size) + 1 - size) / size * np.tan(np.deg2rad(float(camera.fovy)) / 2)
    right, up = np.meshgrid(slopes, -slopes)
    rays = np.stack([right, up, -np.ones_like(up)], axis=-1) @ np.asarray(camera.mat).T
    return np.asarray(camera.pos) + depth[..., None] * rays


def test_floor_follows_lamberts_law(lamp_room):
    camera, (images, _) = lamp_room
    point = floor_points(camera, images["depth"])
    to_light = np.array([0, 0, 2]) - point
    expected = 0.1 + 0.8 * to_light[..., 2] / np.linalg.norm(to_light, axis=-1)
    expected = 255 * np.clip(expected[..., None] * [0.5, 1.0, 0.25], 0, 1)
    floor = images["segmentation"] == 0
    assert floor.sum() > 200
    assert np.max(np.abs(images["rgb"].astype(float) - expected)[floor]) <= 1.0


def test_shadow_is_where_the_box_hides_the_light(lamp_room):
    """The lamp stands 1 m above the box, so on the floor the shadow is just over twice the box."""
    camera, (bright, dark) = lamp_room
    point = floor_points(camera, bright["depth"])
    floor = bright["segmentation"] == 0
    reach = np.max(np.abs(point[..., :2]), axis=-1)
    edge = 0.2 * 2 / 0.95  # the box's upper rim, 0.95 m under the lamp, casts the shadow's border
    inside, outside = floor & (reach < 0.95 * edge), floor & (reach > 1.05 * edge)
    assert inside.sum() > 10
    np.testing.assert_array_equal(dark["rgb"][outside], bright["rgb"][outside])
    ambient = np.round(255 * 0.1 * np.array([0.5, 1.0, 0.25]))
    assert np.max(np.abs(dark["rgb"][inside] - ambient)) <= 1
    assert np.all(bright["rgb"][inside][:, 1] > 100)


def test_a_colour_override_recolours_its_geom_alone(model, scene, draw):
    pos, mat = body_poses(random_states(model, 1)[0])
    plain = draw(pos, mat, {}, STILL)
    geom = int(np.max(plain["segmentation"]))
    rgb = np.array(scene.rgb)
    rgb[geom] = 0.0
    black = draw(pos, mat, {"geom_rgb": jnp.asarray(rgb)}, STILL)
    changed = np.any(np.asarray(plain["rgb"]) != np.asarray(black["rgb"]), axis=-1)
    np.testing.assert_array_equal(changed, np.asarray(plain["segmentation"]) == geom)
    assert np.all(np.asarray(black["rgb"])[changed] == 0)


def test_materials_and_checkers_come_from_the_model(model, scene):
    names = [model.body(b).name for b in scene.geom_body]
    np.testing.assert_allclose(scene.rgb[names.index("ellipsoid")], [0.1, 0.6, 0.2], atol=1e-6)
    checker = scene.checkers[model.geom("floor").id]
    assert checker.cell == (0.5, 0.5)  # two repeats of a 2 x 2 pattern span two metres
    np.testing.assert_allclose(sorted([checker.even, checker.odd]), [[0.2, 0.3, 0.4], [0.6, 0.7, 0.8]], atol=3e-3)


def test_checker_cells_alternate_on_the_floor(model, scene):
    """Looking straight down: the colour of a floor point is that of its cell."""
    camera = look_at((0.0, 0.01, 4.0), (0.0, 0.0, 0.0), fovy=20)
    bodies = np.tile(np.float32([0, 0, 30]), (model.ngeom, 1))  # everything but the floor is out of sight
    bodies[0] = 0
    images = jax.jit(
        lambda pos: render(scene, pos, scene.world_mat, camera, 64, 64, overrides={"ambient": jnp.ones(3)})
    )(bodies)
    point = floor_points(camera, np.asarray(images["depth"]))
    cell = np.floor(point[..., :2] / 0.5)
    border = np.min(np.abs(point[..., :2] / 0.5 - np.round(point[..., :2] / 0.5)), axis=-1)
    odd = (cell.sum(axis=-1) % 2).astype(bool)
    red = np.asarray(images["rgb"])[..., 0]
    clear = (border > 0.05) & (np.asarray(images["segmentation"]) == 0)
    low, high = sorted([red[clear & odd].mean(), red[clear & ~odd].mean()])
    assert low + 50 < high
    assert red[clear & odd].std() < 10
    assert red[clear & ~odd].std() < 10


def test_sky_blends_from_the_skybox():
    xml = """<mujoco>
      <asset><texture type="skybox" builtin="gradient" rgb1="0 0 1" rgb2="1 0 0" width="32" height="192"/></asset>
      <worldbody><geom type="sphere" size=".01" pos="0 0 -9"/></worldbody></mujoco>"""
    scene = make_scene(mujoco.MjModel.from_xml_string(xml))
    up = still_picture(scene, look_at((0, 0, 0), (1e-3, 0, 1)), 8)["rgb"].mean(axis=(0, 1))
    down = still_picture(scene, look_at((0, 0, 0), (1, 0, -0.6)), 8)["rgb"].mean(axis=(0, 1))
    assert up[2] > 200 > 80 > up[0]
    assert down[0] > 200 > 80 > down[2]


TETRAHEDRON = """
<mujoco>
  <asset><mesh name="slab" vertex="0 0 0  .6 0 0  0 .2 0  .6 .2 0  0 0 .2  .6 0 .2  0 .2 .2  .6 .2 .2"/></asset>
  <worldbody><geom name="part" type="mesh" mesh="slab"/></worldbody>
</mujoco>
"""


def test_a_mesh_is_drawn_as_a_capsule_and_never_silently():
    model = mujoco.MjModel.from_xml_string(TETRAHEDRON)
    with pytest.warns(UserWarning, match="capsules .* geom 'part'"):
        scene = make_scene(model)
    assert scene.kind == ("capsule",)
    # A capsule of radius 0.1 along x through the middle of the slab, seen along y and along x.
    middle = (0.3, 0.1, 0.1)
    along_y = still_picture(scene, look_at((0.3, -2, 0.1), middle, fovy=10), 9)
    along_x = still_picture(scene, look_at((-2, 0.1, 0.1), middle, fovy=10), 9)
    assert along_y["depth"][4, 4] == pytest.approx(2.0, abs=1e-3)
    assert along_x["depth"][4, 4] == pytest.approx(2.0, abs=1e-3)
    with pytest.warns(UserWarning, match="left out"):
        assert make_scene(model, meshes="skip").drawn == ()
