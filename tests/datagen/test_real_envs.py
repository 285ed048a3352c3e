"""Data generation on the real environments: compiling MJX takes its time, so these run with the slow tests."""

import h5py
import numpy as np
import pytest
from test_writer import content

from simscaleai_jax.datagen import generate_dataset, merge_files
from simscaleai_jax.training.data import TrajectoryDataset

pytestmark = pytest.mark.slow


def generate(path, name="reach", **options):
    defaults = {"n_episodes": 24, "policy_type": "scripted", "domain_randomization": False, "dt": 0.01, "seed": 1}
    return generate_dataset(name, output_path=str(path), **{**defaults, **options})


def test_reach_does_not_depend_on_shards_nor_on_the_number_of_environments(tmp_path):
    summary = generate(tmp_path / "a.h5", num_envs=16)
    assert summary["success_rate"] == 1.0
    paths = generate(tmp_path / "s.h5", num_envs=16, shards=3)["paths"]
    merge_files(paths, tmp_path / "merged.h5")
    assert content(tmp_path / "merged.h5") == content(tmp_path / "a.h5")
    generate(tmp_path / "b.h5", num_envs=64)
    with h5py.File(tmp_path / "a.h5") as one, h5py.File(tmp_path / "b.h5") as other:
        for name in one["data"]:  # another batch size is other machine code: equal but for rounding
            np.testing.assert_allclose(one[f"data/{name}/states"], other[f"data/{name}/states"], atol=1e-4)


def test_pick_place_experts_succeed(tmp_path):
    summary = generate(tmp_path / "a.h5", "pick_place", n_episodes=200, num_envs=64)
    assert summary["success_rate"] >= 0.98  # 99% of many; 200 of them may hold one failure more
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["data/demo_0/states"].shape[1] == 16 + 15


def test_images_of_the_ray_caster_are_stored(tmp_path):
    camera = {"name": "front_cam", "width": 24, "height": 16}
    generate(tmp_path / "a.h5", n_episodes=3, cameras=[camera], num_envs=3, domain_randomization=True)
    dataset = TrajectoryDataset(tmp_path / "a.h5", raw_images=True)
    image = dataset[0]["observations"]["image"]
    assert image.shape == (16, 24, 3)
    assert image.std() > 5
    assert dataset.demos.attributes["domain_randomization"]
    frames = dataset.column("obs/image")
    assert np.any(frames[0] != frames[int(dataset.demos.lengths[0]) - 1])  # the arm has moved
