"""`simscale bench` runs the scripts of a checkout, goes on where one fails, and says so."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from simscaleai_jax.core.errors import ExpectedError
from simscaleai_jax.tools.commands import bench

ROOT = Path(__file__).parents[2]
SUITE = """
import dataclasses

@dataclasses.dataclass(frozen=True)
class Benchmark:
    name: str
    script: str
    full: tuple = ()
    quick: tuple | None = ()
    python: str = "own"
    about: str = ""
    minutes: float = 1.0

BENCHMARKS = (
    Benchmark("broken", "broken.py"),
    Benchmark("works", "works.py", ("--size", "9"), ("--size", "1")),
    Benchmark("slow", "slow.py", quick=None),
    Benchmark("beside_torch", "works.py", python="torch"),
)

def find(name):
    return next((each for each in BENCHMARKS if each.name == name), None)
"""
WORKS = """
import json, pathlib, sys
pathlib.Path(sys.argv[sys.argv.index("--output") + 1]).write_text(json.dumps(sys.argv[1:3]))
"""


@pytest.fixture
def small_checkout(tmp_path, monkeypatch):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "suite.py").write_text(SUITE)
    (folder / "works.py").write_text(WORKS)
    (folder / "broken.py").write_text("raise SystemExit(3)")
    (folder / "slow.py").write_text("import time; time.sleep(60)")
    (folder / "figures.py").write_text("open('page_written', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIMSCALE_TORCH_PYTHON", raising=False)
    return tmp_path


def test_all_goes_on_after_a_failure_and_names_it(small_checkout, capfd):
    with pytest.raises(ExpectedError, match="1 of 3 benchmarks failed: broken"):
        bench.main(["all", "--quick"])
    quick = small_checkout / "benchmarks" / "results" / "quick"
    assert json.loads((quick / "works.json").read_text()) == ["--size", "1"]
    assert (small_checkout / "page_written").exists()
    out = capfd.readouterr().out
    assert "failed with status 3" in out
    assert "not installed" in out  # torch, for comparisons
    assert not (quick / "slow.json").exists()


def test_one_runs_in_full(small_checkout):
    bench.main(["works", "--no-page"])
    assert json.loads((small_checkout / "benchmarks" / "results" / "works.json").read_text()) == ["--size", "9"]
    assert not (small_checkout / "page_written").exists()


def test_a_limit_of_time_ends_one(small_checkout, capfd):
    with pytest.raises(ExpectedError, match="slow"):
        bench.main(["slow", "--limit-minutes", "0.01"])
    assert "longer than" in capfd.readouterr().out


def test_wrong_names_are_told(small_checkout):
    with pytest.raises(ValueError, match="works"):
        bench.main(["work"])
    with pytest.raises(ValueError, match="no quick form"):
        bench.main(["slow", "--quick"])


def test_an_installed_package_alone_has_no_benchmarks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "a" / "b" / "c" / "bench.py"))
    with pytest.raises(ExpectedError, match="checkout"):
        bench.main([])


def test_every_benchmark_of_this_checkout_is_there(capsys):
    suite = bench.load_suite(ROOT)
    scripts = {each.script for each in suite.BENCHMARKS}
    assert all((ROOT / "benchmarks" / script).is_file() for script in scripts)
    names = [each.name for each in suite.BENCHMARKS]
    assert len(set(names)) == len(names)
    bench.main([])
    assert all(name[:12] in capsys.readouterr().out for name in names[:1])


def test_scripts_say_what_is_missing(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.find_spec("peers")
    peers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peers)
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert peers.advice("envpool").startswith("not installed: pip install envpool==")
    assert peers.versions(*peers.PEERS) == {}
    with pytest.raises(ImportError, match="pip install playground"):
        peers.import_playground()
    assert "mujoco_playground" not in sys.modules
