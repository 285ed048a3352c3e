"""Data generation on the real environments, in one process and in several."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.core.demonstrations.index import beside
from simscaleai_jax.datagen import generate_dataset, merge_files
from simscaleai_jax.training.data import TrajectoryDataset

from .demo_files import content

pytestmark = pytest.mark.wide


def generate(path, name="reach", **options):
    defaults = {"n_episodes": 24, "policy_type": "scripted", "domain_randomization": False, "dt": 0.01, "seed": 1}
    return generate_dataset(name, output_path=str(path), **{**defaults, **options})


def check_same_run(one_path, other_path, num_episodes, num_steps, tolerance):
    """C27: episodes of two numbers of environments.

    What is drawn is equal to the last bit: starts (joints and object), goals, instructions. What is computed differs
    by rounding, since another batch size is other machine code: `tolerance` over the first `num_steps` control steps.
    """
    with h5py.File(one_path) as one_file, h5py.File(other_path) as other_file:
        for number in range(num_episodes):
            one, other = one_file[f"data/demo_{number}"], other_file[f"data/demo_{number}"]
            np.testing.assert_array_equal(one["states"][0], other["states"][0])
            np.testing.assert_array_equal(one["obs/target_pos"][0], other["obs/target_pos"][0])
            assert one.attrs["language"] == other.attrs["language"]
            assert one.attrs["success"] == other.attrs["success"]
            shared, shared_other = (min(len(demo["actions"]), num_steps) for demo in (one, other))
            assert shared == shared_other
            for key in ("states", "actions", "rewards", *(f"obs/{key}" for key in one["obs"])):
                np.testing.assert_allclose(one[key][:shared], other[key][:shared], rtol=0, atol=tolerance, err_msg=key)


def test_reach_does_not_depend_on_shards_nor_on_the_number_of_environments(tmp_path):
    summary = generate(tmp_path / "a.h5", num_envs=16)
    assert summary["success_rate"] == 1.0
    paths = generate(tmp_path / "s.h5", num_envs=16, shards=3)["paths"]
    merge_files(paths, tmp_path / "merged.h5")
    assert content(tmp_path / "merged.h5") == content(tmp_path / "a.h5")
    again = generate(tmp_path / "b.h5", num_envs=64)
    assert again["total_steps"] == summary["total_steps"]
    check_same_run(tmp_path / "a.h5", tmp_path / "b.h5", 24, 200, 1e-4)


def test_pick_place_experts_succeed_whatever_the_number_of_environments(tmp_path):
    summary = generate(tmp_path / "a.h5", "pick_place", n_episodes=200, num_envs=64)
    assert summary["success_rate"] >= 0.98  # 99% of many; 200 of them may hold one failure more
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["data/demo_0/states"].shape[1] == 16 + 15
    generate(tmp_path / "b.h5", "pick_place", n_episodes=16, num_envs=16)
    check_same_run(tmp_path / "a.h5", tmp_path / "b.h5", 16, 20, 1e-4)  # contact, from step 25 or so on, amplifies


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


def start(*arguments):
    command = [sys.executable, "-m", "simscaleai_jax.tools.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


TWO_PROCESSES = ["launch", "--num-processes", "2", "--devices-per-process", "2", "--", "datagen", "--distributed"]


def test_two_processes_write_a_shard_each(tmp_path):
    command = ["--env.dt", "0.01", "--env.max-episode-steps", "8", "--n-episodes", "5", "--num-envs", "16"]
    run = start(*TWO_PROCESSES, *command, "--output", str(tmp_path / "a.h5"))
    output = run.communicate()[0]
    assert run.returncode == 0, output
    paths = [tmp_path / f"a-{index:05d}-of-00002.h5" for index in range(2)]
    assert sorted(tmp_path.iterdir()) == sorted([*paths, *(beside(path) for path in paths)])
    for index, path in enumerate(paths):
        names = DemonstrationFile(path).names
        assert names == [["demo_0", "demo_1"], ["demo_2", "demo_3", "demo_4"]][index]
        assert f"[{index}] Demonstrations of reach, process {index} of 2" in output
    assert output.count("simscale merge") == 1
    merged = TrajectoryDataset(merge_files(paths, tmp_path / "merged.h5")).demos
    starts = {merged.read(number, "states", 0, 1).tobytes() for number in range(5)}
    assert len(starts) == 5, "no episode was played twice"


def test_c26_a_process_killed_among_its_peers_leaves_whole_shards_or_none(tmp_path):
    """The same command completes what is missing, and the result is that of an undisturbed run."""
    command = [
        "--env.dt",
        "0.01",
        "--env.max-episode-steps",
        "8",
        "--n-episodes",
        "2000",
        "--num-envs",
        "16",
        "--output",
    ]
    killed = start(*TWO_PROCESSES, *command, str(tmp_path / "a.h5"))
    paths = [tmp_path / f"a-{index:05d}-of-00002.h5" for index in range(2)]
    parts = paths[1].with_name(paths[1].name + ".parts")
    while not list(parts.glob("part-*.h5")):
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.002)
    children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    output = killed.communicate()[0]
    assert killed.returncode == 137, output
    assert "Start the same command again" in output
    assert not paths[1].exists()
    kept = len(list(parts.glob("part-*.h5")))
    assert 0 < kept < 1000 // 64, "it was killed in the middle"
    if paths[0].exists():
        assert len(DemonstrationFile(paths[0]).names) == 1000

    again = start(*TWO_PROCESSES, *command, str(tmp_path / "a.h5"))
    output = again.communicate()[0]
    assert again.returncode == 0, output
    whole = start(*TWO_PROCESSES, *command, str(tmp_path / "whole.h5"))
    output = whole.communicate()[0]
    assert whole.returncode == 0, output
    for index, path in enumerate(paths):
        assert len(DemonstrationFile(path).names) == 1000
        assert content(path) == content(tmp_path / f"whole-{index:05d}-of-00002.h5")
