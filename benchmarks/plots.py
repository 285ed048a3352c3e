"""Plots of docs/benchmarks.md and docs/imitation.md; each picture says which results it was drawn from."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from figure_tables import MODELS, POLICIES, VARIANTS, pooled
from figure_texts import ENGINE_NAMES, Result

SOURCE = "Source"  # PNG text: digest of the results that a picture shows


def digest(result: Result) -> str:
    """Names the content of a file of results."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()[:16]


def draw(name: str, result: Result, path: Path) -> None:
    """Draws one of PLOTS."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    PLOTS[name][1](figure, result)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={SOURCE: digest(result), "Software": None})


def drawn_from(path: Path) -> str | None:
    """The digest that a picture carries; None without one."""
    from PIL import Image

    if not path.exists():
        return None
    with Image.open(path) as image:
        return image.info.get(SOURCE)


def scaling(figure: Any, result: Result) -> None:
    """Rates and first calls against the number of environments, log-log; a ring where a curve saturates."""
    rates, calls = figure.subplots(1, 2)
    for index, curve in enumerate(result["curves"]):
        points = [point for point in curve["points"] if "failed" not in point]
        sizes = [point["num_envs"] for point in points]
        label, color = f"{curve['env_name']}, {ENGINE_NAMES[curve['impl']]}", f"C{index}"
        rates.loglog(sizes, [point["steps_per_second"] for point in points], "o-", ms=3, color=color, label=label)
        full = next((point for point in points if point["num_envs"] == curve["saturates_at"]), None)
        if full:
            rates.plot(full["num_envs"], full["steps_per_second"], "o", ms=11, mfc="none", color=color)
        seconds = [point["start_seconds"] + point["first_call_seconds"] for point in points]
        calls.loglog(sizes, seconds, "o-", ms=3, color=color, label=label)
    rates.set(xlabel="environments", ylabel="env steps/s (ring: 90% of the most)")
    calls.set(xlabel="environments", ylabel="s until the first step, empty compile cache")
    for axis in (rates, calls):
        axis.grid(alpha=0.3, which="both")
    rates.legend(fontsize=8)


def peers_env(figure: Any, result: Result) -> None:
    """Env steps per second of each pair, logarithmic."""
    cases = [case for case in result["cases"] if "steps_per_second" in case]
    names = {"theirs": "theirs", "ours": "ours", "our_bare": "bare physics of our scene"}
    axis = figure.subplots()
    for i, (key, label) in enumerate(names.items()):
        rates = [case["steps_per_second"][key] for case in cases]
        axis.barh([y + 0.27 * (1 - i) for y in range(len(cases))], rates, 0.26, label=label)
    labels = [f"{case['package']} {case['env']}\n{case['num_envs']:,} envs" for case in cases]
    axis.set_yticks(range(len(cases)), labels, fontsize=8)
    axis.set(xscale="log", xlabel="env steps/s at equal physics steps")
    axis.grid(alpha=0.3, axis="x")
    axis.legend(fontsize=8)


def peers_ppo(figure: Any, result: Result) -> None:
    """Success against seconds of training, a line for each run."""
    axis, seen = figure.subplots(), set()
    for run in result["runs"]:
        if not run.get("rows"):
            continue
        label = None if run["variant"] in seen else VARIANTS[run["variant"]]
        seen.add(run["variant"])
        color = f"C{list(VARIANTS).index(run['variant'])}"
        axis.plot([row[1] for row in run["rows"]], [row[2] for row in run["rows"]], color=color, lw=1, label=label)
    axis.axhline(result["goal"], color="k", ls=":", lw=1)
    axis.set(xscale="log", xlabel="seconds of training, without compiling", ylabel="success rate", ylim=(-0.02, 1.02))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)


def imitation(figure: Any, result: Result) -> None:
    """Success against demonstrations, a line for each policy with the interval over all seeds."""
    axis, cases = figure.subplots(), result["cases"]
    counts = sorted({case["demonstrations"] for case in cases})
    for model in MODELS:
        found = {count: each for count in counts if (each := pooled(cases, model, count))}
        if found:
            axis.plot(list(found), [each["success_rate"] for each in found.values()], "o-", label=model)
            low, high = ([each[key] for each in found.values()] for key in ("success_low", "success_high"))
            axis.fill_between(list(found), low, high, alpha=0.15)
    axis.set(xscale="log", xlabel="demonstrations of pick and place", ylabel="success", ylim=(0.0, 1.02))
    axis.set_xticks(counts, [f"{count:,}" for count in counts])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")


def bars(title: str, values: Callable[[Result], dict[str, float]]) -> Callable[[Any, Result], None]:
    """A plot of one bar for each name."""

    def plot(figure: Any, result: Result) -> None:
        axis, found = figure.subplots(), values(result)
        axis.bar_label(axis.barh(list(found), list(found.values())), fmt="{:,.3g}", padding=3, fontsize=8)
        axis.invert_yaxis()
        axis.set(xlabel=title)
        axis.margins(x=0.12)
        axis.grid(alpha=0.3, axis="x")

    return plot


def _engines(result: Result) -> dict[str, float]:
    found = {ENGINE_NAMES[each["impl"]]: each["steps_per_second"] for each in result["batched"]}
    found |= {
        f"PPO on {ENGINE_NAMES[e['impl']]}": e["ppo_steps_per_second"]
        for e in result["batched"]
        if "ppo_steps_per_second" in e
    }
    return {"bare mujoco.batch.Batch": result["batched"][0]["bare_steps_per_second"]} | found


def _pictures(result: Result) -> dict[str, float]:
    case = result["cases"][0]
    names = {"ray_caster_fps": "ray-caster", "ray_caster_rgb_only_fps": "... colour alone"}
    names |= {
        "ray_caster_with_shadows_fps": "... with shadows",
        "mujoco_renderer_fps": "mujoco.Renderer, software OpenGL",
    }
    return {label: case[key] for key, label in names.items() if key in case}


def _startup(result: Result) -> dict[str, float]:
    found = {f"import {name}": each["median"] for name, each in result["imports"].items()}
    return found | {f"{c['env_name']}, {c['what']}, first step": c["later"]["median"] for c in result["first_step"]}


# name -> (source, how)
PLOTS: dict[str, tuple[str, Callable[[Any, Result], None]]] = {
    "bench_env_scaling": ("env_scaling", scaling),
    "bench_peers_env": ("peers_env", peers_env),
    "bench_peers_ppo": ("peers_ppo", peers_ppo),
    "bench_peers_imitation": (
        "peers_imitation",
        bars(
            "success rate after the seconds of our recipe, and three times that",
            lambda result: {
                f"{POLICIES[c['variant']]}, {c['seconds']:,.0f} s": c["success_rate"]
                for c in result["cases"]
                if "success_rate" in c
            },
        ),
    ),
    "imitation": ("imitation", imitation),
    "bench_engines": ("env_throughput_pick_place", bars("pick and place: env steps/s", _engines)),
    "bench_pictures": ("render_throughput", bars("frames/s of 64x64", _pictures)),
    "bench_startup": ("startup", bars("seconds, with a filled compile cache", _startup)),
    "bench_trainer": (
        "trainer_throughput",
        bars(
            "times as fast as torch's loop",
            lambda result: {f"batch {size}": each["speedup"] for size, each in result["batch"].items()},
        ),
    ),
    "bench_datagen": (
        "datagen_throughput",
        bars(
            "episodes/s",
            lambda result: {
                f"{c['env_name']}, {ENGINE_NAMES[c['impl']]}, {c['num_envs']} envs, dt {c['dt']}, "
                + (f"{c['image_size']} px" if c["image_size"] else "states"): c["episodes_per_second"]
                for c in result["cases"]
            },
        ),
    ),
}
