"""What runs of one PPO recipe came to, as one picture and one JSON file.

    for seed in 0 1; do
      simscale rl --config configs/ppo_pick_place.yaml --seed $seed --save-path checkpoints/seed_$seed
      simscale eval checkpoints/seed_$seed --n-episodes 500 --output checkpoints/seed_$seed/evaluation.json
    done
    python benchmarks/ppo_runs.py configs/ppo_pick_place.yaml checkpoints/seed_0 checkpoints/seed_1
    python benchmarks/ppo_runs.py configs/ppo_pick_place.yaml --seeds 0 1 2 3 4        trains and evaluates them first

Reads each run's metrics.jsonl and, where it lies beside it, evaluation.json. A run's seconds are the time that its
updates took, without compiling. Writes benchmarks/results/RECIPE.json, and docs/images/RECIPE.png where the results go
there.
"""

import dataclasses
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from stamp import stamp

from simscaleai_jax.core.config import read_yaml
from simscaleai_jax.rl.progress import read_metrics

TITLES = {
    "ppo_reach": "PPO on reach",
    "ppo_reach_pixels": "PPO on reach from two cameras of 64x64 pixels",
    "ppo_pick_place": "PPO on pick and place: the cube is held by friction alone",
}
CURVES = ("total_steps", "success_rate", "plain_success_rate", "episode_reward", "episode_length", "approx_kl")
POINTS = 100  # of each curve in the JSON file
WINDOW = 4  # updates that a drawn point averages
GOALS = (0.5, 0.9, 0.95, 0.99)
RESULTS = Path("benchmarks/results")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to read and write.

    Attributes:
      recipe: YAML file that the runs followed.
      runs: folders of finished runs.
      seeds: of runs to train and evaluate first, in a folder that is removed afterwards.
      n_episodes: fresh episodes that judge each of these.
      engine: physics of these, instead of the recipe's.
      train: further options of `simscale rl` for these, in one string.
      output: JSON file; default benchmarks/results/RECIPE.json.
    """

    recipe: Annotated[Path, tyro.conf.Positional]
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    seeds: tuple[int, ...] = ()
    n_episodes: int = 500
    engine: str = ""
    train: str = ""
    output: Path | None = None


def main(options: Options) -> None:
    if bool(options.runs) == bool(options.seeds):
        raise SystemExit("Name folders of runs, or --seeds to train; one of the two.")
    with tempfile.TemporaryDirectory() as folder:
        made = tuple(run(options, seed, Path(folder) / f"seed_{seed}") for seed in options.seeds)
        report(options, options.runs or made)


def run(options: Options, seed: int, folder: Path) -> Path:
    """Trains and evaluates one seed as the recipe says."""
    simscale = [sys.executable, "-m", "simscaleai_jax.tools.cli"]
    train = ["rl", "--config", str(options.recipe), "--seed", str(seed), "--save-path", str(folder)]
    train += ["--env.impl", options.engine] if options.engine else []
    train += shlex.split(options.train)
    judge = ["eval", str(folder), "--n-episodes", str(options.n_episodes), "--seed", "1000"]
    judge += ["--output", str(folder / "evaluation.json")]
    for command in (train, judge):
        subprocess.run([*simscale, *command], check=True)
    return folder


def report(options: Options, folders: tuple[Path, ...]) -> None:
    """Writes the JSON file and the picture."""
    name = options.recipe.stem
    runs = {folder.name: summarize(folder) for folder in folders}
    recipe = read_yaml(options.recipe)
    command = f"simscale rl --config {options.recipe}"
    result = stamp() | {"command": command, "config": recipe, "runs": {n: run["summary"] for n, run in runs.items()}}
    output = options.output or RESULTS / f"{name}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")
    title = TITLES.get(name, f"PPO with {options.recipe}") + " (actions sampled, not the mean)"
    if output.resolve().parent == RESULTS.resolve():
        draw(runs, eased_share(recipe), title, f"docs/images/{name}.png")
    for name, each in runs.items():
        print(name, json.dumps({key: value for key, value in each["summary"].items() if key != "curve"}))


def summarize(folder: Path) -> dict[str, Any]:
    """A run's curves, seconds at each update, and a summary for the JSON file."""
    metrics = {name: np.asarray(values) for name, values in read_metrics(folder / "metrics.jsonl").items()}
    steps = metrics["total_steps"]
    seconds = np.cumsum(np.diff(steps, prepend=0.0) / metrics["steps_per_second"])
    rows = np.unique(np.linspace(0, len(steps) - 1, POINTS).astype(int))
    curve = {name: [_rounded(value) for value in metrics[name][rows]] for name in CURVES}
    plain = smooth(metrics["plain_success_rate"])
    summary = {
        "steps": int(steps[-1]),
        "seconds": round(float(seconds[-1]), 1),
        "steps_per_second": round(float(steps[-1] / seconds[-1])),
        "seconds_to_half_plain_success": _first(seconds, plain >= 0.5),
        "reached": {
            f"{goal:.0%}": {"seconds": _first(seconds, plain >= goal), "steps": _first(steps, plain >= goal)}
            for goal in GOALS
        },
        "seconds_to_95_percent_plain_success": _first(seconds, plain >= 0.95),
        "steps_to_95_percent_plain_success": _first(steps, plain >= 0.95),
        "last_plain_success_rate": round(float(np.nanmean(metrics["plain_success_rate"][-10:])), 4),
        "evaluation": _read_json(folder / "evaluation.json"),
        "curve": curve | {"seconds": [_rounded(value) for value in seconds[rows]]},
    }
    return {"metrics": metrics, "seconds": seconds, "summary": summary}


