"""Checkpoints: exact contents, atomic writing, and a clear error for everything that is not a whole checkpoint."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.core import checkpoint, distributed, sharding
from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.core.checkpoint_series import CheckpointSeries
from simscaleai_jax.core.runs.lock import FolderInUseError

MANIFEST = Manifest(kind="ppo", model_name="actor_critic", model_kwargs={"obs_dim": 3}, step=7)


@flax.struct.dataclass
class Params:
    kernel: jax.Array
    layers: tuple[jax.Array, ...]


def make_tree(scale: float = 1.0) -> dict:
    return {
        "params": Params(jnp.arange(6.0).reshape(2, 3) * scale, (jnp.ones(2, jnp.bfloat16), jnp.zeros((0, 3), bool))),
        "key": jax.random.split(jax.random.key(3), 2),
        "count": jnp.int32(5),
        "flag": np.array([True, False]),
    }


def make_tree_on_device() -> dict:
    return make_tree() | {"flag": jnp.array([True, False])}


@pytest.fixture
def saved(tmp_path) -> Path:
    return checkpoint.save(tmp_path / "run" / "final", make_tree(), MANIFEST)


def test_load_gives_back_what_was_saved(saved):
    tree, manifest = checkpoint.load(saved, target=make_tree(0.0))
    for leaf, expected in zip(jax.tree.leaves(tree), jax.tree.leaves(make_tree()), strict=True):
        assert leaf.dtype == expected.dtype
        assert jnp.array_equal(leaf, expected)
    assert (manifest.step, manifest.model_kwargs, manifest.kind) == (7, {"obs_dim": 3}, "ppo")
    assert manifest.versions["jax"] == jax.__version__
    from_shapes, _ = checkpoint.load(saved, target=jax.eval_shape(make_tree_on_device))
    assert jnp.array_equal(jax.random.key_data(from_shapes["key"]), jax.random.key_data(make_tree()["key"]))
    plain, _ = checkpoint.load(saved)
    assert plain["params"]["kernel"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert plain["params"]["layers"]["1"].shape == (0, 3)


def test_load_places_arrays_as_the_target_is_placed(saved):
    mesh = sharding.make_mesh(jax.devices()[:2])
    target = make_tree()
    target["flag"] = sharding.put_batch(jnp.zeros(2, bool), mesh)
    target["count"] = sharding.put_replicated(jnp.int32(0), mesh)
    tree, _ = checkpoint.load(saved, target)
    assert tree["flag"].sharding.spec == sharding.BATCH
    assert len(tree["count"].sharding.device_set) == 2
    assert tree["flag"].tolist() == [True, False]


def test_saving_again_replaces_and_leaves_nothing_else(saved):
    checkpoint.save(saved, make_tree(2.0), MANIFEST)
    assert checkpoint.load(saved)[0]["params"]["kernel"][1, 2] == 10.0
    assert [path.name for path in saved.parent.iterdir()] == ["final"]


@pytest.mark.parametrize("failing", [1, 2])
def test_an_interrupted_write_leaves_the_earlier_checkpoint_whole(saved, monkeypatch, failing):
    """C29. Each of the two renames fails in turn: the old one aside, then the new one into its place."""
    rename, calls = Path.rename, []

    def rename_but_fail(path, target):
        calls.append(path)
        if len(calls) == failing:
            raise OSError("disk full")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_but_fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(saved, make_tree(2.0), MANIFEST)
    assert len(calls) >= failing
    assert checkpoint.load(saved)[0]["params"]["kernel"][1, 2] == 5.0
    assert [path.name for path in saved.parent.iterdir()] == ["final"]


def test_a_missing_path_names_the_nearest(saved):
    with pytest.raises(FileNotFoundError, match=r"does not exist\. Did you mean 'final'"):
        checkpoint.read_manifest(saved.parent / "finla")


def test_foreign_paths_are_refused_and_never_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileNotFoundError, match=r"holds no checkpoint: manifest\.json is missing"):
        checkpoint.load(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        checkpoint.load(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match="not empty and holds no checkpoint"):
        checkpoint.save(tmp_path, make_tree(), MANIFEST)
    (tmp_path / "manifest.json").write_text('{"kind": "other"}')
    with pytest.raises(ValueError, match="not written by this package"):
        checkpoint.load(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def data_file(path: Path) -> Path:
    return max((file for file in (path / "tree").rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def test_cut_missing_and_damaged_files_are_found(saved):
    """C29."""
    file = data_file(saved)
    whole = file.read_bytes()
    file.write_bytes(whole[:-4])
    with pytest.raises(ValueError, match="is cut short"):
        checkpoint.read_manifest(saved)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="do not match their checksum"):
        checkpoint.load(saved)
    file.unlink()
    with pytest.raises(ValueError, match="is missing"):
        checkpoint.load(saved)
    manifest = saved / "manifest.json"
    manifest.write_text(manifest.read_text()[:-40])
    with pytest.raises(ValueError, match="cut short"):
        checkpoint.load(saved)


def test_a_later_format_is_refused(saved):
    record = json.loads((saved / "manifest.json").read_text())
    record["manifest"]["format_version"] = 99
    (saved / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="format 99"):
        checkpoint.load(saved)


def test_a_target_that_does_not_fit_is_named(saved):
    for change, message in (
        ({"count": jnp.zeros(3)}, r"'count' with shape \(\), wanted \(3,\)"),
        ({"flga": jnp.zeros(3)}, r"lacks 1 arrays, first 'flga'\. Did you mean 'flag'"),
    ):
        with pytest.raises(ValueError, match=message):
            checkpoint.load(saved, make_tree() | change)
    with pytest.raises(ValueError, match="1 arrays that are not wanted, first 'flag'"):
        checkpoint.load(saved, {name: leaf for name, leaf in make_tree().items() if name != "flag"})


def test_a_manifest_that_json_cannot_hold_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="which no file can keep"):
        checkpoint.save(tmp_path / "a", make_tree(), Manifest(kind="ppo", model_name="x", extra={"function": print}))
    assert not list(tmp_path.iterdir())


def test_reading_a_manifest_needs_no_jax(saved):
    """C30."""
    code = (
        f"import sys; from simscaleai_jax.core import checkpoint; print(checkpoint.read_manifest({str(saved)!r}).step)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code + "; print('jax' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["7", "False"]


def test_series_keeps_the_newest_and_the_best_and_finds_complete_ones(tmp_path):
    with CheckpointSeries(tmp_path / "run", keep=2) as series:
        for step, metric in ((1, 0.1), (2, 0.9), (3, 0.5), (4, 0.6), (5, None)):
            series.save(step, make_tree(step), MANIFEST, metric)
        series.wait()
        assert [path.name for path in series.steps()] == ["step_000000002", "step_000000004", "step_000000005"]
        assert series.best() == tmp_path / "run" / "step_000000002"
        assert checkpoint.load(tmp_path / "run")[0]["params"]["kernel"][1, 2] == 10.0, "a run's folder means its best"
        data_file(series.latest()).write_bytes(b"")
        assert series.latest().name == "step_000000004", "a cut checkpoint is passed over"
    (tmp_path / "run" / ".step_000000006.ab.tmp").mkdir()
    series = CheckpointSeries(tmp_path / "run")
    assert series.latest().name == "step_000000004"
    for name in (".series.json.12.tmp", ".metrics.csv.7.tmp", ".mine.tmp"):
        (tmp_path / "run" / name).write_text("{")
    assert len(list((tmp_path / "run").glob(".*.tmp"))) == 4, "a reader leaves alone what may be in flight"
    series.hold()
    left = {path.name for path in (tmp_path / "run").glob(".*")}
    assert left == {".lock", ".mine.tmp"}, "the next run removes what an interrupted write left"
    with pytest.raises(FolderInUseError, match=rf"belongs to a run that is going on: process {os.getpid()} on"):
        CheckpointSeries(tmp_path / "run").save(9, make_tree(), MANIFEST)
    series.close()
    assert not (tmp_path / "run" / ".lock").exists()


def test_steps_beyond_nine_digits_are_the_newest(tmp_path, monkeypatch):
    with CheckpointSeries(tmp_path, keep=1) as series:
        for step in (999_999_999, 1_000_000_000):
            series.save(step, {"a": np.zeros(1)}, MANIFEST)
            series.wait()
        assert [path.name for path in series.steps()] == ["step_1000000000"]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr("jax.experimental.multihost_utils.broadcast_one_to_all", lambda halves: halves)
    for step in (-2, -1, 0, True, 2**31 - 1, 2**31, 3_000_000_000):
        assert distributed.agree(step) == step, "more than an int32 holds"


def test_what_was_being_replaced_when_a_run_was_killed_gets_its_name_back(tmp_path):
    with CheckpointSeries(tmp_path) as series:
        series.save(1, make_tree(), MANIFEST)
        series.save(2, make_tree(2.0), MANIFEST)
    (tmp_path / "step_000000002").rename(tmp_path / ".step_000000002.aa.tmp")
    (tmp_path / ".step_000000002.bb.tmp").mkdir()
    (tmp_path / ".step_000000002.bb.tmp" / "manifest.json").write_text("{")
    shutil.copytree(tmp_path / "step_000000001", tmp_path / ".step_000000001.cc.tmp")
    series = CheckpointSeries(tmp_path)
    series.hold()
    assert [path.name for path in series.steps()] == ["step_000000001", "step_000000002"]
    assert checkpoint.load(series.latest())[0]["params"]["kernel"][1, 2] == 10.0
    assert not list(tmp_path.glob(".step*"))


def test_series_never_drops_what_it_has_just_written(tmp_path):
    with CheckpointSeries(tmp_path, keep=2) as series:
        for step in (80, 90, 10):
            series.save(step, make_tree(step), MANIFEST)
    assert [path.name for path in series.steps()] == ["step_000000010", "step_000000080", "step_000000090"]
    assert checkpoint.resolve(tmp_path).name == "step_000000010"


def test_a_metric_that_is_not_a_number_is_none(tmp_path):
    with CheckpointSeries(tmp_path) as series:
        for step, metric in ((1, math.nan), (2, 0.5), (3, math.nan), (4, 0.7)):
            series.save(step, make_tree(step), MANIFEST, metric)
            series.wait()
            assert json.loads((tmp_path / "series.json").read_text())["metric"] == {1: None, 4: 0.7}.get(step, 0.5)
        assert series.best().name == "step_000000004"


def test_a_folder_means_what_is_left_of_its_run(tmp_path):
    with CheckpointSeries(tmp_path) as series:
        for step, metric in ((1, 0.9), (2, 0.5), (3, 0.1)):
            series.save(step, make_tree(step), MANIFEST, metric)
    assert checkpoint.resolve(tmp_path).name == "step_000000001"
    shutil.rmtree(tmp_path / "step_000000001")
    assert checkpoint.resolve(tmp_path).name == "step_000000003", "the best is gone: the latest"
    with CheckpointSeries(tmp_path) as series:
        series.save(4, make_tree(4), MANIFEST, 0.3)
    assert series.best().name == "step_000000004", "one that is gone is no longer the best"
    for damaged in ("{", "[]", None):
        (tmp_path / "series.json").unlink() if damaged is None else (tmp_path / "series.json").write_text(damaged)
        assert checkpoint.resolve(tmp_path).name == "step_000000004"
    data_file(tmp_path / "step_000000004").write_bytes(b"")
    assert checkpoint.load(tmp_path)[0]["params"]["kernel"][1, 2] == 15.0, "the newest whole one"


def test_series_copies_before_it_returns_and_reports_failures(tmp_path, monkeypatch):
    series = CheckpointSeries(tmp_path / "run")
    array = np.ones(4)
    path = series.save(1, {"a": array}, MANIFEST)
    array[:] = 0
    series.wait()
    assert checkpoint.load(path)[0]["a"].tolist() == [1, 1, 1, 1]

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "write", fail)
    series.save(2, {"a": array}, MANIFEST)
    with pytest.raises(OSError, match="disk full"):
        series.close()
    with pytest.raises(ValueError, match="keep must be at least 1"):
        CheckpointSeries(tmp_path / "other", keep=0)
    with pytest.raises(ValueError, match="single checkpoint"):
        CheckpointSeries(path)
