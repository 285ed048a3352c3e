import pickle
import subprocess
import sys

import demo_files
import h5py
import numpy as np
import pytest

from simscaleai_jax.training.data import make_loader
from simscaleai_jax.training.data.augment import ImageAugmentation
from simscaleai_jax.training.data.dataset import DummyTrajectoryDataset, TrajectoryDataset


def test_single_steps_have_no_time_axis(demos):
    path, episodes = demos
    dataset = TrajectoryDataset(path)
    assert len(dataset) == sum(demo_files.LENGTHS)
    item = dataset[5]  # the first step of the second episode
    assert sorted(item) == ["actions", "observations"]
    assert item["actions"].shape == (4,)
    assert item["actions"].dtype == np.float32
    np.testing.assert_array_equal(item["observations"]["ee_pos"], episodes[1].obs["ee_pos"][0])
    np.testing.assert_array_equal(dataset[-1]["actions"], episodes[3].actions[-1])
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_windows_are_clamped_at_the_end_of_their_episode(demos):
    path, episodes = demos
    dataset = TrajectoryDataset(path, seq_len=4)
    item = dataset[3]  # steps 3, 4 of five
    np.testing.assert_array_equal(item["is_pad"], [False, False, True, True])
    np.testing.assert_array_equal(item["actions"], episodes[0].actions[[3, 4, 4, 4]])
    np.testing.assert_array_equal(item["observations"]["joint_pos"], episodes[0].obs["joint_pos"][[3, 4, 4, 4]])
    assert not dataset[0]["is_pad"].any()


def test_obs_horizon_one_keeps_the_first_observation(demos):
    path, episodes = demos
    item = TrajectoryDataset(path, seq_len=4, obs_horizon=1)[2]
    np.testing.assert_array_equal(item["observations"]["ee_pos"], episodes[0].obs["ee_pos"][2])
    assert item["actions"].shape == (4, 4)


def test_a_history_ends_now_and_begins_with_the_episode(demos):
    path, episodes = demos
    dataset = TrajectoryDataset(path, seq_len=2, obs_horizon=3)
    late, first = dataset[3], dataset[5]  # the latter begins the second episode
    np.testing.assert_array_equal(late["observations"]["ee_pos"], episodes[0].obs["ee_pos"][[1, 2, 3]])
    np.testing.assert_array_equal(late["actions"], episodes[0].actions[[3, 4]])
    np.testing.assert_array_equal(first["observations"]["ee_pos"], episodes[1].obs["ee_pos"][[0, 0, 0]])
    single = TrajectoryDataset(path, obs_horizon=2)[4]
    np.testing.assert_array_equal(single["observations"]["ee_pos"], episodes[0].obs["ee_pos"][[3, 4]])
    assert single["actions"].shape == (4,)


def test_the_same_windows_with_fewer_observations(demos):
    path, _ = demos
    dataset = TrajectoryDataset(path, seq_len=2)
    narrowed = dataset.reading(["ee_pos"])
    assert list(narrowed[1]["observations"]) == ["ee_pos"]
    assert len(dataset[1]["observations"]) == 3
    with pytest.raises(ValueError, match="no observation 'ee'"):
        dataset.reading(["ee"])


def test_images_are_channel_first_and_in_unit_range(image_demos):
    path, episodes = image_demos
    item = TrajectoryDataset(path, seq_len=2)[0]
    image = item["observations"]["image"]
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, episodes[0].obs["image"][:2].transpose(0, 3, 1, 2) / 255.0, atol=1e-7)
    raw = TrajectoryDataset(path, raw_images=True)[0]["observations"]["image"]
    np.testing.assert_array_equal(raw, episodes[0].obs["image"][0])


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_pictures_of_robomimic_are_pictures(tmp_path, compression):
    """They are named after their camera; they are no state, however they are stored and whichever loader reads them."""
    path, pixels = tmp_path / "lift.h5", np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_0")
        demo.create_dataset("actions", data=np.zeros((6, 7)))
        demo.create_dataset("obs/robot0_eef_pos", data=np.ones((6, 3)))
        demo.create_dataset("obs/agentview_image", data=pixels, compression=compression)
        demo.create_dataset("obs/agentview_depth", data=np.full((6, 8, 8, 1), 3.0, np.float32), compression=compression)
    dataset = TrajectoryDataset(path)
    assert dataset.image_keys == ["agentview_depth", "agentview_image"]
    wanted = pixels.transpose(0, 3, 1, 2) / 255.0
    np.testing.assert_allclose(dataset[2]["observations"]["agentview_image"], wanted[2], atol=1e-7)
    stats = dataset.stats()["observations"]
    np.testing.assert_allclose(stats["agentview_image"]["mean"], pixels.mean((0, 1, 2)) / 255.0)
    assert (stats["agentview_depth"]["q50"], stats["agentview_depth"]["count"]) == ([3.0], [6])
    for augmentation in (None, ImageAugmentation()):
        batch = next(make_loader(dataset, 6, shuffle=False, augmentation=augmentation))["observations"]
        same = np.allclose(batch["agentview_image"], wanted, atol=1e-6)
        assert same == (augmentation is None)
        np.testing.assert_array_equal(batch["agentview_depth"], 3.0)