def smooth(values: np.ndarray) -> np.ndarray:
    """Mean over the last WINDOW updates, without those that have no number."""
    starts = np.maximum(np.arange(len(values)) - WINDOW + 1, 0)
    windows = [values[start : i + 1] for i, start in enumerate(starts)]
    return np.array([window[np.isfinite(window)].mean() if np.isfinite(window).any() else np.nan for window in windows])


def eased_share(recipe: dict[str, Any]) -> tuple[float, float] | None:
    """The curriculum's first share of eased starts and the steps at which it is zero; None without a curriculum."""
    task = recipe["env"].get("task", {})
    if not task.get("curriculum_share"):
        return None
    return task["curriculum_share"], task["curriculum_steps"] * recipe["ppo"]["num_envs"]


def draw(runs: dict[str, Any], eased: tuple[float, float] | None, title: str, path: str) -> None:
    """Success of plain starts, and of all where a curriculum eases some, against steps and against seconds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    by_steps, by_seconds = figure.subplots(1, 2)
    for index, (name, run) in enumerate(runs.items()):
        metrics, color = run["metrics"], f"C{index}"
        plain, steps = smooth(metrics["plain_success_rate"]), metrics["total_steps"] / 1e6
        by_steps.plot(steps, plain, color=color, label=f"{name}, plain starts" if eased else name)
        if eased:
            by_steps.plot(steps, smooth(metrics["success_rate"]), color=color, alpha=0.4, ls="--", label=f"{name}, all")
        by_seconds.plot(run["seconds"], plain, color=color, label=name)
    if eased:
        last = max(run["metrics"]["total_steps"][-1] for run in runs.values())
        steps = np.linspace(0, last)
        shares = eased[0] * np.maximum(1 - steps / eased[1], 0)
        by_steps.plot(steps / 1e6, shares, "k:", lw=1, label="eased starts")
    by_steps.set(xlabel="million environment steps", ylabel="success rate in training", ylim=(-0.02, 1.02))
    by_seconds.set(xlabel="seconds of updates", ylabel="success rate, plain starts", ylim=(-0.02, 1.02))
    for axis in (by_steps, by_seconds):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="lower right")
    figure.suptitle(title)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _first(values: np.ndarray, reached: np.ndarray) -> float | None:
    return round(float(values[np.argmax(reached)]), 1) if reached.any() else None


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


if __name__ == "__main__":
    main(tyro.cli(Options))
