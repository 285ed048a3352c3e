"""Success on pick and place against the number of demonstrations, for each policy that learns from them.

    python benchmarks/imitation.py                                            everything: hours on two cores
    python benchmarks/imitation.py --demonstrations 25 100 --seeds 0          less
    python benchmarks/imitation.py --models bc --max-steps 500 --n-episodes 50          a look

Each case is the recipe of its model (configs/MODEL_pick_place.yaml) with other numbers of demonstrations, which the
policies share, and fresh episodes on the batched engine. Cases are added to benchmarks/results/imitation.json; those
that are there with the same settings are not run again. With 25 and 50 demonstrations as many updates are made as with
100. `seconds` is the wall-clock of training with its evaluations, `cpu_seconds` what the whole recipe computed,
`load_average` the machine's at the end. `--plot` draws what there is, without running anything.
"""

import argparse
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

from stamp import stamp

from simscaleai_jax.core.intervals import wilson
from simscaleai_jax.tools.commands import recipe

RESULTS = Path(__file__).parent / "results" / "imitation.json"
PLOT = Path(__file__).parent.parent / "docs" / "images" / "imitation.png"
MODELS = ("bc", "act", "diffusion", "flow")
SETTINGS = ("model", "demonstrations", "seed", "n_episodes", "max_steps")


def main() -> None:
    """Runs the cases that are missing, prints a line for each, and writes the JSON file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--demonstrations", nargs="+", type=int, default=[25, 50, 100, 200])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--n-episodes", type=int, default=200)
    parser.add_argument("--max-steps", type=int, default=None, help="updates; default: the recipe's")
    parser.add_argument("--folder", type=Path, default=Path("outputs/imitation"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--plot", action="store_true", help="only draw the figure of the page")
    options = parser.parse_args()
    if options.plot:
        plot(json.loads(options.output.read_text())["cases"], PLOT)
        return
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


def plot(cases: list[dict[str, Any]], path: Path) -> None:
    """Success against demonstrations, a line for each model: the mean of its seeds, and the pooled interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for model in MODELS:
        counts = sorted({case["demonstrations"] for case in cases if case["model"] == model})
        if not counts:
            continue
        pools = [pooled(cases, model, count) for count in counts]
        rates = [rate for rate, _, _ in pools]
        axes.plot(counts, rates, marker="o", label=model)
        axes.fill_between(counts, [low for _, low, _ in pools], [high for _, _, high in pools], alpha=0.15)
    axes.set_xscale("log", base=2)
    ticks = sorted({case["demonstrations"] for case in cases})
    axes.set_xticks(ticks, [str(count) for count in ticks])
    axes.set(xlabel="demonstrations of pick and place", ylabel="success", ylim=(0.0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def pooled(cases: list[dict[str, Any]], model: str, demonstrations: int) -> tuple[float, float, float]:
    """(success rate, and its Wilson interval) over the episodes of all seeds."""
    found = [case for case in cases if (case["model"], case["demonstrations"]) == (model, demonstrations)]
    episodes = sum(case["n_episodes"] for case in found)
    rate = sum(case["success_rate"] * case["n_episodes"] for case in found) / episodes
    return rate, *wilson(rate, episodes)


if __name__ == "__main__":
    main()
