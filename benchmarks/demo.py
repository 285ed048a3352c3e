"""Seconds of `simscale demo` with an empty compile cache, and what its policy reaches.

    python benchmarks/demo.py

Runs the command in a process of its own and writes JSON stamped with the machine and the versions.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stamp import stamp

RESULTS = Path(__file__).parent / "results" / "demo.json"


def main() -> None:
    """Runs it and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS)
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        command = [sys.executable, "-m", "simscaleai_jax.tools.cli", "demo", "--output", f"{folder}/demo"]
        start = time.perf_counter()
        subprocess.run(command, env=environment, check=True)
        seconds = time.perf_counter() - start
        success = json.loads(Path(folder, "demo", "eval.json").read_text())
    load = {"load_average": os.getloadavg()[0]}
    output.write_text(json.dumps(stamp() | load | {"seconds": seconds, "success": success}, indent=1) + "\n")
    print(f"simscale demo: {seconds:.0f} s")


if __name__ == "__main__":
    main()
