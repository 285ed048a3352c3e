"""Success on pick and place against the number of demonstrations, for each policy that learns from them.

    python benchmarks/imitation.py                                            everything: hours on two cores
    python benchmarks/imitation.py --demonstrations 25 100 --seeds 0          less
    python benchmarks/imitation.py --models bc --max-steps 500 --n-episodes 50          a look

Each case is the recipe of its model (configs/MODEL_pick_place.yaml) with other numbers of demonstrations, which the
policies share, and fresh episodes on the batched engine. Cases are added to benchmarks/results/imitation.json; those
that are there with the same settings are not run again. Whatever their number, as many updates are made as with 100.
`seconds` is the wall-clock of training with its evaluations, `cpu_seconds` what the whole recipe computed,
`load_average` the machine's at the end.
"""

import argparse
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

from figure_tables import MODELS
from stamp import stamp

from simscaleai_jax.core.intervals import wilson
from simscaleai_jax.tools.commands import recipe

RESULTS = Path(__file__).parent / "results" / "imitation.json"
SETTINGS = ("model", "demonstrations", "seed", "n_episodes", "max_steps")


def main() -> None:
    """Runs the cases that are missing, prints a line for each, and writes the JSON file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--demonstrations", nargs="+", type=int, default=[10, 25, 50, 100, 200, 1000])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--n-episodes", type=int, default=200)
    parser.add_argument("--max-steps", type=int, default=None, help="updates; default: the recipe's")
    parser.add_argument("--folder", type=Path, default=Path("outputs/imitation"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    cases = json.loads(options.output.read_text())["cases"] if options.output.is_file() else []
    for count, seed, model in itertools.product(options.demonstrations, options.seeds, options.models):
        wanted = dict(zip(SETTINGS, (model, count, seed, options.n_episodes, options.max_steps), strict=True))
        if any(wanted.items() <= case.items() for case in cases):
            continue
        cases.append(wanted | measure(options.folder, **wanted))
        print(json.dumps(cases[-1]), flush=True)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        report = {"benchmark": "imitation", **stamp(), "env_name": "pick_place", "cases": cases}
        options.output.write_text(json.dumps(report, indent=1) + "\n")


def measure(
    folder: Path, model: str, demonstrations: int, seed: int, n_episodes: int, max_steps: int | None
) -> dict[str, Any]:
    """Trains one policy and evaluates it."""
    demos, run = folder / f"demos_{demonstrations}.h5", folder / f"{model}_{demonstrations}_{seed}_{max_steps}"
    given = {
        "datagen": ["--n-episodes", str(demonstrations), "--output", str(demos)],
        "train": ["--dataset", str(demos), "--checkpoint-dir", str(run), "--seed", str(seed)],
        "eval": ["--n-episodes", str(n_episodes), "--physics", "batched"],
    }
    given["train"] += [] if max_steps is None else ["--max-steps", str(max_steps)]
    start = time.process_time()
    record = recipe.run(recipe.recipe_file(f"{model}_pick_place"), given)
    (engine, result), *_ = json.loads((run / "eval.json").read_text()).items()
    low, high = wilson(result["success_rate"], n_episodes)
    return {
        "success_rate": result["success_rate"],
        "success_low": low,
        "success_high": high,
        "engine": engine,
        "dt": result["dt"],
        "seconds": round(record["train"]["seconds"], 1),
        "cpu_seconds": round(time.process_time() - start, 1),
        "load_average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