def test_language_transform_keys_and_split(demos):
    path, _ = demos
    dataset = TrajectoryDataset(
        path, obs_keys=["ee_pos"], include_language=True, transform=lambda item: item | {"more": 1}
    )
    assert sorted(dataset[0]["observations"]) == ["ee_pos"]
    assert dataset[0]["more"] == 1
    assert [dataset[i]["language"] for i in (0, 5, 8)] == ["instruction 0", "instruction 1", "instruction 2"]
    success = TrajectoryDataset(path, split="success")
    assert len(success) == demo_files.LENGTHS[0] + demo_files.LENGTHS[2]
    train, valid = (len(TrajectoryDataset(path, split=name)) for name in ("train", "valid"))
    assert train + valid == sum(demo_files.LENGTHS)


@pytest.mark.parametrize("write", [demo_files.write_robomimic, demo_files.write_older])
def test_other_layouts_give_the_same_items(demos, tmp_path, write):
    path, episodes = demos
    write(tmp_path / "other.h5", episodes)
    ours, other = (
        TrajectoryDataset(path, seq_len=3),
        TrajectoryDataset(tmp_path / "other.h5", seq_len=3),
    )
    assert len(ours) == len(other)
    for index in range(len(ours)):
        for key in ("ee_pos", "joint_pos"):
            np.testing.assert_array_equal(ours[index]["observations"][key], other[index]["observations"][key])
        np.testing.assert_array_equal(ours[index]["actions"], other[index]["actions"])
        assert other[index]["actions"].dtype == np.float32


def test_stats_stored_and_recomputed_agree(image_demos, tmp_path):
    path, episodes = image_demos
    stored = TrajectoryDataset(path).stats()
    demo_files.write_robomimic(tmp_path / "bare.h5", episodes)
    computed = TrajectoryDataset(tmp_path / "bare.h5").stats()
    actions = np.concatenate([episode.actions for episode in episodes]).astype(np.float64)
    np.testing.assert_allclose(stored["actions"]["std"], actions.std(0), rtol=1e-12)
    for name, value in stored["observations"].items():
        for kind in value:
            np.testing.assert_allclose(
                computed["observations"][name][kind], value[kind], rtol=1e-12, err_msg=f"{name} {kind}"
            )
    part = TrajectoryDataset(path, split="success").stats()
    assert part["actions"]["count"][0] == demo_files.LENGTHS[0] + demo_files.LENGTHS[2]


