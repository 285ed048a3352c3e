import io
import json
import shutil

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from simscaleai_jax.core.demonstrations import QUANTILES, DemonstrationFile
from simscaleai_jax.datagen.formats import lerobot_export, lerobot_parquet
from simscaleai_jax.datagen.formats.lerobot_export import export_lerobot
from simscaleai_jax.datagen.formats.lerobot_import import import_lerobot
from simscaleai_jax.datagen.formats.robomimic_export import export_robomimic
from simscaleai_jax.tools.commands.train import env_record
from simscaleai_jax.training.data import TrajectoryDataset
from tests.params import others_wide

from . import demo_files
from .demo_files import run_with_file_limit


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(folder, HDF5 path, episodes) of an export with images."""
    base = tmp_path_factory.mktemp("lerobot")
    episodes = demo_files.write_file(base / "demos.h5", image=6)
    return export_lerobot(base / "demos.h5", base / "lerobot"), base / "demos.h5", episodes


def frames(folder) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((folder / "data").glob("*/*.parquet"))])


def state_of(episode) -> np.ndarray:
    return np.concatenate([episode.obs[key] for key in ("ee_pos", "joint_pos")], axis=1)


class TestLeRobot:
    def test_files_and_info(self, exported):
        folder, _, _ = exported
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        assert files == [
            "README.md",
            "data/chunk-000/file-000.parquet",
            "meta/episodes/chunk-000/file-000.parquet",
            "meta/info.json",
            "meta/simscaleai.json",
            "meta/stats.json",
            "meta/tasks.parquet",
        ]
        info = json.loads((folder / "meta/info.json").read_text())
        features = info.pop("features")
        assert info == {
            "codebase_version": "v3.0",
            "robot_type": "unknown",
            "total_episodes": 4,
            "total_frames": 20,
            "total_tasks": 3,
            "chunks_size": 1000,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": 20,
            "splits": {"train": "0:4"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": None,
        }
        assert json.loads((folder / "meta/simscaleai.json").read_text()) == {
            "env_name": "toy",
            "env_kwargs": {"control_dt": 0.05, "domain_randomization": False},
            "observations": {
                "observation.state": {"ee_pos": [3], "joint_pos": [7]},
                "observation.environment_state": {"target_pos": [3]},
            },
            "cameras": {"observation.images.image": "image"},
        }
        card = (folder / "README.md").read_text()
        assert card.startswith("---\ntags: [LeRobot]")
        assert "4 episodes, 20 frames at 20 per second" in card
        assert {name: (feature["dtype"], feature["shape"]) for name, feature in features.items()} == {
            "observation.state": ("float32", [10]),
            "observation.environment_state": ("float32", [3]),
            "observation.images.image": ("image", [6, 6, 3]),
            "action": ("float32", [4]),
            "next.reward": ("float32", [1]),
            "next.done": ("bool", [1]),
            "next.success": ("bool", [1]),
            "timestamp": ("float32", [1]),
            "frame_index": ("int64", [1]),
            "episode_index": ("int64", [1]),
            "index": ("int64", [1]),
            "task_index": ("int64", [1]),
        }
        assert features["observation.state"]["names"][:4] == ["ee_pos.x", "ee_pos.y", "ee_pos.z", "joint_pos.0"]
        assert features["observation.environment_state"]["names"] == [f"target_pos.{axis}" for axis in "xyz"]
        assert features["action"]["names"] == ["delta_x", "delta_y", "delta_z", "gripper"]

    def test_schema_and_one_row_group_per_episode(self, exported):
        file = pq.ParquetFile(exported[0] / "data/chunk-000/file-000.parquet")
        types = {field.name: str(field.type) for field in file.schema_arrow}
        assert types == {
            "observation.state": "fixed_size_list<element: float>[10]",
            "observation.environment_state": "fixed_size_list<element: float>[3]",
            "observation.images.image": "struct<bytes: binary, path: string>",
            "action": "fixed_size_list<element: float>[4]",
            "next.reward": "float",
            "next.done": "bool",
            "next.success": "bool",
            "timestamp": "float",
            "frame_index": "int64",
            "episode_index": "int64",
            "index": "int64",
            "task_index": "int64",
        }
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == list(demo_files.LENGTHS)

    def test_index_columns_are_continuous(self, exported):
        folder, _, episodes = exported
        table = frames(folder).to_pydict()
        assert table["index"] == list(range(20))
        assert table["episode_index"] == [i for i, length in enumerate(demo_files.LENGTHS) for _ in range(length)]
        assert table["frame_index"] == [t for length in demo_files.LENGTHS for t in range(length)]
        np.testing.assert_allclose(table["timestamp"], np.array(table["frame_index"]) / 20, rtol=1e-6)
        tasks = pd.read_parquet(folder / "meta/tasks.parquet")
        assert tasks.index.name == "task"
        spoken = [tasks.index[list(tasks.task_index).index(i)] for i in table["task_index"]]
        assert spoken == [
            e.language for e, length in zip(episodes, demo_files.LENGTHS, strict=True) for _ in range(length)
        ]

    def test_values(self, exported):
        folder, _, episodes = exported
        table = frames(folder).to_pydict()
        np.testing.assert_array_equal(
            np.array(table["observation.state"], np.float32), np.concatenate([state_of(e) for e in episodes])
        )
        np.testing.assert_array_equal(
            np.array(table["action"], np.float32), np.concatenate([e.actions for e in episodes])
        )
        np.testing.assert_array_equal(
            np.array(table["next.reward"], np.float32), np.concatenate([e.rewards for e in episodes])
        )
        ends = np.cumsum(demo_files.LENGTHS) - 1
        assert np.flatnonzero(table["next.done"]).tolist() == ends.tolist()
        assert np.flatnonzero(table["next.success"]).tolist() == [ends[0], ends[2]]
        pictures = [np.array(Image.open(io.BytesIO(cell["bytes"]))) for cell in table["observation.images.image"]]
        np.testing.assert_array_equal(pictures, np.concatenate([e.obs["image"] for e in episodes]))

    def test_episode_rows(self, exported):
        folder, _, episodes = exported
        rows = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
        ends = np.cumsum(demo_files.LENGTHS)
        for i, row in enumerate(rows):
            assert (row["episode_index"], row["length"], row["tasks"]) == (
                i,
                demo_files.LENGTHS[i],
                [episodes[i].language],
            )
            assert (row["dataset_from_index"], row["dataset_to_index"]) == (ends[i] - demo_files.LENGTHS[i], ends[i])
            assert (row["data/chunk_index"], row["data/file_index"]) == (0, 0)
            assert (row["meta/episodes/chunk_index"], row["meta/episodes/file_index"]) == (0, 0)
            np.testing.assert_allclose(
                row["stats/action/mean"], episodes[i].actions.astype(np.float64).mean(0), rtol=1e-12
            )
            assert row["stats/action/count"] == [demo_files.LENGTHS[i]]
            assert np.shape(row["stats/observation.images.image/max"]) == (3, 1, 1)

    def test_stats_equal_recomputed_ones(self, exported):
        folder, _, episodes = exported
        stats = json.loads((folder / "meta/stats.json").read_text())
        table = frames(folder)
        info = json.loads((folder / "meta/info.json").read_text())
        assert set(stats) == set(info["features"])
        columns = {
            name: np.array(table[name].to_pylist(), np.float64).reshape(20, -1)
            for name in stats
            if "images" not in name
        }
        columns["observation.images.image"] = np.concatenate([e.obs["image"] for e in episodes]).reshape(-1, 3) / 255.0
        for name, rows in columns.items():
            wanted = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
            wanted |= {q: np.quantile(rows, share, axis=0) for q, share in QUANTILES.items()}
            assert stats[name]["count"] == [20]
            for kind, value in wanted.items():
                np.testing.assert_allclose(
                    np.ravel(stats[name][kind]), value, rtol=1e-9, atol=1e-12, err_msg=f"{name} {kind}"
                )
        assert np.shape(stats["observation.images.image"]["mean"]) == (3, 1, 1)

    def test_files_are_split_by_size(self, exported, tmp_path, monkeypatch):
        monkeypatch.setattr(lerobot_parquet, "FILE_MB", 0.001)
        monkeypatch.setattr(lerobot_parquet, "CHUNKS_SIZE", 3)
        monkeypatch.setattr(lerobot_export, "BLOCK_ROWS", 16)
        folder = export_lerobot(exported[1], tmp_path / "split")
        files = sorted(str(path.relative_to(folder / "data")) for path in (folder / "data").rglob("*.parquet"))
        assert files == [f"chunk-000/file-00{i}.parquet" for i in range(3)] + ["chunk-001/file-000.parquet"]
        assert frames(folder).equals(frames(exported[0]))
        files = sorted((folder / "meta/episodes").glob("*/*.parquet"))
        rows = [row for path in files for row in pq.read_table(path).to_pylist()]
        assert [(row["data/chunk_index"], row["data/file_index"]) for row in rows] == [(0, 0), (0, 1), (0, 2), (1, 0)]
        places = [(row["meta/episodes/chunk_index"], row["meta/episodes/file_index"]) for row in rows]
        assert places == [(0, 0), (0, 0), (0, 1), (0, 1)]
        assert [str(path.relative_to(folder / "meta/episodes")) for path in files] == [
            f"chunk-000/file-00{i}.parquet" for i in range(2)
        ]
        whole = pq.read_table(exported[0] / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
        for one, two in zip(rows, whole, strict=True):
            same = [name for name in two if name.startswith("stats/") or "dataset" in name]
            assert {name: one[name] for name in same} == {name: two[name] for name in same}

    def test_export_then_import_is_identity(self, exported, tmp_path):
        folder, path, _ = exported
        ours = TrajectoryDataset(path, include_language=True)
        back = TrajectoryDataset(import_lerobot(folder, tmp_path / "back.h5"), include_language=True)
        assert back.obs_keys == ours.obs_keys
        assert len(back) == len(ours)
        for index in range(len(ours)):
            one, two = ours[index], back[index]
            assert one["language"] == two["language"]
            np.testing.assert_array_equal(one["actions"], two["actions"])
            for key in ours.obs_keys:
                np.testing.assert_array_equal(one["observations"][key], two["observations"][key])
        np.testing.assert_array_equal(ours.demos.masks["success"], back.demos.masks["success"])
        assert back.demos.attributes["env_args"] == ours.demos.attributes["env_args"]
        assert back.demos.attributes["robot_type"] == "unknown"

    def test_an_older_file_keeps_its_environment(self, exported, tmp_path):
        demo_files.write_older(tmp_path / "older.h5", exported[2])
        folder = export_lerobot(tmp_path / "older.h5", tmp_path / "lerobot", fps=10)
        attributes = DemonstrationFile(import_lerobot(folder, tmp_path / "back.h5")).attributes
        assert attributes["env_args"] == {"env_name": "reach", "type": 2, "env_kwargs": {"control_dt": 0.1}}

    def test_foreign_names_become_the_key_state_and_no_environment(self, exported, tmp_path):
        folder = tmp_path / "foreign"
        shutil.copytree(exported[0], folder)
        info = json.loads((folder / "meta/info.json").read_text())
        info["features"]["observation.state"]["names"] = ["state"]
        (folder / "meta/simscaleai.json").unlink()
        (folder / "meta/info.json").write_text(json.dumps(info))
        dataset = TrajectoryDataset(import_lerobot(folder, tmp_path / "back.h5"))
        np.testing.assert_array_equal(dataset[0]["observations"]["state"], state_of(exported[2][0])[0])
        assert env_record(dataset) == {}
        assert dataset.demos.attributes["robot_type"] == "unknown"

    def test_one_component_is_a_number(self, tmp_path):
        episodes = [demo_files.make_episode(number) for number in range(2)]
        with demo_files.make_writer(tmp_path / "demos.h5", 2) as writer:
            for number, episode in enumerate(episodes):
                episode.actions, episode.obs = episode.actions[:, :1], {"angle": episode.obs["ee_pos"][:, :1]}
                writer.add(number, episode)
            writer.finish()
        folder = export_lerobot(tmp_path / "demos.h5", tmp_path / "lerobot")
        types = {name: str(frames(folder).schema.field(name).type) for name in ("action", "observation.state")}
        assert types == {"action": "float", "observation.state": "float"}
        back = DemonstrationFile(import_lerobot(folder, tmp_path / "back.h5"))
        for number, episode in enumerate(episodes):
            np.testing.assert_array_equal(back.read(number, "actions"), episode.actions)
            np.testing.assert_array_equal(back.read(number, "obs/angle"), episode.obs["angle"])

    def test_more_episodes_than_announced_are_refused(self, exported, tmp_path):
        folder = shutil.copytree(exported[0], tmp_path / "cut")
        info = json.loads((folder / "meta/info.json").read_text())
        (folder / "meta/info.json").write_text(json.dumps(info | {"total_episodes": 3}))
        with pytest.raises(ValueError, match=r"cut holds episode 3, and its info\.json says 3 episodes"):
            import_lerobot(folder, tmp_path / "back.h5")
        assert not (tmp_path / "back.h5").exists()

    def test_errors(self, exported, tmp_path):
        folder, path, _ = exported
        with pytest.raises(ValueError, match="exists"):
            export_lerobot(path, folder)
        demo_files.write_older(tmp_path / "older.h5", exported[2])
        with pytest.raises(ValueError, match="does not say its control rate"):
            export_lerobot(tmp_path / "older.h5", tmp_path / "out")
        for fps in (0, -5):
            with pytest.raises(ValueError, match=f"fps must be at least 1, got {fps}"):
                export_lerobot(path, tmp_path / "out", fps=fps)
        assert not (tmp_path / "out").exists()
        assert (
            json.loads(
                (export_lerobot(tmp_path / "older.h5", tmp_path / "out", fps=10) / "meta/info.json").read_text()
            )["fps"]
            == 10
        )
        assert sorted(path.name for path in tmp_path.iterdir()) == ["older.h5", "older.h5.index", "out"]
        with pytest.raises(FileNotFoundError, match=r"no meta/info\.json"):
            import_lerobot(tmp_path, tmp_path / "x.h5")
        info = json.loads((folder / "meta/info.json").read_text())
        for change, message in (
            ({"codebase_version": "v2.1"}, "LeRobot v2.1 data set, wanted v3.0"),
            ({"features": {}}, "no feature 'action'"),
        ):
            (tmp_path / "meta").mkdir(exist_ok=True)
            (tmp_path / "meta/info.json").write_text(json.dumps(info | change))
            with pytest.raises(ValueError, match=message):
                import_lerobot(tmp_path, tmp_path / "x.h5")


@pytest.mark.parametrize("write", [None, demo_files.write_older])
def test_robomimic_export_adds_next_obs(exported, tmp_path, write):
    _, source, episodes = exported
    if write is not None:
        source = tmp_path / "source.h5"
        write(source, episodes)
    with h5py.File(export_robomimic(source, tmp_path / "robomimic.h5")) as file:
        assert file["data"].attrs["total"] == 20
        assert json.loads(file["data"].attrs["env_args"])["type"] == 2
        for number, episode in enumerate(episodes):
            demo = file[f"data/demo_{number}"]
            assert demo.attrs["num_samples"] == len(episode.actions)
            np.testing.assert_array_equal(demo["actions"], episode.actions)
            np.testing.assert_array_equal(demo["next_obs/ee_pos"][:-1], episode.obs["ee_pos"][1:])
            np.testing.assert_array_equal(demo["next_obs/image"][-1], episode.obs["image"][-1])
    assert len(TrajectoryDataset(tmp_path / "robomimic.h5")) == 20
    with pytest.raises(ValueError, match="exists"):
        export_robomimic(source, tmp_path / "robomimic.h5")


def attributes(item) -> dict:
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in item.attrs.items()}


def test_robomimic_export_says_what_the_source_says(tmp_path):
    episodes = [demo_files.make_episode(number) for number in range(3)]
    writer = demo_files.make_writer(tmp_path / "demos.h5", 3)
    for number, episode in enumerate(episodes):
        episode.attempts, episode.actions_executed = 3 + number, episode.actions / 2
        writer.add(number, episode)
    writer.finish()
    exported = export_robomimic(tmp_path / "demos.h5", tmp_path / "robomimic.h5")
    with h5py.File(tmp_path / "demos.h5") as source, h5py.File(exported) as file:
        for number, episode in enumerate(episodes):
            found = attributes(file[f"data/demo_{number}"])
            assert found == attributes(source[f"data/demo_{number}"])
            assert (found["terminated"], found["attempts"]) == (number % 2 == 0, 3 + number)
            np.testing.assert_array_equal(file[f"data/demo_{number}/actions_executed"], episode.actions_executed)
        wanted = attributes(source["data"])
        for name in ("format_version", "first_episode", "num_episodes", "complete"):
            del wanted[name]
        assert attributes(file["data"]) == wanted
        assert (wanted["seed"], wanted["policy_type"], "settings" in wanted) == (0, "random", True)


def test_robomimic_export_says_nothing_that_the_source_does_not_say(tmp_path):
    demo_files.write_older(tmp_path / "older.h5", [demo_files.make_episode(number) for number in range(2)])
    with h5py.File(export_robomimic(tmp_path / "older.h5", tmp_path / "out.h5")) as file:
        assert list(attributes(file["data/demo_1"])) == ["num_samples"]
        args = {"env_name": "reach", "type": 2, "env_kwargs": {}}
        assert json.loads(file["data"].attrs["env_args"]) == args
        assert file["data"].attrs["policy_type"] == "scripted"


def test_unknown_success_stays_unknown(exported, tmp_path):
    (tmp_path / "some.h5").write_bytes(exported[1].read_bytes())
    with h5py.File(tmp_path / "some.h5", "r+") as file:
        del file["data/demo_1"].attrs["success"]
    with h5py.File(export_robomimic(tmp_path / "some.h5", tmp_path / "out.h5")) as file:
        found = [file[f"data/demo_{i}"].attrs.get("success") for i in range(4)]
    assert found == [True, None, True, False]


@pytest.mark.parametrize("export", [export_lerobot, export_robomimic])
def test_what_lies_beside_the_output_is_left_alone(exported, tmp_path, export):
    beside = tmp_path / "out.tmp"
    if export is export_lerobot:
        beside.mkdir()
        beside = beside / "notes"
    beside.write_text("mine")
    export(exported[1], tmp_path / "out")
    assert beside.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.tmp"]


@pytest.mark.parametrize("size", others_wide([1_000, 20_000, 100_000], 20_000))
def test_no_room_for_a_robomimic_file_is_a_clear_error(tmp_path, size):
    demo_files.write_file(tmp_path / "demos.h5", (40, 40, 40), image=16)
    code = f"""
        from simscaleai_jax.tools.cli import main
        paths = [{str(tmp_path / "demos.h5")!r}, {str(tmp_path / "out" / "robomimic.h5")!r}]
        sys.exit(main(["export-dataset", *paths, "--to", "robomimic"]))
        """
    done = run_with_file_limit(size, code)
    assert done.returncode == 1, done.stderr
    assert "No room to write" in done.stderr
    assert "Exception ignored" not in done.stderr
    assert not list((tmp_path / "out").iterdir())
