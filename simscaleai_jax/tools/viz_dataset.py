"""Figures of a data set: what is in it, and one episode of it. Sized and labelled for a paper's column."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.training.data import TrajectoryDataset

BLUE, ORANGE, GREY = "#3b6ea5", "#c8642d", "#8a8a8a"
COLOURS = ("#3b6ea5", "#c8642d", "#4c9a62", "#8b5fa8", "#b58b00", "#5aa7b8", "#a14a6b")
ACTION_NAMES = ("dx", "dy", "dz", "gripper")
UNITS = {"joint_pos": "rad", "joint_vel": "rad/s", "gripper_state": "m"}  # other keys by their ending
UNIT_OF_ENDING = {"_pos": "m", "_quat": ""}
LEVELS = (-10.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 10.0)  # ticks of the symmetric log scale
MAX_FRAMES = 8
MAX_PANELS = 8  # observation keys drawn for one episode


def plot_dataset(path: str | Path, save: str | Path | None = None) -> Any:
    """Episode lengths, returns, success, actions and the range of every observation key.

    Args:
      path: a demonstration file of any layout that we read.
      save: PNG, PDF or SVG to write; None leaves the figure to the caller (shown by the command).
    """
    dataset = TrajectoryDataset(path)
    demos = dataset.demos
    figure, axes = _figure(3, (11.0, 8.6))
    returns = (
        [float(demos.read(i, "rewards").sum()) for i in range(len(demos.names))] if "rewards" in demos.specs else []
    )
    _histogram(axes[0, 0], demos.lengths, "Episode length", "control steps")
    _histogram(axes[0, 1], returns, "Return", "sum of rewards")
    _success(axes[1, 0], demos)
    _actions(axes[1, 1], dataset.column("actions"))
    grid = axes[2, 0].get_gridspec()
    for axis in axes[2]:
        axis.remove()
    _ranges(figure.add_subplot(grid[2, :]), dataset.stats()["observations"])
    name = _env_name(demos)
    figure.suptitle(f"{name}: {len(demos.names):,} episodes, {len(dataset):,} steps ({Path(path).name})", fontsize=13)
    return _finish(figure, save)


def plot_trajectory(path: str | Path, episode: int = 0, save: str | Path | None = None) -> Any:
    """One episode over time: observations, actions, rewards, and frames of its first camera where there is one.

    Raises:
      ValueError: there is no such episode.
    """
    demos = DemonstrationFile(path)
    if not 0 <= episode < len(demos.names):
        raise ValueError(f"{path} has episodes 0 to {len(demos.names) - 1}, not {episode}.")
    states = [key for key in demos.obs_keys if key not in demos.image_keys][:MAX_PANELS]
    cameras = demos.image_keys
    panels = (len(states) + 3) // 2  # two per row; actions and rewards are panels too
    figure, axes = _figure(panels + bool(cameras), (11.0, 2.3 * (panels + bool(cameras)) + 0.8))
    if cameras:
        grid = axes[0, 0].get_gridspec()
        for axis in axes[0]:
            axis.remove()
        _frames(figure.add_subplot(grid[0, :]), demos, episode, cameras[0])
    cells = axes[bool(cameras) :].ravel()
    for axis, key in zip(cells, states, strict=False):
        _lines(axis, demos.read(episode, f"obs/{key}"), key, [])
    actions, rewards = (
        demos.read(episode, "actions"),
        demos.read(episode, "rewards") if "rewards" in demos.specs else None,
    )
    _lines(cells[len(states)], actions, "action", ACTION_NAMES if actions.shape[1] == len(ACTION_NAMES) else [])
    cells[len(states)].set_ylim(-1.1, 1.1)
    drawn = len(states) + 1
    if rewards is not None:
        _lines(cells[drawn], rewards[:, None], "reward", [])
        drawn += 1
    for axis in cells[drawn:]:
        axis.remove()
    for axis in cells[max(drawn - 2, 0) : drawn]:  # the lowest panel of each column says it for all
        axis.set_xlabel("control step")
    said = f' "{demos.language(episode)}"' if demos.language(episode) else ""
    outcome = {True: ", success", False: ", failure", None: ""}[demos.success(episode)]
    title = f"{_env_name(demos)}, episode {episode}{outcome}: {int(demos.lengths[episode])} steps{said}"
    figure.suptitle(title, fontsize=13)
    return _finish(figure, save)


def _figure(rows: int, size: tuple[float, float]) -> tuple[Any, np.ndarray]:
    """A figure of rows x 2 panels that needs no display until it is shown."""
    import matplotlib.pyplot as plt

    style: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 11}
    with plt.rc_context(style):
        figure, axes = plt.subplots(rows, 2, figsize=size, layout="constrained", squeeze=False)
    return figure, axes


def _finish(figure: Any, save: str | Path | None) -> Any:
    if save is not None:
        import matplotlib.pyplot as plt

        Path(save).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(save, dpi=160)
        plt.close(figure)
    return figure


def _histogram(axis: Any, values: Sequence[float] | np.ndarray, title: str, label: str) -> None:
    axis.set(title=title, xlabel=label, ylabel="episodes")
    if not len(values):
        axis.text(0.5, 0.5, "not in this file", ha="center", va="center", transform=axis.transAxes, color=GREY)
        return
    axis.hist(values, bins=min(40, max(5, len(set(np.round(values, 6))))), color=BLUE, edgecolor="white", linewidth=0.4)
    middle = float(np.median(values))
    axis.axvline(middle, color=ORANGE, linewidth=1.5, label=f"median {middle:.4g}")
    axis.legend(frameon=False)


def _success(axis: Any, demos: DemonstrationFile) -> None:
    """Success and failure counts, and how many episodes each split holds."""
    outcomes = [demos.success(i) for i in range(len(demos.names))]
    counts = {"success": outcomes.count(True), "failure": outcomes.count(False), "unknown": outcomes.count(None)}
    bars = {name: count for name, count in counts.items() if count} | {
        f"mask {name}": len(chosen) for name, chosen in demos.masks.items() if name != "success"
    }
    colours = [{"success": BLUE, "failure": ORANGE}.get(name, GREY) for name in bars]
    drawn = axis.barh(list(bars), list(bars.values()), color=colours, height=0.6)
    axis.bar_label(drawn, labels=[f" {count:,} ({count / len(outcomes):.1%})" for count in bars.values()])
    axis.set(title="Outcome and splits", xlabel="episodes", xlim=(0, 1.3 * len(outcomes)))
    axis.invert_yaxis()


def _actions(axis: Any, actions: np.ndarray) -> None:
    names = ACTION_NAMES if actions.shape[1] == len(ACTION_NAMES) else [f"a{i}" for i in range(actions.shape[1])]
    low, high = min(-1.0, float(actions.min())), max(1.0, float(actions.max()))
    for i, name in enumerate(names):
        axis.hist(
            actions[:, i],
            bins=50,
            range=(low, high),
            histtype="step",
            linewidth=1.6,
            color=COLOURS[i % len(COLOURS)],
            label=name,
        )
    axis.set(title="Actions", xlabel="value", ylabel="steps", yscale="log")
    axis.set_ylim(top=10.0 * axis.get_ylim()[1])  # room for the legend: with a log scale no corner is free
    axis.legend(frameon=False, ncols=len(names) if len(names) <= 5 else 4, loc="upper center")


def _ranges(axis: Any, stats: dict[str, Any]) -> None:
    """Per component: the whole range thin, 1 to 99 percent thick, the mean as a dot."""
    axis.spines[["top", "right"]].set_visible(False)
    position, ticks = 0, []
    for number, (key, s) in enumerate(stats.items()):
        size = s["mean"].size
        places = np.arange(position, position + size)
        colour = COLOURS[number % len(COLOURS)]
        axis.vlines(places, s["min"].ravel(), s["max"].ravel(), color=colour, linewidth=1)
        axis.vlines(places, s["q01"].ravel(), s["q99"].ravel(), color=colour, linewidth=5, alpha=0.45)
        axis.plot(places, s["mean"].ravel(), "o", color=colour, markersize=4)
        ticks.append((position + (size - 1) / 2, f"{key}\n({size})"))
        position += size + 1
    axis.set_xticks([tick for tick, _ in ticks], [name for _, name in ticks])
    title = "Observations: range (thin), 1 to 99 % (thick), mean (dot); symmetric log scale, SI units"
    axis.set(title=title, xlim=(-1, position - 1))
    axis.set_yscale("symlog", linthresh=1.0)
    low, high = axis.get_ylim()
    axis.set_yticks([level for level in LEVELS if low <= level <= high], minor=False)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.grid(axis="y", color="#e5e5e5")


def _lines(axis: Any, rows: np.ndarray, title: str, names: Sequence[str]) -> None:
    columns = rows.reshape(len(rows), -1)
    for i in range(columns.shape[1]):
        label = names[i] if names else _component(title, i, columns.shape[1])
        axis.plot(columns[:, i], color=COLOURS[i % len(COLOURS)], linewidth=1.4, label=label)
    unit = UNITS.get(title, next((unit for end, unit in UNIT_OF_ENDING.items() if title.endswith(end)), ""))
    axis.set(title=title, ylabel=unit, xlim=(0, max(len(rows) - 1, 1)))
    axis.margins(y=0.08)
    axis.grid(color="#eeeeee")
    if columns.shape[1] > 1:
        axis.legend(frameon=False, fontsize=8, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.0)


def _component(key: str, index: int, size: int) -> str:
    """Name of one component of an observation: x, y, z; w, x, y, z; or its number."""
    letters = "wxyz" if size == 4 and key.endswith("_quat") else "xyz" if size == 3 else ""
    return letters[index] if letters else str(index)


def _frames(axis: Any, demos: DemonstrationFile, episode: int, key: str) -> None:
    """A film strip of frames spread over the episode."""
    length = int(demos.lengths[episode])
    steps = np.unique(np.linspace(0, length - 1, min(MAX_FRAMES, length)).round().astype(int))
    frames = [demos.read(episode, f"obs/{key}", int(step), int(step) + 1)[0] for step in steps]
    height, width = frames[0].shape[:2]
    gap = np.full((height, max(width // 32, 1), 3), 255, np.uint8)
    strip = np.concatenate([part for frame in frames for part in (frame, gap)][:-1], axis=1)
    axis.imshow(strip, interpolation="nearest")
    centres = width / 2 + np.arange(len(steps)) * (width + gap.shape[1])
    axis.set_xticks(centres, [f"step {step}" for step in steps])
    axis.set(title=key, yticks=[])
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)


def _env_name(demos: DemonstrationFile) -> str:
    env_args = demos.attributes.get("env_args", {})
    name = env_args.get("env_name") if isinstance(env_args, dict) else None
    return str(name or demos.attributes.get("env_name", "data set"))
