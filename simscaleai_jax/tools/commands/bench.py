"""`simscale bench`: runs benchmarks of a checkout, each in a process of its own, and writes its page of figures."""

import contextlib
import dataclasses
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import tyro

from simscaleai_jax.core.errors import ExpectedError, unknown_name
from simscaleai_jax.tools.arguments import parse
from simscaleai_jax.tools.output import print_table

DESCRIPTION = """Run benchmarks and write docs/benchmarks.md from what they measured.

Needs a checkout, whose benchmarks/ folder holds the scripts; each of them runs alone, too. Without a name the
benchmarks are listed; "all" runs those that have a quick form. Results go to benchmarks/results, those of --quick to
benchmarks/results/quick, which the page shows only where nothing else was measured. A benchmark that fails is named at
the end, and the others run all the same. Libraries to compare with are found in .venv-peers (make bench-peers) or by
SIMSCALE_PEERS_PYTHON, torch in .venv-torch (make test-torch) or by SIMSCALE_TORCH_PYTHON.

Examples:
  simscale bench
  simscale bench env_throughput_reach
  simscale bench all --quick"""

ALL = "all"
GRACE_SECONDS = 10.0  # from asking a benchmark to end to ending it
DONE, FAILED, MISSING = "done", "failed", "not installed"


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """Options of `simscale bench`.

    Attributes:
      names: benchmarks, or "all"; none: list them.
      quick: small sizes, 20 minutes on two cores for all of them.
      results: folder for the JSON files; default: benchmarks/results of the checkout, or quick in it.
      page: write docs/benchmarks.md and the README's figures afterwards.
      limit_minutes: a benchmark that takes longer is ended and counts as failed; 0: no limit.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    quick: bool = False
    results: str | None = None
    page: bool = True
    limit_minutes: float = 0.0


def main(argv: list[str]) -> None:
    """Parses the options, runs what they name, prints a table.

    Raises:
      ExpectedError: a benchmark failed.
    """
    options = parse(BenchOptions, argv, "bench", DESCRIPTION)
    root = checkout()
    suite = load_suite(root)
    if not options.names:
        rows = [(each.name, each.about, f"{each.minutes:g}", each.quick is not None) for each in suite.BENCHMARKS]
        print_table("Benchmarks", ("name", "what it measures", "minutes, about", "quick"), rows)
        return
    chosen = choose(suite, options.names, options.quick)
    folder = Path(options.results) if options.results else root / "benchmarks" / "results"
    if options.quick and options.results is None:
        folder /= "quick"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [run(root, each, options, folder.resolve()) for each in chosen]
    print_table("Benchmarks", ("name", "outcome", "seconds"), rows)
    if options.page:
        subprocess.run([sys.executable, str(root / "benchmarks" / "figures.py")], cwd=root, check=True)
    failed = [name for name, outcome, _ in rows if outcome.startswith(FAILED)]
    if failed:
        raise ExpectedError(f"{len(failed)} of {len(rows)} benchmarks failed: {', '.join(failed)}")


def checkout() -> Path:
    """The checkout: the working folder, or that which this package lies in.

    Raises:
      ExpectedError: neither holds benchmarks/suite.py, as with a package that was installed.
    """
    for root in (Path.cwd(), Path(__file__).parents[3]):
        if (root / "benchmarks" / "suite.py").is_file():
            return root
    raise ExpectedError("no benchmarks/suite.py here; run it in a checkout of the repository")


def load_suite(root: Path) -> ModuleType:
    """benchmarks/suite.py."""
    spec = importlib.util.spec_from_file_location("simscale_suite", root / "benchmarks" / "suite.py")
    assert spec is not None
    assert spec.loader is not None
    suite = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = suite  # dataclasses look their module up
    spec.loader.exec_module(suite)
    return suite


def choose(suite: ModuleType, names: tuple[str, ...], quick: bool) -> list[Any]:
    """The benchmarks of these names, in the suite's order.

    Raises:
      ValueError: an unknown name, or one without a quick form where that is wanted.
    """
    known = [each.name for each in suite.BENCHMARKS]
    for name in names:
        if name != ALL and name not in known:
            raise ValueError(unknown_name("benchmark", name, [ALL, *known]))
        if quick and name != ALL and suite.find(name).quick is None:
            raise ValueError(f"{name} has no quick form; run it without --quick")
    of_all = [each.name for each in suite.BENCHMARKS if each.quick is not None] if ALL in names else []
    return [each for each in suite.BENCHMARKS if each.name in (*names, *of_all)]


def run(root: Path, benchmark: Any, options: BenchOptions, folder: Path) -> tuple[str, str, int]:
    """Runs one: (name, outcome, seconds). Its output goes through; what goes wrong is part of the outcome."""
    try:
        python, environment = interpreter(root, benchmark.python)
    except ImportError as error:
        print(f"{benchmark.name}: {error}", file=sys.stderr, flush=True)
        return benchmark.name, f"{MISSING}: {error}", 0
    arguments = benchmark.quick if options.quick else benchmark.full
    output = folder / f"{benchmark.name}.json"
    command = [python, str(root / "benchmarks" / benchmark.script), *arguments, "--output", str(output)]
    print(f"{benchmark.name}: {' '.join(command)}", flush=True)
    start = time.perf_counter()
    try:
        limit = 60 * options.limit_minutes or None
        status = run_group(command, limit, cwd=root, env=environment)
        outcome = f"{FAILED} with status {status}" if status else DONE
    except subprocess.TimeoutExpired:
        outcome = f"{FAILED}: longer than {options.limit_minutes:g} minutes"
    except OSError as error:
        outcome = f"{FAILED}: {error}"
    return benchmark.name, outcome, round(time.perf_counter() - start)


def run_group(command: list[str], seconds: float | None, **options: Any) -> int:
    """Runs a program and returns its status. When it takes too long, or Ctrl-C comes, all that it started ends as well.

    Raises:
      subprocess.TimeoutExpired: it took longer.
    """
    process = subprocess.Popen(command, start_new_session=True, **options)  # Ctrl-C reaches this process alone
    try:
        return process.wait(seconds)
    except BaseException:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):  # all are gone
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
        raise


def interpreter(root: Path, kind: str) -> tuple[str, dict[str, str]]:
    """(Python of a benchmark, its environment variables).

    Raises:
      ImportError: torch is wanted, and no interpreter with it was named or made.
    """
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environment.get("PYTHONPATH")]))
    named = environment.get(f"SIMSCALE_{kind.upper()}_PYTHON")
    local = root / f".venv-{kind}" / "bin" / "python"
    found = named or (str(local) if local.exists() else None)
    if kind == "peers":  # without them the script says what is missing, for each
        return found or sys.executable, environment
    if kind == "torch":
        if found is None:
            raise ImportError("torch for comparisons: make test-torch, or name one by SIMSCALE_TORCH_PYTHON")
        environment["SIMSCALE_TORCH_PYTHON"] = found
    return sys.executable, environment
