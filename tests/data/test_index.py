"""The index of a demonstration file: what it says, when it is made anew, and that it is whole or absent."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import demo_files
import h5py
import numpy as np
import pytest

from simscaleai_jax.core.demonstrations import DemonstrationFile, compute_statistics, ensure_index, indexing
from simscaleai_jax.core.demonstrations.array_file import ArrayWriter, map_array, read_footer
from simscaleai_jax.core.demonstrations.index import Index, beside, open_index, places
from simscaleai_jax.training.data import TrajectoryDataset


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def copy_without_index(path, target):
    target.write_bytes(path.read_bytes())
    return target


class TestArrayFile:
    def test_arrays_come_back_aligned(self, tmp_path):
        rng = np.random.default_rng(0)
        first, second = rng.normal(size=(7, 3)).astype(np.float32), rng.integers(0, 9, 5, dtype=np.int64)
        with open(tmp_path / "a", "wb", buffering=0) as file:
            writer = ArrayWriter(file)
            writer.append("first", first[:4])
            writer.append("first", first[4:])
            writer.append("second", second)
            with pytest.raises(ValueError, match="after 'second'"):
                writer.append("first", first)
            with pytest.raises(ValueError, match="cannot append"):
                writer.append("second", first)
            writer.finish({"note": "x"})
        footer = read_footer(tmp_path / "a")
        assert footer["meta"] == {"note": "x"}
        for name, value in (("first", first), ("second", second)):
            assert footer["arrays"][name]["offset"] % 64 == 0
            np.testing.assert_array_equal(map_array(tmp_path / "a", footer["arrays"][name]), value)

    def test_cut_files_are_refused(self, tmp_path, demos):
        content = beside(demos[0]).read_bytes()
        for size in (0, 5, 100, len(content) // 2, len(content) - 1):
            (tmp_path / "cut").write_bytes(content[:size])
            with pytest.raises(ValueError, match="is cut"):
                Index(tmp_path / "cut")


class TestContent:
    def test_made_with_the_file_and_on_first_use_alike(self, image_demos, tmp_path):
        path, episodes = image_demos
        made = Index(beside(path))
        assert made.statistics.keys() == {"", "train", "valid", "success"}
        later = ensure_index(DemonstrationFile(copy_without_index(path, tmp_path / "copy.h5")))
        for index in (made, later):
            assert index.names == [f"demo_{number}" for number in range(len(episodes))]
            assert index.success.tolist() == [episode.success for episode in episodes]
            np.testing.assert_array_equal(
                index.returns, [episode.rewards.sum(dtype=np.float64) for episode in episodes]
            )
            joined = np.concatenate([episode.obs["joint_pos"] for episode in episodes])
            np.testing.assert_array_equal(index.rows("obs/joint_pos", 0, len(joined)), joined)
            assert index.instructions[index.languages].tolist() == [episode.language for episode in episodes]
        assert json.dumps(made.statistics, default=np.ndarray.tolist) == json.dumps(
            later.statistics, default=np.ndarray.tolist
        )
        for key in made.frames:
            for one, two in zip(made.frames[key], later.frames[key], strict=True):
                np.testing.assert_array_equal(one, two)

    def test_statistics_of_splits_are_stored(self, demos, monkeypatch):
        path, episodes = demos
        monkeypatch.setattr("simscaleai_jax.training.data.dataset.compute_statistics", lambda chunks, keys: dict(keys))
        for split in ("train", "valid", "success", None):
            dataset = TrajectoryDataset(path, split=split)
            chosen = np.concatenate([episodes[e].actions for e in dataset.episodes])
            stats = dataset.stats()["actions"]
            wanted = compute_statistics(lambda key, rows=chosen: [rows], ["x"])["x"]
            for name in wanted:
                np.testing.assert_array_equal(stats[name], wanted[name], err_msg=f"{split} {name}")

    def test_opening_looks_at_no_episode(self, demos, monkeypatch):
        monkeypatch.setattr(DemonstrationFile, "_group", None)
        assert len(TrajectoryDataset(demos[0])[3]["actions"]) == 4

    def test_values_that_are_not_finite_are_told_when_asked_for(self, tmp_path):
        episodes = [demo_files.make_episode(number) for number in range(3)]
        episodes[1].obs["ee_pos"][2] = np.nan
        demo_files.write_robomimic(tmp_path / "nan.h5", episodes)
        dataset = TrajectoryDataset(tmp_path / "nan.h5")
        assert dataset.stats(["joint_pos"])["observations"]["joint_pos"]["count"] == [15]
        with pytest.raises(ValueError, match="'obs/ee_pos' holds values that are not finite"):
            dataset.stats()

    def test_kinds_of_numbers_become_float32(self, tmp_path):
        with h5py.File(tmp_path / "kinds.h5", "w") as file:
            for number in range(2):
                demo = file.create_group(f"data/demo_{number}")
                demo["actions"] = np.zeros((4, 2))
                demo["obs/flag"] = np.array([[True], [False], [True], [True]])
                demo["obs/count"] = np.arange(4, dtype=np.int16)
                demo["obs/frame"] = np.arange(24, dtype=">f8").reshape(4, 2, 3)
        dataset = TrajectoryDataset(tmp_path / "kinds.h5")
        item = dataset[6]["observations"]
        assert (item["flag"].tolist(), float(item["count"])) == ([1.0], 2.0)
        np.testing.assert_array_equal(item["frame"], np.arange(12, 18, dtype=np.float32).reshape(2, 3))
        assert all(value.dtype == np.float32 for value in item.values())


@pytest.mark.parametrize(
    "storage",
    [{}, {"chunks": (1, 6, 5, 3)}, {"chunks": (1, 6, 5, 3), "compression": "gzip"},
     {"chunks": (2, 6, 5, 3), "compression": "gzip"}, {"chunks": (1, 6, 5, 3), "compression": "lzf"}],
)  # fmt: skip
def test_frames_are_read_however_they_are_stored(tmp_path, storage):
    """Even frames can be compressed, odd ones are noise, which HDF5 then stores as it is."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 5, 3), np.uint8)
    pixels[:, ::2] = 7
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in range(3):
            demo = file.create_group(f"data/demo_{number}")
            demo["actions"] = np.zeros((4, 2), np.float32)
            demo.create_dataset("obs/image", data=pixels[number], **storage)
    dataset = TrajectoryDataset(tmp_path / "a.h5", seq_len=2, raw_images=True)
    batch = dataset.batch(np.array([11, 0, 5, 6]))["observations"]["image"]
    flat = pixels.reshape(12, 6, 5, 3)
    np.testing.assert_array_equal(batch, flat[[[11, 11], [0, 1], [5, 6], [6, 7]]])
    is_direct = storage.get("chunks", (1,))[0] == 1 and storage.get("compression") != "lzf"
    assert dataset.has_unlocated_frames is not is_direct
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again.batch(np.array([11]))["observations"]["image"][0], flat[[11, 11]])


