"""LeRobot: names, what a robot cannot know, videos, and statistics of episodes, beyond what test_export holds."""

import json

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simscaleai_jax.core.demonstrations import QUANTILES, DemonstrationFile, Episode
from simscaleai_jax.datagen.files.shards import plan_shards
from simscaleai_jax.datagen.files.writer import ShardWriter
from simscaleai_jax.datagen.formats import lerobot_video
from simscaleai_jax.datagen.formats.lerobot_export import export_lerobot
from simscaleai_jax.datagen.formats.lerobot_features import LeRobotView, component_names
from simscaleai_jax.datagen.formats.lerobot_import import import_lerobot
from simscaleai_jax.datagen.formats.lerobot_statistics import counted_statistics, episode_statistics, range_statistics
from simscaleai_jax.datagen.generator import file_attributes, generate_dataset

from . import demo_files

SHAPES = {"ee_pos": 3, "ee_to_object": 3, "gripper_state": 1, "joint_pos": 2, "object_quat": 4, "touch": 2}
SIDE = 32


def write(path, lengths=(3, 6, 2), side=0, **env_kwargs):
    """A file of a two-joint arm with two cameras; its pictures are smooth, as rendered ones are."""
    rng = np.random.default_rng(0)
    cameras = [{"name": "wrist_cam"}, {"name": "front_cam"}]
    kwargs = {"control_dt": 0.1, "robot": "", "xml_path": "", "controller": "joint_delta", "cameras": cameras}
    run = demo_files.make_settings(len(lengths)) | {"env_kwargs": kwargs | env_kwargs}
    attributes = file_attributes(run) | {"joint_names": json.dumps(["hip", "knee"])}
    ramp = np.linspace(0, 200, max(side, 1), dtype=np.uint8)
    with ShardWriter(plan_shards(path, len(lengths))[0], run, attributes, {}) as writer:
        for number, length in enumerate(lengths):
            obs = {key: rng.normal(size=(length, size)).astype(np.float32) for key, size in SHAPES.items()}
            if side:
                frames = np.zeros((length, side, side, 3), np.uint8)
                frames[..., 0], frames[..., 1] = ramp, ramp[:, None]
                frames[..., 2] = 20 * (10 * number + np.arange(length))[:, None, None] % 250
                obs |= {"image": frames, "image_front_cam": 255 - frames}
            actions = rng.uniform(-1, 1, (length, 3)).astype(np.float32)
            writer.add(number, Episode(obs, actions, np.ones(length, np.float32), success=number == 1))
        return writer.finish()


def info_of(folder):
    return json.loads((folder / "meta/info.json").read_text())


