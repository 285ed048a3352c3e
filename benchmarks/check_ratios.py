"""Whether ratios that benchmarks claim still hold: their quick forms are run again and compared with what is committed.

    python benchmarks/check_ratios.py [--names env_throughput_reach ...] [--tolerance 0.4]

Compared are the `ratios` of benchmarks/suite.py, numbers that do not depend on how fast a machine is, between
benchmarks/results/quick/NAME.json and a new run of the same size. One that is worse or better by more than the
tolerance, as a share of the committed one, ends this with an error; so does a ratio that the new run lacks, unless what
it compares with is not installed. Times are not compared.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from suite import BENCHMARKS, Benchmark, find

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = ROOT / "benchmarks" / "results" / "quick"
TOLERANCE = 0.4


def main() -> None:
    """Runs and compares; prints a line for each ratio."""
    checked = [each.name for each in BENCHMARKS if each.ratios and each.python == "own"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--names", nargs="+", choices=[each.name for each in BENCHMARKS if each.ratios], default=checked
    )
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    parser.add_argument("--again", type=int, default=1, help="further runs of a benchmark whose ratios are off")
    options = parser.parse_args()
    wrong: list[str] = []
    for name in options.names:
        benchmark = find(name)
        assert benchmark is not None
        for attempt in range(options.again + 1):  # a burst of load makes one run wrong, hardly two
            off = compare(
                benchmark, json.loads((COMMITTED / f"{name}.json").read_text()), run(benchmark), options.tolerance
            )
            if not off:
                break
            print(f"{name}: off in run {attempt + 1}", flush=True)
        wrong += off
    if wrong:
        sys.exit("\n".join(["Ratios that no longer hold:", *wrong]))


def run(benchmark: Benchmark) -> dict[str, Any]:
    """The result of its quick form, run now by this interpreter."""
    assert benchmark.quick is not None
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        script = ROOT / "benchmarks" / benchmark.script
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, str(script), *benchmark.quick, "--output", str(output)]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        return json.loads(output.read_text())


def compare(benchmark: Benchmark, committed: Any, now: Any, tolerance: float) -> list[str]:
    """What is off, a line each; prints every ratio."""
    off = []
    for path, before in ratios(benchmark, committed).items():
        after = ratios(benchmark, now).get(path)
        line = f"{benchmark.name} {path}: {before:.3g} committed, {'missing' if after is None else f'{after:.3g}'} now"
        print(line, flush=True)
        if after is None or not abs(after - before) <= tolerance * abs(before):
            off.append(line)
    return off


def ratios(benchmark: Benchmark, result: Any) -> dict[str, float]:
    """path -> ratio, for each that the suite names; "a.0.b" goes through dicts and lists, "a.*" takes every entry.

    Raises:
      KeyError, IndexError: the result has no such entry.
    """
    found = {}
    for path in benchmark.ratios:
        value = result
        for part in path.removesuffix(".*").split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        if path.endswith(".*"):
            found |= {f"{path.removesuffix('*')}{name}": ratio for name, ratio in value.items()}
        else:
            found[path] = value
    return found


if __name__ == "__main__":
    main()
