"""The file of metrics of a run that was killed and goes on."""

import numpy as np

from simscaleai_jax.rl.progress import MetricsFile, read_metrics


def test_rows_later_than_the_checkpoint_are_dropped_and_a_cut_one_too(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path)
    for steps in (10.0, 20.0, 30.0):
        first(None, {"total_steps": steps, "success_rate": 0.0})
    with path.open("a") as file:
        file.write('{"total_steps": 40.0, "succ')
    assert read_metrics(path)["total_steps"] == [10, 20, 30]
    again = MetricsFile(path, done_steps=20)
    again(None, {"total_steps": 30.0, "success_rate": 1.0})
    assert read_metrics(path) == {"total_steps": [10, 20, 30], "success_rate": [0, 0, 1]}
    anew = MetricsFile(path)
    assert len(read_metrics(path)["total_steps"]) == 3, "nothing is lost before there is something new"
    anew(None, {"total_steps": 10.0, "success_rate": 0.5})
    assert read_metrics(path) == {"total_steps": [10], "success_rate": [0.5]}


def test_a_number_that_only_later_rows_have_is_nan_before(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file(None, {"total_steps": 10.0})
    file(None, {"total_steps": 20.0, "reward/reach": 0.5})
    assert np.array_equal(read_metrics(file.path)["reward/reach"], [np.nan, 0.5], equal_nan=True)
