"""The first minutes of a stranger: clone, install, demo, data, evaluation; and from a wheel, outside of a checkout.

python scripts/newcomer.py [--only wheel] [--output docs/newcomer.md]

Uses the standard library alone. Every command runs in an empty folder, with an empty compile cache and no environment
active; the transcript says when each one began and how long it took. What pip downloads is downloaded once before.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# The first ten minutes

What a stranger types, replayed by `make newcomer` on {cores} cores ({date}): seconds since the first command, what was
typed, and how long it took. Nothing was installed before; the compile cache was empty. Downloads depend on the network.
"""
CLONE = (
    "make demo",
    ".venv/bin/simscale doctor --impl c",
    ".venv/bin/simscale datagen --env-name pick_place --policy scripted --n-episodes 200 --output data/pick.h5",
    ".venv/bin/simscale eval outputs/demo --n-episodes 100",
)
WHEEL = (
    "venv/bin/simscale demo --recipe ppo_reach --output outputs/demo",
    "venv/bin/simscale datagen --env-name reach --policy scripted --n-episodes 100 --output data/reach.h5",
    "venv/bin/simscale train bc_reach --checkpoint-dir checkpoints/bc_reach",
    "venv/bin/simscale eval checkpoints/bc_reach --n-episodes 100",
)


def main() -> None:
    """Runs everything; ends with the status of the command that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "newcomer.md")
    parser.add_argument("--only", choices=("clone", "wheel"), help="one of the two ways to begin")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
        environment["JAX_COMPILATION_CACHE_DIR"] = str(folder / "cache")
        text = HEAD.format(cores=os.cpu_count(), date=time.strftime("%Y-%m-%d"))
        if options.only != "wheel":
            clone = ["git clone --quiet REPOSITORY simscaleai_jax", *(f"cd simscaleai_jax && {line}" for line in CLONE)]
            text += "\n## From a clone\n\n" + transcript(clone, folder, environment)
            shutil.rmtree(folder / "cache", ignore_errors=True)
        if options.only != "clone":
            wheel = ["PYTHON -m venv venv", "venv/bin/pip install --quiet WHEEL", *WHEEL]
            make_wheel(folder / "dist")
            text += "\n## From a wheel, in an empty folder\n\n" + transcript(wheel, folder / "elsewhere", environment)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text)
    print(f"Wrote {options.output}.")


def make_wheel(folder: Path) -> Path:
    """Builds the wheel of this checkout."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def transcript(lines: list[str], folder: Path, environment: dict[str, str]) -> str:
    """Runs the lines one after the other in a folder; a table of when, what and how long."""
    folder.mkdir(exist_ok=True)
    found = next((folder.parent / "dist").glob("*.whl"), "")
    places = {"REPOSITORY": str(ROOT), "PYTHON": sys.executable, "WHEEL": str(found)}
    rows, began = ["| at | command | took |", "|---|---|---|"], time.monotonic()
    for line in lines:
        typed = line
        for name, place in places.items():
            line = line.replace(name, place)
        print(f"$ {typed}", flush=True)
        start = time.monotonic()
        done = subprocess.run(line, shell=True, cwd=folder, env=environment, check=False)
        if done.returncode:
            sys.exit(done.returncode)
        typed = typed.removeprefix("cd simscaleai_jax && ")
        rows.append(f"| {start - began:.0f} s | `{typed}` | {time.monotonic() - start:.0f} s |")
    rows.append(f"| {time.monotonic() - began:.0f} s | | |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
