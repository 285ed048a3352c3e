"""Weights & Biases, TensorBoard and trackio themselves: numbers, films and tables of a run that was killed once."""

import json
import sqlite3

import imageio.v3 as iio
import numpy as np
import pytest

from simscaleai_jax.core.runs.trackers import About, LogConfig, open_trackers

pytestmark = pytest.mark.clients

CONFIG = {"ppo": {"lr": 1e-3}, "names": ["a", "b"]}


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "episode_000.mp4"
    iio.imwrite(path, np.zeros((8, 64, 64, 3), np.uint8), fps=20)
    return path


def run(tracker, folder, film):
    """Two processes' worth of a run: steps 1 to 4, and again from 2 on, as after a kill."""
    folder.mkdir()
    for first, last in ((0, 4), (2, 5)):
        log = LogConfig((tracker,), project="simscale-test", name="mine", offline=True)
        (sink,) = open_trackers(log, About(folder, "abc123", CONFIG, first))
        for step in range(first + 1, last + 1):
            sink.write(step, {"loss": 1.0 / step})
        sink.video(last, "eval/episode_000", film)
        sink.table(last, "results", ("result", "value"), [("success_rate", 0.5), ("steps", 4)])
        sink.close()


def test_tensorboard(tmp_path, film):
    run("tensorboard", tmp_path / "run", film)
    from tensorboardX.proto import event_pb2

    found = []
    for file in sorted((tmp_path / "run" / "tensorboard").iterdir()):
        for record in records(file.read_bytes()):
            event = event_pb2.Event.FromString(record)
            found += [(event.step, value.tag) for value in event.summary.value]
    assert {(1, "loss"), (5, "loss"), (5, "eval/episode_000"), (5, "results/text_summary")} <= set(found)


def records(content):
    """The records of a TFRecord file."""
    at = 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 8], "little")
        yield content[at + 12 : at + 12 + size]
        at += 16 + size


def test_wandb_offline(tmp_path, film, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    run("wandb", tmp_path / "run", film)
    runs = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert runs
    assert all(path.name.endswith("abc123") for path in runs), "it goes on under its own id"
    names = {path.name for folder in runs for path in folder.rglob("*") if path.is_file()}
    assert any(name.endswith(".mp4") for name in names)
    assert any(name.endswith(".table.json") for name in names)


def test_trackio(tmp_path, film, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run("trackio", tmp_path / "run", film)
    (database,) = (tmp_path / "trackio").rglob("simscale-test*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select step, metrics from metrics order by id").fetchall()
    steps = [step for step, metrics in rows if "loss" in json.loads(metrics)]
    assert steps[-1] == 5
    assert any("eval/episode_000" in json.loads(metrics) for _, metrics in rows)
    assert any("results" in json.loads(metrics) for _, metrics in rows)
