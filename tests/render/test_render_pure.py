"""The renderer as a function: geom ids and depth of whole scenes, vmap, gradients, sharding, chunks, compilations."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from simscaleai_jax.sim.render import camera_pose, geom_poses, look_at, make_scene, render

from .render_gallery import GALLERY, assert_same_images, away_from_edges, body_poses, random_states

SIZE = 32
STILL = np.zeros(3, np.float32)


@pytest.fixture(scope="module")
def states(model):
    return random_states(model, 4)


def mujoco_ray_image(model, data, camera: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Depth and geom ids by MuJoCo's own rays through the pixel centres; 0 and -1 where nothing is hit."""
    index = model.camera(camera).id
    slopes = (2 * np.arange(size) + 1 - size) / size * np.tan(np.deg2rad(model.cam_fovy[index]) / 2)
    right, up = np.meshgrid(slopes, -slopes)
    rays = np.stack([right, up, -np.ones_like(up)], axis=-1) @ data.cam_xmat[index].reshape(3, 3).T
    depth, ids = np.zeros((size, size)), np.full((size, size), -1)
    groups, geom = np.array([1, 1, 1, 0, 0, 0], np.uint8), np.zeros(1, np.int32)
    for row in range(size):
        for column in range(size):
            ray = rays[row, column]
            hit = mujoco.mj_ray(model, data, data.cam_xpos[index], ray, groups, True, -1, geom)
            if hit >= 0:
                depth[row, column], ids[row, column] = hit, geom[0]
    return depth, ids


def test_depth_and_segmentation_equal_mujoco_rays(model, states, draw):
    """A camera that rides on a body, so that geom and camera poses are checked as well."""
    for data in states:
        images = draw(*body_poses(data), {}, STILL)
        depth, ids = mujoco_ray_image(model, data, "rider", SIZE)
        inside = away_from_edges(ids, 1)
        assert np.mean((images["segmentation"] == ids)[inside]) > 0.999
        error = np.abs(np.asarray(images["depth"]) - depth)[inside & (ids >= 0)]
        assert np.mean(error < 2e-4) > 0.99


def test_background_is_the_far_clip_distance_and_id_minus_one(scene, draw, states):
    away = np.array([0, 0, 50], np.float32)  # above everything; the rider looks sideways and up
    images = draw(*body_poses(states[0]), {}, away)
    nothing = np.asarray(images["segmentation"]) == -1
    assert nothing.any()
    np.testing.assert_array_equal(np.asarray(images["depth"])[nothing], np.float32(scene.far))


def test_hidden_groups_and_transparent_geoms_are_not_drawn(model, scene, draw, states):
    drawn = {model.geom(g).name for g in scene.drawn}
    assert "floor" in drawn
    assert not {"hidden", "clear"} & drawn
    assert len(make_scene(model, groups=(0, 3)).drawn) == len(scene.drawn) + 1
    ids = np.concatenate([np.unique(draw(*body_poses(data), {}, STILL)["segmentation"]) for data in states])
    assert set(ids) <= {-1, *scene.drawn}


def test_vmap_equals_loop(states, draw):
    poses = [body_poses(data) for data in states]
    batch = jax.vmap(draw, in_axes=(0, 0, None, None))(*(jnp.stack(p) for p in zip(*poses, strict=True)), {}, STILL)
    for i, pose in enumerate(poses):
        assert_same_images({name: image[i] for name, image in batch.items()}, draw(*pose, {}, STILL))


def test_batch_sharded_over_eight_devices_equals_one_device(states, draw):
    assert len(jax.devices()) == 8
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    pos, mat = (jnp.stack(p) for p in zip(*[body_poses(data) for data in states * 2], strict=True))
    many = jax.jit(jax.vmap(draw, in_axes=(0, 0, None, None)))
    one = many(pos, mat, {}, STILL)
    sharded = many(jax.device_put(pos, split), jax.device_put(mat, split), {}, STILL)
    assert sharded["rgb"].sharding.is_equivalent_to(split, 4)
    assert_same_images(sharded, one)


def test_chunks_change_nothing(scene, states):
    """Seven rows at a time, which do not divide the height."""
    pos, mat = body_poses(states[0])
    camera = look_at((1.6, 0.0, 1.0), (0.0, 0.0, 0.3))

    @jax.jit
    def both(pos, mat):
        poses = geom_poses(scene, pos, mat)
        return [render(scene, *poses, camera, 24, 20, ray_chunk=chunk) for chunk in (None, 7 * 24)]

    whole, chunked = both(pos, mat)
    for name in whole:
        assert whole[name].shape == chunked[name].shape
    assert_same_images(chunked, whole)


