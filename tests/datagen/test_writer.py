import errno
import os
import stat

import h5py
import numpy as np
import pytest

from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.core.demonstrations.index import beside
from simscaleai_jax.core.errors import ExpectedError
from simscaleai_jax.datagen.files.background import BackgroundWriter

from . import demo_files


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(path, episodes) of a complete file with images."""
    path = tmp_path_factory.mktemp("layout") / "demos.h5"
    return path, demo_files.write_file(path, image=6)


class TestLayout:
    """The robomimic layout with h5py alone: exact groups, dtypes and attributes."""

    def test_groups_and_dtypes(self, made):
        path, episodes = made
        with h5py.File(path) as file:
            assert sorted(file) == ["data", "mask", "stats"]
            assert sorted(file["data"]) == ["demo_0", "demo_1", "demo_2", "demo_3"]
            for number, episode in enumerate(episodes):
                demo = file[f"data/demo_{number}"]
                length = len(episode.actions)
                assert sorted(demo) == ["actions", "dones", "obs", "rewards", "states"]
                wanted = {
                    "actions": ((length, 4), "<f4"),
                    "rewards": ((length,), "<f4"),
                    "dones": ((length,), "<i8"),
                    "states": ((length, 16), "<f4"),
                    "obs/ee_pos": ((length, 3), "<f4"),
                    "obs/joint_pos": ((length, 7), "<f4"),
                    "obs/image": ((length, 6, 6, 3), "|u1"),
                }
                assert {key: (demo[key].shape, demo[key].dtype.str) for key in wanted} == wanted
                np.testing.assert_array_equal(demo["actions"], episode.actions)
                np.testing.assert_array_equal(demo["obs/image"], episode.obs["image"])
                np.testing.assert_array_equal(demo["dones"], [0] * (length - 1) + [1])
                assert demo["obs/image"].chunks == (1, 6, 6, 3)
                assert demo["obs/ee_pos"].chunks is None

    def test_attributes(self, made):
        path, episodes = made
        with h5py.File(path) as file:
            data = file["data"].attrs
            assert data["total"] == sum(len(episode.actions) for episode in episodes)
            assert data["env_args"] == (
                '{"env_name": "toy", "type": 2, "env_kwargs": {"control_dt": 0.05, "domain_randomization": false}}'
            )
            assert (data["format_version"], data["seed"], data["policy_type"]) == (1, 0, "random")
            assert data["complete"]
            assert not data["domain_randomization"]
            for number, episode in enumerate(episodes):
                demo = file[f"data/demo_{number}"].attrs
                assert demo["num_samples"] == len(episode.actions)
                assert bool(demo["success"]) is episode.success
                assert demo["language"] == episode.language

    def test_masks_are_byte_strings_that_split_the_demos(self, made):
        with h5py.File(made[0]) as file:
            masks = {name: file[f"mask/{name}"][:] for name in ("train", "valid", "success")}
        assert all(mask.dtype.kind == "S" for mask in masks.values())
        assert sorted([*masks["train"], *masks["valid"]]) == [b"demo_0", b"demo_1", b"demo_2", b"demo_3"]
        assert len(masks["valid"]) == 1
        assert masks["success"].tolist() == [b"demo_0", b"demo_2"]


class TestResume:
    def test_only_missing_parts_are_made_again(self, tmp_path):
        path = tmp_path / "d.h5"
        writer = demo_files.make_writer(path, 5)
        for number in (4, 1, 0, 2):  # parts (0, 1) and (4) are whole; 2 waits for 3 and is lost
            writer.add(number, demo_files.make_episode(number))
        assert not path.exists()
        writer.close()
        again = demo_files.make_writer(path, 5)
        assert again.missing() == [2, 3]
        with pytest.raises(ValueError, match=r"cannot be finished: demo_2 is missing \(2 in all\)"):
            again.finish()
        for number in (3, 2):
            again.add(number, demo_files.make_episode(number))
        assert again.finish() == path
        assert sorted(tmp_path.iterdir()) == [path, beside(path)]
        demo_files.write_file(tmp_path / "whole.h5", (5, 5, 5, 5, 5))
        assert demo_files.content(path) == demo_files.content(tmp_path / "whole.h5")

    def test_a_damaged_part_is_made_again(self, tmp_path):
        path, whole = tmp_path / "d.h5", tmp_path / "whole.h5"
        demo_files.write_file(whole, (5, 5, 5, 5, 5))
        with demo_files.make_writer(path, 5) as writer:
            for number in (0, 1, 2, 3):
                writer.add(number, demo_files.make_episode(number))
        part = path.with_name("d.h5.parts") / "part-000001.h5"
        part.write_bytes(part.read_bytes()[:-1000])
        with pytest.warns(UserWarning, match=r"part-000001\.h5 is damaged: its episodes are made again"):
            again = demo_files.make_writer(path, 5)
        assert again.missing() == [2, 3, 4]
        for number in again.missing():
            again.add(number, demo_files.make_episode(number))
        again.finish()
        assert demo_files.content(path) == demo_files.content(whole)

    def test_a_part_that_the_system_refuses_is_kept(self, tmp_path, monkeypatch):
        with demo_files.make_writer(tmp_path / "d.h5", 2) as writer:
            for number in (0, 1):
                writer.add(number, demo_files.make_episode(number))

        def refuse(*args):
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(h5py, "File", refuse)
        with pytest.raises(OSError, match="Cannot write"):
            demo_files.make_writer(tmp_path / "d.h5", 2)
        assert (tmp_path / "d.h5.parts" / "part-000000.h5").exists()

    def test_parts_of_another_run_are_refused(self, tmp_path):
        demo_files.make_writer(tmp_path / "d.h5", 5).close()
        with pytest.raises(ValueError, match=r"other settings: seed 0 \(now 1\)\. Repeat it .* or delete"):
            demo_files.make_writer(tmp_path / "d.h5", 5, seed=1)

    @pytest.mark.wide
    def test_one_writer_at_a_time(self, tmp_path):
        path = tmp_path / "d.h5"
        writer = demo_files.make_writer(path, 2)
        half = path.with_name("d.h5.parts") / "part-000000.h5.tmp"
        half.write_text("being written")
        with pytest.raises(ExpectedError, match=r"d\.h5 is being written by another process\. Wait"):
            demo_files.make_writer(path, 2)
        assert half.exists()
        code = f"import demo_files\nfrom pathlib import Path\ndemo_files.make_writer(Path({str(path)!r}), 2)"
        assert "is being written by another process" in demo_files.run_with_file_limit(-1, code).stderr
        writer.close()
        with demo_files.make_writer(path, 2) as again:
            assert not half.exists()
            for number in (0, 1):
                again.add(number, demo_files.make_episode(number))
            again.finish()
        assert sorted(tmp_path.iterdir()) == [path, beside(path)]

    def test_a_refused_run_lets_go(self, tmp_path):
        demo_files.make_writer(tmp_path / "d.h5", 5).close()
        for _ in range(2):
            with pytest.raises(ValueError, match="other settings") as kept:  # with its traceback, and the writer in it
                demo_files.make_writer(tmp_path / "d.h5", 5, seed=1)
        assert kept.traceback
        demo_files.make_writer(tmp_path / "d.h5", 5)

    def test_wrong_numbers_and_shapes(self, tmp_path):
        writer = demo_files.make_writer(tmp_path / "d.h5", 3)
        writer.add(0, demo_files.make_episode(0))
        with pytest.raises(ValueError, match="added twice"):
            writer.add(0, demo_files.make_episode(0))
        with pytest.raises(ValueError, match="Episode 3 is not in"):
            writer.add(3, demo_files.make_episode(3))
        crooked = demo_files.make_episode(2)
        crooked.rewards = crooked.rewards[:-1]
        with pytest.raises(ValueError, match=r"5 actions has arrays of other lengths: {'rewards': 4}"):
            writer.add(2, crooked)


@pytest.mark.parametrize(
    ("size", "stage"), [(8_000, "part"), pytest.param(40_000, "assembled", marks=pytest.mark.wide)]
)
def test_no_room_is_a_clear_error_and_leaves_no_file(tmp_path, size, stage):
    code = f"""
        from pathlib import Path
        import demo_files
        writer = demo_files.make_writer(Path({str(tmp_path / "d.h5")!r}), 12)
        try:
            for number in writer.missing():
                writer.add(number, demo_files.make_episode(number, 20))
            writer.finish()
        except OSError as error:
            print("stage", "part" if writer.missing() else "assembled")
            print(error)
            sys.exit(3)
        """
    done = demo_files.run_with_file_limit(size, code)
    assert done.returncode == 3, done.stderr
    assert f"stage {stage}" in done.stdout
    assert "No room to write" in done.stdout
    assert "free some space and run the same command again" in done.stdout
    assert not (tmp_path / "d.h5").exists()
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("assembled.h5"))
    resumed = demo_files.make_writer(tmp_path / "d.h5", 12)  # with room again, what was there is used
    assert (len(resumed.missing()) == 0) is (stage == "assembled")
    for number in resumed.missing():
        resumed.add(number, demo_files.make_episode(number, 20))
    resumed.finish()
    assert len(DemonstrationFile(tmp_path / "d.h5").names) == 12


def test_errors_of_the_writer_thread_reach_the_producer(tmp_path):
    def produce():
        with BackgroundWriter(demo_files.make_writer(tmp_path / "d.h5", 4), 1) as background:
            for _ in range(50):
                background.put(1, demo_files.make_episode(1))

    with pytest.raises(ValueError, match="added twice"):
        produce()


def test_unwritable_folder_is_a_clear_error(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    is_root = os.geteuid() == 0
    if is_root:  # permissions do not bind root: act as another user, who owns nothing here
        tmp_path.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError, match=r"Cannot write .*d\.h5: Permission denied\. Choose a folder"):
            demo_files.make_writer(locked / "d.h5", 2)
    finally:
        if is_root:
            os.seteuid(0)
    assert not list(locked.iterdir())


def test_a_file_in_the_way_of_the_folder(tmp_path):
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(OSError, match="Cannot write"):
        demo_files.make_writer(tmp_path / "data" / "d.h5", 2)
