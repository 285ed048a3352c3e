"""The learning curve of a run as a picture."""

from collections.abc import Sequence
from pathlib import Path

from simscaleai_jax.core import paths

PANELS = (
    ("loss", "loss", ("loss", "eval/loss")),
    ("success rate", "success rate", ("eval/success_rate",)),
    ("learning rate", "learning rate", ("learning_rate",)),
    ("gradient norm", "gradient norm before clipping", ("grad_norm",)),
    ("speed", "updates per second", ("steps_per_second",)),
)


def plot_learning_curve(rows: Sequence[dict[str, float]], path: str | Path, title: str) -> Path:
    """Draws the rows of a log against updates; panels without numbers are left out.

    Raises:
      ValueError: there are no rows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not rows:
        raise ValueError("The log is empty: no update was made.")
    panels = [panel for panel in PANELS if any(name in row for name in panel[2] for row in rows)]
    figure = Figure(figsize=(3.6 * len(panels), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (heading, label, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in names:
            points = [(row["step"], row[name]) for row in rows if name in row]
            if points:
                axis.plot(*zip(*points, strict=True), linewidth=1.5, marker="." if len(points) < 20 else "", label=name)
        if heading == "loss":
            axis.set_yscale("log")
            axis.legend()
        axis.set(title=heading, xlabel="updates", ylabel=label)
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    path = paths.locate(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        figure.savefig(file, dpi=120, format=path.name.rpartition(".")[2])
    return path