def test_only_what_is_asked_for_is_returned(scene, model):
    spec = jax.eval_shape(
        lambda: render(
            scene, scene.world_pos, scene.world_mat, look_at((2, 0, 1), (0, 0, 0)), 8, 6, rgb=False, segmentation=False
        )
    )
    assert set(spec) == {"depth"}
    assert spec["depth"].shape == (6, 8)
    assert spec["depth"].dtype == jnp.float32


def shifted_image(scene, pose, shift):
    """Depth and ids of a camera that is moved by `shift` along its own axes."""
    camera = look_at((1.6, 0.0, 1.0), (0.0, 0.0, 0.3))
    camera = dataclasses.replace(camera, pos=camera.pos + camera.mat @ shift)
    images = render(scene, *geom_poses(scene, *pose), camera, SIZE, SIZE, rgb=False)
    return images["depth"], images["segmentation"]


def test_depth_slope_is_finite_and_equals_a_finite_difference(scene, states):
    pose, direction, step = body_poses(states[0]), jnp.array([0.5, -0.7, 0.5]), 2e-3

    @jax.jit
    def slope_at(shift):
        depth, slope, ids = jax.jvp(lambda s: shifted_image(scene, pose, s), (shift,), (direction,), has_aux=True)
        return depth, ids, slope

    (_, ids, slope), there, back = ([np.asarray(a) for a in slope_at(x * direction)] for x in (0.0, step, -step))
    assert np.isfinite(slope).all()
    assert np.all(slope[ids < 0] == 0)
    stable = away_from_edges(ids, 2) & (ids >= 0) & (there[1] == ids) & (back[1] == ids)
    difference = (there[0] - back[0]) / (2 * step)
    assert np.mean(np.abs(difference - slope)[stable] < 0.05) > 0.95


def test_reverse_mode_equals_forward_mode(scene, states):
    """Of the mean depth; two geoms are enough for this, and quick to compile."""
    part = dataclasses.replace(scene, drawn=(scene.drawn[0], scene.drawn[4]))
    pose = body_poses(states[0])
    reverse, forward = jax.jit(
        lambda s: [mode(lambda x: jnp.mean(shifted_image(part, pose, x)[0]))(s) for mode in (jax.grad, jax.jacfwd)]
    )(jnp.zeros(3))
    assert np.isfinite(reverse).all()
    np.testing.assert_allclose(reverse, forward, rtol=1e-4, atol=1e-6)


def test_nothing_compiles_anew_when_colours_light_size_or_camera_change(scene, draw, states):
    pos, mat = body_poses(states[0])
    base = {
        "geom_rgb": scene.rgb,
        "geom_size": scene.size,
        "light_pos": scene.lights.pos,
        "ambient": scene.lights.ambient,
    }
    first = draw(pos, mat, base, STILL)
    count = draw._cache_size()
    changed = {
        "rgb": {**base, "geom_rgb": 1 - scene.rgb},
        "depth": {**base, "geom_size": scene.size * 1.3},
        "light": {**base, "light_pos": scene.lights.pos + 1},
        "ambient": {**base, "ambient": scene.lights.ambient + 0.3},
    }
    for name, overrides in changed.items():
        images = draw(pos, mat, overrides, STILL)
        key = "depth" if name == "depth" else "rgb"
        assert not np.array_equal(images[key], first[key]), name
    assert not np.array_equal(draw(pos, mat, base, np.float32([0.1, 0, 0]))["depth"], first["depth"])
    assert draw._cache_size() == count


def test_equal_models_share_one_program(model, scene):
    copy = make_scene(mujoco.MjModel.from_xml_string(GALLERY))
    assert copy == scene
    assert hash(copy) == hash(scene)
    model.geom_rgba[0, 0] += 0.1
    try:
        assert make_scene(model) != scene
    finally:
        model.geom_rgba[0, 0] -= 0.1


def test_camera_pose_equals_mujoco(model, scene, states):
    for data in states:
        for name in ("front", "rider"):
            camera = camera_pose(scene, name, *body_poses(data))
            np.testing.assert_allclose(camera.pos, data.camera(name).xpos, atol=1e-6)
            np.testing.assert_allclose(camera.mat, data.camera(name).xmat.reshape(3, 3), atol=1e-6)
            assert float(camera.fovy) == pytest.approx(model.camera(name).fovy[0])
