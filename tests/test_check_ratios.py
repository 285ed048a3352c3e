"""Committed ratios are compared with a new run's, within a tolerance, and none can go missing."""

import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def checker(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("check_ratios", FOLDER / "check_ratios.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def engines(checker):
    return checker.find("env_throughput_reach")


def result(share, times):
    return {"batched": [{"share_of_bare": share}, {"times_slower": times}]}


def test_ratios_hold_within_the_tolerance(checker, engines):
    committed = result(0.9, 5.0)
    assert checker.compare(engines, committed, result(0.9, 5.0), 0.4) == []
    assert checker.compare(engines, committed, result(0.6, 6.9), 0.4) == []
    assert len(checker.compare(engines, committed, result(0.9, 7.1), 0.4)) == 1
    assert len(checker.compare(engines, committed, result(0.5, 2.9), 0.4)) == 2
    assert len(checker.compare(engines, committed, result(float("nan"), 5.0), 0.4)) == 1


def test_a_ratio_cannot_go_missing(checker, engines):
    peers = checker.find("peers_env")
    off = checker.compare(peers, {"ratios": {"envpool_128": 2.0}}, {"ratios": {}}, 0.4)
    assert "missing now" in off[0]
    with pytest.raises(IndexError):
        checker.ratios(engines, {"batched": [{"share_of_bare": 1.0}]})


def test_a_run_that_is_off_twice_fails(checker, tmp_path, monkeypatch):
    monkeypatch.setattr(checker, "COMMITTED", tmp_path)
    (tmp_path / "env_throughput_reach.json").write_text(json.dumps(result(0.9, 5.0)))
    monkeypatch.setattr("sys.argv", ["check_ratios.py", "--names", "env_throughput_reach"])
    runs = iter([result(0.2, 5.0), result(0.9, 5.0)])
    monkeypatch.setattr(checker, "run", lambda benchmark: next(runs))
    checker.main()
    monkeypatch.setattr(checker, "run", lambda benchmark: result(0.2, 5.0))
    with pytest.raises(SystemExit, match="no longer hold"):
        checker.main()


def test_what_is_committed_has_every_ratio(checker):
    committed = [each for each in checker.BENCHMARKS if (checker.COMMITTED / f"{each.name}.json").exists()]
    for benchmark in committed:
        found = checker.ratios(benchmark, json.loads((checker.COMMITTED / f"{benchmark.name}.json").read_text()))
        assert all(ratio > 0 for ratio in found.values())
        assert len(found) >= len(benchmark.ratios)
