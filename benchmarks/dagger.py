"""Success against labels: an expert that corrects (simscale dagger) beside plain cloning of as many labels.

    python benchmarks/dagger.py
    python benchmarks/dagger.py --seeds 0 1 2 --rounds 4

Both begin with the recipe bc_pick_place on few demonstrations. Each round adds labels of the scripted expert in states
that the policy has reached; beside it a policy is trained anew on as many labels of plain demonstrations, or a few more
(demonstrations are whole), with as many updates in all. Success is over fresh episodes on the batched engine, the same
for all. What is in benchmarks/results/dagger.json with the same settings is not run again.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from stamp import stamp

from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.tools.commands import dagger, recipe, train

RESULTS = Path(__file__).parent / "results" / "dagger.json"
RECIPE = "bc_pick_place"


def main() -> None:
    """Runs the seeds that are missing, prints a line for each case, and writes the JSON file after each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--demonstrations", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--n-episodes", type=int, default=5, help="labelled in each round")
    parser.add_argument("--max-steps", type=int, default=500, help="updates of each round")
    parser.add_argument("--first-steps", type=int, default=1500, help="updates before the first round")
    parser.add_argument("--eval-episodes", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=Path("outputs/dagger"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    settings = {name: value for name, value in vars(options).items() if name not in ("seeds", "folder", "output")}
    known = json.loads(options.output.read_text()) if options.output.is_file() else {}
    runs = known["runs"] if known.get("settings") == settings else {}
    for seed in options.seeds:
        if str(seed) in runs:
            continue
        runs[str(seed)] = cases(options, seed)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        report = {"benchmark": "dagger", **stamp(), "recipe": RECIPE, "settings": settings, "runs": runs}
        options.output.write_text(json.dumps(report, indent=1) + "\n")


def cases(options: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """For each round, from none on: labels and success of the policy that is corrected, and of the plain one."""
    run = clone(options, seed, options.demonstrations, options.first_steps)
    names = ("rounds", "n_episodes", "max_steps", "eval_episodes")
    chosen = {name: getattr(options, name) for name in names}
    rounds = dagger.teach(dagger.DaggerOptions(str(run), **chosen, seed=1000 * seed))
    length = rounds[0]["labels"] / rounds[0]["episodes"]
    found = []
    for row in rounds:
        case = {name: row[name] for name in ("round", "labels")} | {"dagger": row["success_rate"]}
        plain = run
        if row["round"]:
            steps = options.first_steps + row["round"] * options.max_steps
            plain = clone(options, seed, math.ceil(row["labels"] / length), steps)
        case |= {"plain_labels": labels(plain), "plain": success(plain, options.eval_episodes)}
        print(json.dumps(case), flush=True)
        found.append(case)
    return found


def clone(options: argparse.Namespace, seed: int, demonstrations: int, steps: int) -> Path:
    """The folder of a policy that was trained on plain demonstrations."""
    folder = options.folder / f"plain_{demonstrations}_{seed}"
    given = {
        "datagen": ["--n-episodes", str(demonstrations), "--seed", str(42 + seed)],
        "train": ["--max-steps", str(steps), "--eval-every", str(steps), "--seed", str(seed)],
        "eval": ["--n-episodes", "1", "--physics", "batched"],
    }
    recipe.run(recipe.recipe_file(RECIPE), given, str(folder))
    return folder / "run"


def labels(run: Path) -> int:
    """Steps of the demonstrations of a run."""
    return int(DemonstrationFile(run.parent / "demos.h5").lengths.sum())


def success(run: Path, episodes: int) -> float:
    """Of a run's policy, over the episodes that judge the rounds."""
    from simscaleai_jax.core.checkpoint import read_manifest
    from simscaleai_jax.policy import load_policy

    return train.make_eval_fn(read_manifest(run).env, episodes, str(run))(load_policy(run))["success_rate"]


if __name__ == "__main__":
    main()
