"""A transfer report on disk: JSON, CSV and a heat map of success rates."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def write_report(rows: Sequence[Mapping[str, Any]], folder: str | Path, about: Mapping[str, Any]) -> list[Path]:
    """Writes transfer.json (`about` and the rows), transfer.csv and transfer.png; returns their paths.

    Raises:
      ValueError: no rows.
    """
    if not rows:
        raise ValueError("a transfer report needs at least one condition")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"transfer.{suffix}" for suffix in ("json", "csv", "png")]
    paths[0].write_text(json.dumps({**about, "conditions": list(rows)}, indent=1) + "\n")
    with paths[1].open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    _plot(rows, paths[2], str(about.get("title", "transfer")))
    return paths


def heat_map(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[float], np.ndarray, np.ndarray]:
    """Parameters (P), levels (L), success rates (P, L) and values (P, L); NaN where nothing was played.

    Level 0 is the clean condition, which all parameters share.
    """
    swept = [row for row in rows if row["parameter"]]
    clean = next((row["success_rate"] for row in rows if row["condition"] == "clean"), np.nan)
    parameters = list(dict.fromkeys(row["parameter"] for row in swept))
    levels = sorted({0.0, *(row["level"] for row in swept)})
    rates, values = np.full((2, len(parameters), len(levels)), np.nan)
    rates[:, levels.index(0.0)] = clean
    for row in swept:
        cell = parameters.index(row["parameter"]), levels.index(row["level"])
        rates[cell], values[cell] = row["success_rate"], row["value"]
    return parameters, levels, rates, values


def _plot(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Presets above, sweeps below; colour is the success rate."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    presets = [row for row in rows if not row["parameter"]]
    parameters, levels, rates, values = heat_map(rows)
    heights = [1, max(1, len(parameters))]
    figure = Figure(figsize=(9, 2.6 + 0.5 * len(parameters)), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, height_ratios=heights)
    shares = np.array([[row["success_rate"] for row in presets]])
    _cells(top, shares, [[f"{share:.0%}" for share in shares[0]]])
    top.set(xticks=range(len(presets)), xticklabels=[row["condition"] for row in presets], yticks=[0])
    top.set(yticklabels=["all parameters"], title=title)
    if parameters:
        nominal = levels.index(0.0)
        texts = [
            ["" if np.isnan(rate) else f"{rate:.0%}" + ("" if j == nominal else f"\n{value:.3g}")
             for j, (rate, value) in enumerate(zip(*line, strict=True))]
            for line in zip(rates, values, strict=True)
        ]  # fmt: skip
        image = _cells(bottom, rates, texts)
        bottom.set(yticks=range(len(parameters)), yticklabels=parameters, xticks=range(len(levels)))
        bottom.set(xticklabels=["nominal" if level == 0.0 else f"{level:+.0%}" for level in levels])
        bottom.set(xlabel="one parameter alone: share of the way to the end of its heavy range (value below the rate)")
    else:
        image = top.images[0]
        bottom.remove()
    figure.colorbar(image, ax=figure.axes, label="success rate")
    figure.savefig(path, dpi=120)


def _cells(axis: Any, rates: np.ndarray, texts: Sequence[Sequence[str]]) -> Any:
    """A row or table of coloured cells with their texts."""
    image = axis.imshow(rates, vmin=0.0, vmax=1.0, cmap="RdYlGn", aspect="auto")
    for i, line in enumerate(texts):
        for j, text in enumerate(line):
            is_dark = abs(rates[i, j] - 0.5) > 0.35
            axis.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if is_dark else "black")
    return image
