"""PPO on pick and place: what the runs of configs/ppo_pick_place.yaml came to, as one picture and one JSON file.

    simscale rl --config configs/ppo_pick_place.yaml
    simscale eval checkpoints/ppo_pick_place --n-episodes 500 --output checkpoints/ppo_pick_place/evaluation.json
    python benchmarks/ppo_pick_place.py checkpoints/ppo_pick_place [MORE RUNS ...]

Reads each run's metrics.jsonl and, where it lies beside it, evaluation.json; trains and simulates nothing. A run's
minutes are the time that its updates took, without compiling.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from stamp import stamp

from simscaleai_jax.core.config import read_yaml
from simscaleai_jax.rl.progress import read_metrics

CURVES = ("total_steps", "success_rate", "plain_success_rate", "episode_reward", "episode_length", "approx_kl")
POINTS = 100  # of each curve in the JSON file
WINDOW = 4  # updates that a drawn point averages


@dataclasses.dataclass(frozen=True)
class Options:
    """What to read and write.

    Attributes:
      runs: folders of finished runs.
      config: the recipe that they followed.
      image: picture to write.
      output: JSON file to write.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    config: str = "configs/ppo_pick_place.yaml"
    image: str = "docs/images/ppo_pick_place.png"
    output: str = "benchmarks/results/ppo_pick_place.json"


def main(options: Options) -> None:
    runs = {run.name: summarize(run) for run in options.runs}
    recipe = read_yaml(options.config)
    command = f"simscale rl --config {options.config}"
    result = stamp() | {"command": command, "config": recipe, "runs": {n: run["summary"] for n, run in runs.items()}}
    Path(options.output).write_text(json.dumps(result, indent=1) + "\n")
    share, anneal = (recipe["env"]["task"][name] for name in ("curriculum_share", "curriculum_steps"))
    draw(runs, share, anneal * recipe["ppo"]["num_envs"], options.image)
    for name, run in runs.items():
        print(name, json.dumps({key: value for key, value in run["summary"].items() if key != "curve"}))


def summarize(folder: Path) -> dict[str, Any]:
    """A run's curves, minutes at each update, and a summary for the JSON file."""
    metrics = {name: np.asarray(values) for name, values in read_metrics(folder / "metrics.jsonl").items()}
    steps = metrics["total_steps"]
    minutes = np.cumsum(np.diff(steps, prepend=0.0) / metrics["steps_per_second"]) / 60
    rows = np.unique(np.linspace(0, len(steps) - 1, POINTS).astype(int))
    curve = {name: [_rounded(value) for value in metrics[name][rows]] for name in CURVES}
    plain = smooth(metrics["plain_success_rate"])
    summary = {
        "steps": int(steps[-1]),
        "minutes": round(float(minutes[-1]), 1),
        "steps_per_second": round(float(steps[-1] / minutes[-1] / 60)),
        "minutes_to_half_plain_success": _first(minutes, plain >= 0.5),
        "minutes_to_95_percent_plain_success": _first(minutes, plain >= 0.95),
        "last_plain_success_rate": round(float(np.nanmean(metrics["plain_success_rate"][-10:])), 4),
        "evaluation": _read_json(folder / "evaluation.json"),
        "curve": curve | {"minutes": [_rounded(value) for value in minutes[rows]]},
    }
    return {"metrics": metrics, "minutes": minutes, "summary": summary}


def smooth(values: np.ndarray) -> np.ndarray:
    """Mean over the last WINDOW updates, without those that have no number."""
    starts = np.maximum(np.arange(len(values)) - WINDOW + 1, 0)
    windows = [values[start : i + 1] for i, start in enumerate(starts)]
    return np.array([window[np.isfinite(window)].mean() if np.isfinite(window).any() else np.nan for window in windows])


def draw(runs: dict[str, Any], share: float, annealed_at: float, path: str) -> None:
    """Success of plain starts and of all, against steps and against minutes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    by_steps, by_minutes = figure.subplots(1, 2)
    for index, (name, run) in enumerate(runs.items()):
        metrics, color = run["metrics"], f"C{index}"
        plain, steps = smooth(metrics["plain_success_rate"]), metrics["total_steps"] / 1e6
        by_steps.plot(steps, plain, color=color, label=f"{name}, plain starts")
        by_steps.plot(steps, smooth(metrics["success_rate"]), color=color, alpha=0.4, ls="--", label=f"{name}, all")
        by_minutes.plot(run["minutes"], plain, color=color, label=name)
    last = max(run["metrics"]["total_steps"][-1] for run in runs.values())
    eased = [share, 0.0, 0.0] if last > annealed_at else [share, share * (1 - last / annealed_at)]
    by_steps.plot([0, min(last, annealed_at) / 1e6, last / 1e6][: len(eased)], eased, "k:", lw=1, label="eased starts")
    by_steps.set(xlabel="million environment steps", ylabel="success rate in training", ylim=(-0.02, 1.02))
    by_minutes.set(xlabel="minutes on 2 shared CPU cores", ylabel="success rate, plain starts", ylim=(-0.02, 1.02))
    for axis in (by_steps, by_minutes):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="lower right")
    figure.suptitle("PPO on pick and place: the cube is held by friction alone (actions sampled, not the mean)")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _first(minutes: np.ndarray, reached: np.ndarray) -> float | None:
    return round(float(minutes[np.argmax(reached)]), 1) if reached.any() else None


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


if __name__ == "__main__":
    main(tyro.cli(Options))