class TestNames:
    def test_of_joints_actions_and_what_a_robot_cannot_know(self, tmp_path):
        folder = export_lerobot(write(tmp_path / "demos.h5"), tmp_path / "lerobot")
        info, record = info_of(folder), json.loads((folder / "meta/simscaleai.json").read_text())
        names = {name: info["features"][name]["names"] for name in info["features"]}
        assert names["observation.state"] == [
            *("ee_pos.x", "ee_pos.y", "ee_pos.z", "gripper_state"),
            *("joint_pos.hip", "joint_pos.knee", "touch.0", "touch.1"),
        ]
        assert names["observation.environment_state"] == [
            *(f"ee_to_object.{i}" for i in range(3)),
            *(f"object_quat.{axis}" for axis in "wxyz"),
        ]
        assert names["action"] == ["hip", "knee", "gripper"]
        assert (info["robot_type"], record["joint_names"]) == ("panda", ["hip", "knee"])

    @pytest.mark.parametrize(
        ("kwargs", "robot"),
        [({"robot": "so101"}, "so101"), ({"xml_path": "arm.xml"}, "unknown"), ({}, "panda")],
    )
    def test_of_the_robot(self, tmp_path, kwargs, robot):
        view = LeRobotView(DemonstrationFile(write(tmp_path / "demos.h5", (2,), **kwargs)))
        assert view.robot_type == robot

    def test_data_generation_says_what_the_robot_is(self, tmp_path):
        options = {"dt": 0.01, "max_steps": 2, "num_envs": 1, "env_options": {"impl": "c"}}
        generate_dataset("reach", 1, str(tmp_path / "demos.h5"), "scripted", False, seed=0, **options)
        view = LeRobotView(DemonstrationFile(tmp_path / "demos.h5"))
        assert view.robot_type == "panda"
        assert [f"joint_pos.joint{i}" for i in range(1, 8)] == component_names("joint_pos", 7, view.joints)
        assert f"joint_vel.{view.joints[6]}" in view.features["observation.state"]["names"]
        assert view.features["action"]["names"] == ["delta_x", "delta_y", "delta_z", "gripper"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write(tmp_path_factory.mktemp("videos") / "demos.h5", side=SIDE)


class TestVideos:
    @pytest.mark.parametrize("codec", ["h264", "av1"])
    def test_export_then_import_gives_nearly_the_same_pictures(self, source, tmp_path, codec):
        folder = export_lerobot(source, tmp_path / "lerobot", images=codec)
        assert "observation.images.wrist_cam" not in pq.read_schema(next(folder.glob("data/*/*.parquet"))).names
        info = info_of(folder)
        feature = info["features"]["observation.images.front_cam"]
        assert (feature["dtype"], feature["shape"], feature["info"]["video.fps"]) == ("video", [SIDE, SIDE, 3], 10)
        assert info["video_path"] == lerobot_video.VIDEO_PATH
        assert len(list(folder.glob("videos/*/chunk-000/file-000.mp4"))) == len(list(folder.glob("videos/*"))) == 2
        row = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()[1]
        times = [row[f"videos/observation.images.wrist_cam/{name}_timestamp"] for name in ("from", "to")]
        assert times == pytest.approx([0.3, 0.9])
        one, two = DemonstrationFile(source), DemonstrationFile(import_lerobot(folder, tmp_path / "back.h5"))
        assert one.obs_keys == two.obs_keys
        for episode in range(3):
            for key in one.image_keys:
                first, second = (file.read(episode, f"obs/{key}").astype(int) for file in (one, two))
                assert np.abs(first - second).mean() < 4
            np.testing.assert_array_equal(one.read(episode, "obs/touch"), two.read(episode, "obs/touch"))

    def test_a_new_file_where_one_is_large(self, source, tmp_path, monkeypatch):
        monkeypatch.setattr(lerobot_video, "FILE_MB", -1)
        folder = export_lerobot(source, tmp_path / "lerobot", images="h264")
        assert len(list(folder.glob("videos/*/chunk-000/*.mp4"))) == 6
        rows = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
        places = [row["videos/observation.images.front_cam/file_index"] for row in rows]
        assert (places, rows[2]["videos/observation.images.front_cam/from_timestamp"]) == ([0, 1, 2], 0.0)
        back = DemonstrationFile(import_lerobot(folder, tmp_path / "back.h5"))
        wanted = DemonstrationFile(source).read(2, "obs/image").astype(int)
        assert np.abs(back.read(2, "obs/image") - wanted).mean() < 4

    def test_a_cut_video_is_refused(self, source, tmp_path):
        folder = export_lerobot(source, tmp_path / "lerobot", images="h264")
        short = export_lerobot(write(tmp_path / "short.h5", (2,), SIDE), tmp_path / "short", images="h264")
        name = "videos/observation.images.front_cam/chunk-000/file-000.mp4"
        (folder / name).write_bytes((short / name).read_bytes())
        with pytest.raises(ValueError, match=r"file-000\.mp4 cannot be read from frame 0 on: it is shorter"):
            import_lerobot(folder, tmp_path / "back.h5")
        (folder / name).write_bytes(b"no video")
        with pytest.raises(ValueError, match="Invalid data"):
            import_lerobot(folder, tmp_path / "back.h5")

    def test_errors(self, source, tmp_path):
        with pytest.raises(ValueError, match="Did you mean 'h264'"):
            export_lerobot(source, tmp_path / "out", images="h265")
        odd = write(tmp_path / "odd.h5", (2,), side=5)
        with pytest.raises(ValueError, match="wrist_cam is 5x5; videos need even sides"):
            export_lerobot(odd, tmp_path / "out", images="h264")
        with h5py.File(tmp_path / "odd.h5", "r+") as file:
            depth = file["data/demo_0/obs/image"][...] / 255.0
            del file["data/demo_0/obs/image"]
            file["data/demo_0/obs/image"] = depth
        with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\); obs/image is float64"):
            export_lerobot(odd, tmp_path / "out")
        assert not list(tmp_path.glob("*out*"))


def check(found, rows):
    wanted = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    wanted |= {name: np.quantile(rows, share, axis=0) for name, share in QUANTILES.items()}
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


class TestStatistics:
    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 99))
    def test_of_episodes_equal_numpys(self, lengths, seed):
        rows = np.random.default_rng(seed).normal(size=(sum(lengths), 3)).astype(np.float32)
        found = episode_statistics(rows, np.array(lengths))
        for episode, part in enumerate(np.split(rows.astype(np.float64), np.cumsum(lengths)[:-1])):
            check({name: value[episode] for name, value in found.items()}, part)
            assert found["count"][episode] == lengths[episode]

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(0, 5), min_size=2, max_size=9).filter(any), st.integers(1, 50))
    def test_of_counted_numbers_equal_numpys(self, counts, length):
        values = np.sqrt(np.arange(len(counts)))
        check(counted_statistics(values, np.array(counts)), np.repeat(values, counts)[:, None])
        check(range_statistics(length), np.arange(length)[:, None])

    def test_not_finite_is_named(self, tmp_path):
        path = write(tmp_path / "demos.h5")
        with h5py.File(path, "r+") as file:
            file["data/demo_1/rewards"][2] = np.nan
        with pytest.raises(ValueError, match=r"next\.reward: Values that are not finite"):
            export_lerobot(path, tmp_path / "out")
        assert not list(tmp_path.glob("*out*"))