def test_pickle_and_fork_open_their_own_file(demos):
    path, _ = demos
    dataset = TrajectoryDataset(path)
    wanted = dataset[0]["actions"]
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[0]["actions"], wanted)
    code = f"""
import os
from simscaleai_jax.training.data.dataset import TrajectoryDataset
dataset = TrajectoryDataset({str(path)!r})
parent = dataset[0]["actions"]
handle = dataset.demos.file
if (pid := os.fork()) == 0:
    assert dataset.demos.file is not handle  # HDF5 handles do not survive a fork
    os._exit(0 if (dataset[0]["actions"] == parent).all() else 1)
assert os.waitpid(pid, 0)[1] == 0
assert dataset.demos.file is handle
import sys
assert "jax" not in sys.modules  # workers start quickly
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_dummy_has_the_documented_items():
    dataset = DummyTrajectoryDataset(
        10, obs_dim=6, action_dim=3, image_size=(8, 9), include_image=True, include_language=True
    )
    item = dataset[3]
    assert item["observations"]["state"].shape == (6,)
    assert item["observations"]["image"].shape == (3, 8, 9)
    assert item["actions"].shape == (3,)
    assert np.abs(dataset.actions).max() <= 1.0
    assert isinstance(item["language"], str)
    again = DummyTrajectoryDataset(10, obs_dim=6, action_dim=3, image_size=(8, 9), include_image=True)[3]
    np.testing.assert_array_equal(item["observations"]["image"], again["observations"]["image"])
    with pytest.raises(IndexError):
        dataset[10]


class TestBadInput:
    def test_missing_empty_foreign_and_cut_files(self, demos, tmp_path):
        path, _ = demos
        with pytest.raises(FileNotFoundError, match=r"absent\.h5"):
            TrajectoryDataset(tmp_path / "absent.h5")
        (tmp_path / "empty.h5").touch()
        with pytest.raises(ValueError, match="is empty"):
            TrajectoryDataset(tmp_path / "empty.h5")
        (tmp_path / "text.h5").write_text("not HDF5")
        with pytest.raises(ValueError, match="not a readable HDF5 file"):
            TrajectoryDataset(tmp_path / "text.h5")
        content = path.read_bytes()
        for share in (0.1, 0.5, 0.99):
            (tmp_path / "cut.h5").write_bytes(content[: int(len(content) * share)])
            with pytest.raises(ValueError, match=r"is cut|not a readable"):
                TrajectoryDataset(tmp_path / "cut.h5")
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file["weather"] = 1
        with pytest.raises(ValueError, match=r"wanted 'data/demo_0'.*'weather'"):
            TrajectoryDataset(tmp_path / "other.h5")
        with pytest.raises(ValueError, match="is a folder"):
            TrajectoryDataset(tmp_path)

    def test_unfinished_files_name_the_missing_episode(self, demos, tmp_path):
        path, episodes = demos
        (tmp_path / "a.h5").write_bytes(path.read_bytes())
        with h5py.File(tmp_path / "a.h5", "a") as file:
            del file["data/demo_2"]
        with pytest.raises(ValueError, match=r"unfinished: demo_2 is missing \(3 of 4"):
            TrajectoryDataset(tmp_path / "a.h5")
        (tmp_path / "b.h5").write_bytes(path.read_bytes())
        with h5py.File(tmp_path / "b.h5", "a") as file:
            file["data"].attrs["complete"] = False
        with pytest.raises(ValueError, match="never marked complete"):
            TrajectoryDataset(tmp_path / "b.h5")
        demo_files.write_older(tmp_path / "c.h5", episodes, announced=6)
        with pytest.raises(ValueError, match="episode_00004 is missing"):
            TrajectoryDataset(tmp_path / "c.h5")

    def test_missing_and_misshapen_arrays_are_named(self, demos, tmp_path):
        _, episodes = demos
        for name, spoil, message in (
            ("a", lambda file: file.__delitem__("data/demo_2/actions"), "demo_2 has no 'actions'"),
            ("b", lambda file: file.__delitem__("data/demo_2/obs/ee_pos"), "demo_2 has no 'obs/ee_pos'"),
            ("c", lambda file: file["data/demo_2"].move("obs/ee_pos", "obs/ee_poss"), "Did you mean 'obs/ee_poss'"),
            ("d", _replace_with((3, 5)), r"'obs/ee_pos' of demo_2 has shape \(3, 5\), wanted \(3, 3\)"),
            ("e", _replace_with((2, 3)), r"has shape \(2, 3\), wanted \(3, 3\)"),
        ):
            path = tmp_path / f"{name}.h5"
            demo_files.write_robomimic(path, episodes)
            with h5py.File(path, "a") as file:
                spoil(file)
            with pytest.raises(ValueError, match=message):
                TrajectoryDataset(path)

    def test_options(self, demos):
        path, _ = demos
        with pytest.raises(ValueError, match=r"no observation 'ee_poss'.*Did you mean 'ee_pos'"):
            TrajectoryDataset(path, obs_keys=["ee_poss"])
        with pytest.raises(ValueError, match="obs_keys is empty"):
            TrajectoryDataset(path, obs_keys=[])
        with pytest.raises(ValueError, match=r"seq_len 9 is longer than every episode .*8 steps"):
            TrajectoryDataset(path, seq_len=9)
        with pytest.raises(ValueError, match="got obs_horizon 0"):
            TrajectoryDataset(path, seq_len=2, obs_horizon=0)
        with pytest.raises(ValueError, match=r"no mask 'trian'.*Did you mean 'train'"):
            TrajectoryDataset(path, split="trian")


def _replace_with(shape):
    def spoil(file):
        del file["data/demo_2/obs/ee_pos"]
        file["data/demo_2/obs/ee_pos"] = np.zeros(shape, np.float32)

    return spoil