class TestStale:
    def test_a_changed_file_is_indexed_anew(self, demos, tmp_path):
        """C26."""
        path = copy_without_index(demos[0], tmp_path / "a.h5")
        before = TrajectoryDataset(path)[0]["actions"]
        with h5py.File(path, "a") as file:
            file["data/demo_0/actions"][0] = 0.5  # as many bytes as before
        assert open_index(path) is None
        after = TrajectoryDataset(path)
        assert (after[0]["actions"] == 0.5).all() != (before == 0.5).all()
        assert after.stats()["actions"]["count"] == [20]
        assert open_index(path) is not None

    def test_an_index_of_another_version_or_cut_is_made_anew(self, demos, tmp_path, monkeypatch):
        path = copy_without_index(demos[0], tmp_path / "a.h5")
        TrajectoryDataset(path)
        beside(path).write_bytes(beside(path).read_bytes()[:-9])
        assert TrajectoryDataset(path).demos.index is not None
        monkeypatch.setattr("simscaleai_jax.core.demonstrations.index.INDEX_VERSION", 2)
        assert open_index(path) is None

    def test_a_linked_shard_that_changed_is_noticed(self, tmp_path):
        merged, shards = merged_links(tmp_path)
        assert open_index(merged) is not None
        with h5py.File(shards[1], "a") as file:
            name = next(iter(file["data"]))
            file[f"data/{name}/actions"][0] = 0.5
        assert open_index(merged) is None


