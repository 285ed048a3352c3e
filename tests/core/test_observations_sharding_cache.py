"""The state vector's rule, the mesh and its specs, the compile cache's folder."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.core import compile_cache, image_keys, sharding, state_keys, state_size, state_vector
from simscaleai_jax.core.observations import is_colour_key
from tests.params import others_wide


def test_state_vector_is_the_sorted_concatenation_without_pictures():
    obs = {
        "b": np.full((2, 3), 2.0),
        "a": np.ones((2, 1)),
        "image": np.zeros((2, 4, 4, 3), np.uint8),
        "depth_wrist": np.zeros((2, 4, 4, 1)),
    }
    vector = state_vector(obs)
    assert isinstance(vector, np.ndarray)
    assert vector.dtype == np.float32
    assert vector.tolist() == [[1, 2, 2, 2]] * 2
    assert image_keys(obs) == ["depth_wrist", "image"]
    theirs = ("agentview_image", "robot0_eye_in_hand_depth", "wrist_rgb", "image2", "imaginary", "object", "rgbd_flow")
    assert image_keys(theirs) == ["agentview_image", "image2", "rgbd_flow", "robot0_eye_in_hand_depth", "wrist_rgb"]
    assert [name for name in theirs if is_colour_key(name)] == ["agentview_image", "wrist_rgb", "image2", "rgbd_flow"]
    assert state_keys(obs) == state_keys(iter(obs)) == ["a", "b"]
    assert state_size({"a": np.zeros(3), "b": np.zeros((2, 2)), "image": np.zeros((8, 8, 3))}) == 7
    on_device = state_vector({name: jnp.asarray(value) for name, value in obs.items()})
    assert isinstance(on_device, jax.Array)
    assert np.array_equal(on_device, vector)


@pytest.mark.parametrize("lead", [(), (3,), (5, 3)])
def test_a_number_that_is_called_depth_is_state(lead):
    """A spec, a batch and a rollout agree, and a picture of that name stays one."""
    obs = {"depth_error": np.ones((*lead, 1)), "ee_pos": np.zeros((*lead, 3)), "rgb_gain": np.ones((*lead, 2))}
    cameras = {"image": np.zeros((*lead, 8, 8, 3), np.uint8), "wrist_depth": np.zeros((*lead, 8, 8), np.float32)}
    assert state_keys(obs | cameras) == ["depth_error", "ee_pos", "rgb_gain"]
    assert image_keys(obs | cameras) == ["image", "wrist_depth"]
    assert state_vector(obs | cameras).shape == (*lead, 6)
    assert state_vector(obs | cameras, ("depth_error",)).shape == (*lead, 1)
    assert image_keys(cameras) == ["image", "wrist_depth"], "pictures alone"
    assert state_keys({"depth_error": obs["depth_error"], "image": cameras["image"]}) == ["depth_error"]
    assert image_keys(["depth_error", "ee_pos"]) == ["depth_error"], "names alone follow robomimic's convention"
    if not lead:
        assert state_size(obs | cameras) == 6
        assert state_size(obs | cameras, ("depth_error", "image")) == 1


def test_an_explicit_state_wins_and_pictures_alone_are_refused():
    assert state_vector({"state": np.arange(3.0), "a": np.zeros(5)}).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="No state in the observation"):
        state_vector({"image": np.zeros((4, 4, 3))})


def test_mesh_splits_batches_and_copies_parameters():
    mesh = sharding.make_mesh(jax.devices()[:4])
    batch = sharding.put_batch({"x": jnp.arange(8)}, mesh)["x"]
    assert [shard.data.tolist() for shard in batch.addressable_shards] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    params = sharding.put_replicated(jnp.arange(3), mesh)
    assert [shard.data.tolist() for shard in params.addressable_shards] == [[0, 1, 2]] * 4
    with pytest.raises(ValueError, match="batch of 6 does not split evenly over 4 devices; nearest: 4 or 8"):
        sharding.put_batch(jnp.arange(6), mesh)
    with pytest.raises(ValueError, match="nearest: 4"):
        sharding.check_divisible(2, 4, "batch")


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a mesh looks at of a TPU chip."""

    coords: tuple[int, int, int]
    slice_index: int | None = None
    core_on_chip: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"
    process_index: int = 0


def test_split_parameters_have_an_axis_for_every_dimension_of_the_chips():
    flat = [Chip((x, y, 0)) for y in range(2) for x in range(4)]
    mesh = sharding.make_grid(flat)
    assert dict(mesh.shape) == {"x": 4, "y": 2}
    assert mesh.devices[3, 1] == Chip((3, 1, 0))
    assert sharding.batch_sharding(mesh).spec == sharding.P(("x", "y"))
    shapes = jax.tree.map(lambda size: jax.ShapeDtypeStruct((size, 512), jnp.float32), {"large": 512, "small": 4})
    found = {name: each.spec for name, each in sharding.parameter_shardings(shapes, mesh, True).items()}
    assert found == {"large": sharding.P(("x", "y"), None), "small": sharding.P()}
    two = sharding.make_grid([dataclasses.replace(chip, slice_index=n) for n in (1, 0) for chip in flat])
    assert dict(two.shape) == {"slice": 2, "x": 4, "y": 2}
    assert [chip.slice_index for chip in two.devices[:, 0, 0]] == [0, 1]
    assert sharding.batch_sharding(two).spec == sharding.P(("slice", "x", "y")), "batches are split over slices, too"
    assert sharding.parameter_shardings(shapes, two, True)["large"].spec == sharding.P(("x", "y"), None)
    assert dict(sharding.make_grid(jax.devices()).shape) == {"data": 8}, "CPUs have no grid"


def test_devices_are_picked_by_their_documented_names():
    assert len(sharding.pick_devices("cpu")) == 1
    assert sharding.pick_devices("cpu", 3) == jax.devices("cpu")[:3]
    assert sharding.pick_devices("cpu:2") == [jax.devices("cpu")[2]]
    for wrong, message in (("mps", "no backend"), ("cpuu", "Unknown device 'cpuu'"), ("tpu", "No 'tpu' device")):
        with pytest.raises(ValueError, match=message):
            sharding.pick_devices(wrong)
    with pytest.raises(ValueError, match="99 cpu devices wanted"):
        sharding.pick_devices("cpu", 99)


CACHE_PROGRAM = """
import jax, simscaleai_jax
from simscaleai_jax.core import compile_cache
print(jax.config.jax_compilation_cache_dir)
print(compile_cache.enable())
print(jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.parametrize("chosen", others_wide([None, "chosen", ""], "chosen"))
def test_the_cache_is_on_by_default_and_the_variable_decides(tmp_path, chosen):
    environment = {name: value for name, value in os.environ.items() if name != compile_cache.ENVIRONMENT_VARIABLE}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    if chosen is not None:
        environment[compile_cache.ENVIRONMENT_VARIABLE] = chosen and str(tmp_path / chosen)
    result = subprocess.run(
        [sys.executable, "-c", CACHE_PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    before, enabled, after = result.stdout.splitlines()
    if chosen is None:
        assert before == "None", "importing turns nothing on"
        assert enabled == after
        assert after.startswith(str(tmp_path / "simscaleai_jax" / "xla-"))
    elif chosen:
        assert enabled == after == str(tmp_path / "chosen")
    else:
        assert enabled == "None"
