"""Shards become one file."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.core.demonstrations.index import Index, beside, open_index
from simscaleai_jax.core.errors import ExpectedError
from simscaleai_jax.datagen.files.merge import merge_files

from . import demo_files


class TestMerge:
    def test_copy_and_links_equal_the_unsharded_file(self, tmp_path):
        episodes = demo_files.write_file(tmp_path / "one.h5", (5, 3, 8, 4, 6))
        shards = []
        for index in range(3):
            writer = demo_files.make_writer(tmp_path / "s.h5", 5, index, 3)
            for number in writer.missing():
                writer.add(number, episodes[number])
            shards.append(writer.finish())
        assert [path.name for path in shards] == [f"s-{index:05d}-of-00003.h5" for index in range(3)]
        merge_files(shards[::-1], tmp_path / "copy.h5")
        merge_files(shards, tmp_path / "sub" / "link.h5", link=True)
        assert (
            demo_files.content(tmp_path / "one.h5")
            == demo_files.content(tmp_path / "copy.h5")
            == demo_files.content(tmp_path / "sub" / "link.h5")
        )
        linked = DemonstrationFile(tmp_path / "sub" / "link.h5")
        np.testing.assert_array_equal(linked.read(4, "actions"), episodes[4].actions)
        self.check_refusals(shards, tmp_path)
        shards[1].rename(tmp_path / "moved.h5")
        for read in (lambda: linked.read(1, "actions"), lambda: DemonstrationFile(tmp_path / "sub" / "link.h5")):
            with pytest.raises(
                ValueError, match=r"link\.h5: demo_1 is a link to .*s-00001-of-00003\.h5, which cannot be"
            ):
                read()

    @pytest.mark.wide
    def test_more_shards_than_open_files(self, tmp_path):
        """80 shards at 48 descriptors, copied and linked, and read through the links."""
        code = f"""
            from pathlib import Path
            import resource
            import demo_files
            from simscaleai_jax.datagen.files.merge import merge_files
            from simscaleai_jax.training.data import TrajectoryDataset
            folder, shards = Path({str(tmp_path)!r}), []
            for index in range(80):
                with demo_files.make_writer(folder / "s.h5", 80, index, 80) as writer:
                    writer.add(index, demo_files.make_episode(index, 2, 4))
                    shards.append(writer.finish())
            resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
            merge_files(shards, folder / "copy.h5")
            merge_files(shards, folder / "link.h5", link=True)
            import numpy as np
            whole, linked = (TrajectoryDataset(folder / name).batch(np.arange(160)) for name in ("copy.h5", "link.h5"))
            for key, values in whole["observations"].items():
                np.testing.assert_array_equal(linked["observations"][key], values)
            """
        done = demo_files.run_with_file_limit(-1, code)
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("has_indices", [True, False])
    def test_shards_without_an_index_merge_alike(self, tmp_path, has_indices):
        episodes = demo_files.write_file(tmp_path / "one.h5", (5, 3, 8, 4, 6), image=4)
        shards = write_shards(tmp_path, episodes, 2)
        for shard in shards:
            if not has_indices:
                beside(shard).unlink()
        merge_files(shards, tmp_path / "copy.h5")
        assert demo_files.content(tmp_path / "one.h5") == demo_files.content(tmp_path / "copy.h5")
        one, copy = Index(beside(tmp_path / "one.h5")), Index(beside(tmp_path / "copy.h5"))
        np.testing.assert_array_equal(one.table, copy.table)
        assert (one.names, one.attempts.tolist(), one.returns.tolist()) == (
            copy.names, copy.attempts.tolist(), copy.returns.tolist()
        )  # fmt: skip

    def test_links_into_and_out_of_symbolic_folders(self, tmp_path):
        """HDF5 goes from where a folder really lies, whatever it is called; foreign readers go with it."""
        episodes = [demo_files.make_episode(number) for number in range(2)]
        shards = write_shards(tmp_path / "deep" / "er" / "shards", episodes, 2)
        (tmp_path / "far" / "away" / "out").mkdir(parents=True)
        (tmp_path / "out").symlink_to(tmp_path / "far" / "away" / "out")
        (tmp_path / "in").symlink_to(tmp_path / "deep" / "er" / "shards")
        merged = merge_files([tmp_path / "in" / path.name for path in shards], tmp_path / "out" / "m.h5", link=True)
        (tmp_path / "called.h5").symlink_to(merged)
        for path in (merged, tmp_path / "called.h5", tmp_path / "far" / "away" / "out" / "m.h5"):
            np.testing.assert_array_equal(DemonstrationFile(path).read(1, "actions"), episodes[1].actions)
            with h5py.File(path) as file:
                np.testing.assert_array_equal(file["data/demo_1/actions"], episodes[1].actions)

    def test_links_of_older_files_from_a_folder_as_it_was_called(self, tmp_path):
        episodes = [demo_files.make_episode(0)]
        shards = write_shards(tmp_path, episodes, 1)
        (tmp_path / "far" / "away").mkdir(parents=True)
        (tmp_path / "out").symlink_to(tmp_path / "far" / "away")
        with h5py.File(tmp_path / "out" / "m.h5", "w") as file:
            file["data/demo_0"] = h5py.ExternalLink(f"../{shards[0].name}", "/data/demo_0")
        demos = DemonstrationFile(tmp_path / "out" / "m.h5")
        np.testing.assert_array_equal(demos.read(0, "actions"), episodes[0].actions)

    @pytest.mark.wide
    def test_one_merge_at_a_time(self, tmp_path):
        """Two merges into one output: one is refused, the other's file is whole."""
        shards = write_shards(tmp_path, [demo_files.make_episode(number, 20) for number in range(20)], 2)
        code = f"from simscaleai_jax.datagen.files.merge import merge_files\nmerge_files({[str(p) for p in shards]}, "
        for attempt in range(2):
            output = tmp_path / f"m{attempt}.h5"
            both = [
                subprocess.Popen([sys.executable, "-c", f"{code}{str(output)!r})"], stderr=subprocess.PIPE, text=True)
                for _ in range(2)
            ]
            errors = [process.communicate()[1] for process in both]
            assert sorted(process.returncode for process in both) == [0, 1]
            assert "is being written by another process" in "".join(errors) or "exists; delete it" in "".join(errors)
            assert len(DemonstrationFile(output).names) == 20
            assert open_index(output) is not None
        assert not [path for path in tmp_path.iterdir() if path.name.startswith((".", "m")) and path.suffix == ".parts"]

    def test_a_merge_beside_an_unfinished_run_leaves_its_parts(self, tmp_path):
        episodes = [demo_files.make_episode(number) for number in range(4)]
        shards = write_shards(tmp_path, episodes, 2)
        with demo_files.make_writer(tmp_path / "s.h5", 4) as writer:
            writer.add(0, episodes[0])
            writer.add(1, episodes[1])
            with pytest.raises(ExpectedError, match="is being written by another process"):
                merge_files(shards, tmp_path / "s.h5")
        merge_files(shards, tmp_path / "s.h5")
        assert (tmp_path / "s.h5.parts" / "part-000000.h5").exists()

    def check_refusals(self, shards, tmp_path):
        with pytest.raises(ValueError, match="demo_1 is missing: the files hold 3 of 5"):
            merge_files([shards[0], shards[2]], tmp_path / "x.h5")
        with pytest.raises(ValueError, match="overlap: 2 episodes"):
            merge_files([*shards, shards[2]], tmp_path / "x.h5")
        with pytest.raises(ValueError, match="exists"):
            merge_files(shards, tmp_path / "copy.h5")
        other = demo_files.make_writer(tmp_path / "other.h5", 1, seed=7)
        other.add(0, demo_files.make_episode(0))
        with pytest.raises(ValueError, match=r"n_episodes 1 \(now 5\), seed 7 \(now 0\).*shards of one run"):
            merge_files([shards[0], other.finish()], tmp_path / "x.h5")
        assert not (tmp_path / "x.h5").exists()


def write_shards(folder: Path, episodes: list, count: int) -> list[Path]:
    """The episodes in so many shards."""
    paths = []
    for index in range(count):
        with demo_files.make_writer(folder / "s.h5", len(episodes), index, count) as writer:
            for number in writer.missing():
                writer.add(number, episodes[number])
            paths.append(writer.finish())
    return paths