def merged_links(folder):
    from simscaleai_jax.datagen import merge_files

    shards = write_shards(folder / "shards", 3)
    return merge_files(shards, folder / "merged.h5", link=True), shards


def write_shards(folder, count, per_shard=2):
    paths = []
    for index in range(count):
        with demo_files.make_writer(folder / "s.h5", count * per_shard, index, count) as writer:
            for number in writer.missing():
                writer.add(number, demo_files.make_episode(number))
            paths.append(writer.finish())
    return paths


def test_where_the_folder_cannot_be_written_the_cache_holds_it(demos, tmp_path, monkeypatch):
    path = copy_without_index(demos[0], tmp_path / "a.h5")
    beside(path).with_name(beside(path).name + ".tmp").mkdir()  # in the way, as a read-only folder is
    index = TrajectoryDataset(path).index
    assert index.path == places(path)[1]
    assert index.path.is_relative_to(tmp_path / "cache")
    assert DemonstrationFile(path).index is not None
    index.path.unlink()
    index.path.with_name(index.path.name + ".tmp").mkdir()
    with pytest.raises(OSError, match=r"for the index of .*a\.h5: .*a\.h5\.index.*; .*cache"):
        TrajectoryDataset(path)


def test_an_index_that_cannot_be_finished_leaves_nothing(demos, tmp_path, monkeypatch):
    path = copy_without_index(demos[0], tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["data/demo_2/obs/ee_pos"]
    with pytest.raises(ValueError, match="demo_2 has no 'obs/ee_pos'"):
        TrajectoryDataset(path)
    assert list(tmp_path.iterdir()) == [path]


INDEX = """
import sys
from simscaleai_jax.core.demonstrations import DemonstrationFile, ensure_index
demos = DemonstrationFile(sys.argv[1])
print("ready", flush=True)
print(ensure_index(demos).path)
"""


def start_indexing(path):
    process = subprocess.Popen([sys.executable, "-c", INDEX, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A file of 500 short episodes without an index."""
    path = tmp_path_factory.mktemp("many") / "many.h5"
    demo_files.write_robomimic(path, [demo_files.make_episode(number, 3) for number in range(500)])
    return path


@pytest.mark.wide
def test_killed_while_indexing(many, tmp_path):
    """C26: the index is whole or absent, at any moment, and the next one to ask has it."""
    path = copy_without_index(many, tmp_path / "a.h5")
    wanted = Index(ensure_index(DemonstrationFile(copy_without_index(many, tmp_path / "b.h5"))).path)
    seen = set()
    for delay in (0.0, 0.05, 0.15, 0.4):
        process = start_indexing(path)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.add(beside(path).exists())
        assert beside(path).exists() == (open_index(path) is not None)
    index = TrajectoryDataset(path).index
    np.testing.assert_array_equal(index.table, wanted.table)
    assert False in seen
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.h5", "a.h5.index", "b.h5", "b.h5.index"]


@pytest.mark.wide
def test_two_at_once_make_one(many, tmp_path):
    path = copy_without_index(many, tmp_path / "a.h5")
    one, two = start_indexing(path), start_indexing(path)
    assert one.communicate()[0] == two.communicate()[0] == f"{beside(path)}\n"
    assert (one.returncode, two.returncode) == (0, 0)
    assert open_index(path) is not None
    assert len(list(tmp_path.iterdir())) == 2


def test_file_systems_without_locks(demos, tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError("no locks here")

    monkeypatch.setattr(indexing.fcntl, "flock", refuse)
    path = copy_without_index(demos[0], tmp_path / "a.h5")
    assert TrajectoryDataset(path).index.path == beside(path)
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "a.h5.index"]
