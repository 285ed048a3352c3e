"""The learning curve of a run as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from simscaleai_jax.core import paths

PANELS = (
    ("success_rate", "success rate"),
    ("episode_reward", "episode reward"),
    ("episode_length", "episode length [steps]"),
    ("value_loss", "value loss"),
    ("approx_kl", "KL divergence"),
    ("action_std", "action standard deviation"),
)


def plot_learning_curve(history: Mapping[str, Sequence[float]], path: str | Path, title: str = "PPO") -> Path:
    """Draws what `PPOAgent.train` returns against environment steps into a PNG (or any suffix matplotlib knows).

    Raises:
      ValueError: the history is empty.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = np.asarray(history.get("total_steps", ()))
    if not steps.size:
        raise ValueError("The history is empty: no update was made.")
    figure = Figure(figsize=(11, 6), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (name, label) in zip(figure.subplots(2, 3).flat, PANELS, strict=True):
        axis.plot(steps, history[name], linewidth=1.5, label="all episodes")
        plain = history.get("plain_success_rate", ())
        if name == "success_rate" and len(plain) and not np.array_equal(plain, history[name], equal_nan=True):
            axis.plot(steps, plain, linewidth=1.0, label="plain starts")
            axis.legend(loc="lower right")
        axis.set(title=label, xlabel="environment steps")
        axis.grid(alpha=0.3)
        if name == "success_rate":
            axis.set_ylim(-0.02, 1.02)
    speed = np.median(history["steps_per_second"])
    figure.suptitle(f"{title}: {steps[-1]:,.0f} steps, {speed:,.0f} steps/s")
    path = paths.locate(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        figure.savefig(file, dpi=120, format=path.name.rpartition(".")[2])
    return path
