"""The texts of single figures: from the content of a file of results to what a page says."""

import statistics
from collections.abc import Callable
from typing import Any

ENGINE_NAMES = {"c": "C engine", "MJX": "MJX", "jax": "MJX", "warp": "MuJoCo Warp", "host": "MuJoCo at dt 0.002"}

Result = dict[str, Any]


def engines(result: Result) -> str:
    """Rates of the C engine, and beside MJX and a bare loop in the same run."""
    c, mjx = result["batched"]
    return (
        f"{c['steps_per_second']:,.0f} env steps/s, {mjx['times_slower']:.1f} times MJX "
        f"({mjx['steps_per_second']:,.0f}) and {c['share_of_bare']:.0%} of a bare loop over `mujoco.batch.Batch`"
    )


def first_calls(result: Result) -> str:
    """Seconds until the first step, without a cache."""
    c, mjx = ({name: each[f"{name}_seconds"] for name in ("init", "first_call")} for each in result["batched"])
    return (
        f"{c['init']:.1f} s to start and {c['first_call']:.1f} s for the first step; "
        f"MJX {mjx['init']:.1f} and {mjx['first_call']:.1f} s"
    )


def in_ppo(result: Result) -> str:
    """Rates with PPO on top."""
    return ", ".join(
        f"{ENGINE_NAMES[each['impl']]} {each['ppo_steps_per_second']:,.0f} steps/s" for each in result["batched"]
    )


def host(result: Result) -> str:
    """The gymnasium adapter."""
    each = result["host"]
    return f"{each['steps_per_second']:,.0f} env steps/s, {each['share_of_bare']:.0%} of a bare loop over `mj_step`"


def ppo_clock(result: Result) -> str:
    """Seconds and steps to 95% of plain starts."""
    runs = result["runs"].values()
    seconds = sorted(run["seconds_to_95_percent_plain_success"] for run in runs)
    steps = sorted(run["steps_to_95_percent_plain_success"] for run in runs)
    return (
        f"95% of plain starts after {seconds[0]:.0f} to {seconds[-1]:.0f} s of updates (median "
        f"{statistics.median(seconds):.0f} s), {steps[0]:,.0f} to {steps[-1]:,.0f} steps, {len(seconds)} seeds"
    )


def ppo_beside_bare(result: Result) -> str:
    """Wall-clock to 95% over what the physics alone would take, of the slowest seed."""
    return (
        f"at most {result['worst_times_bare']:.1f} times as long as a bare loop over `mujoco.batch.Batch` takes for "
        f"the same steps; median {result['median_seconds']:.0f} s, {result['reached']} of {len(result['runs'])} seeds"
    )


def ppo_minutes(result: Result) -> str:
    """Minutes of all updates."""
    runs = list(result["runs"].values())
    minutes = sorted(run["minutes"] for run in runs)
    return f"{runs[0]['steps']:,} steps in {minutes[0]:.1f} to {minutes[-1]:.1f} minutes, {len(runs)} seeds"


def ppo_success(result: Result) -> str:
    """The worst seed on each engine."""
    evaluations = [run["evaluation"] for run in result["runs"].values()]
    lowest = {engine: min(each[engine]["success_rate"] for each in evaluations) for engine in evaluations[0]}
    return ", ".join(f"at least {rate:.1%} on {ENGINE_NAMES[engine]}" for engine, rate in lowest.items())


def demonstrations(env_name: str, **wanted: Any) -> Callable[[Result], str]:
    """Episodes per second of one case."""

    def figure(result: Result) -> str:
        case = next(c for c in result["cases"] if {"env_name": env_name, **wanted}.items() <= c.items())
        return (
            f"{case['episodes_per_second']:,.0f} episodes/s on {ENGINE_NAMES[case['impl']]} with "
            f"{case['num_envs']} environments, {case['success_rate']:.1%} successes"
        )

    return figure


def demo(result: Result) -> str:
    """Seconds of `simscale demo`."""
    rates = ", ".join(f"{each['success_rate']:.0%} on {ENGINE_NAMES[name]}" for name, each in result["success"].items())
    return f"{result['seconds']:.0f} s with an empty compile cache; {rates}"


def guard(result: Result) -> str:
    """Numbers that were not finite."""
    return (
        f"{result['env_steps']:,} env steps: {result['nan_caught']} states not finite, {result['nan_escaped']} numbers "
        f"that got out, {result['overflows']} steps with lost contacts"
    )


def rendering(result: Result) -> str:
    """Frames per second of the ray-caster."""
    case = result["cases"][0]
    return (
        f"{case['ray_caster_fps']:,.0f} frames/s of {case['size']}x{case['size']}, "
        f"{case['times_mujoco_renderer']:,.0f} times mujoco.Renderer with software OpenGL"
    )


def training_step(model: str) -> Callable[[Result], str]:
    """A training step beside torch's."""
    return lambda result: f"{result['results'][model]['speedup_over_best_torch']:.1f} times as fast"


def trainer(result: Result) -> str:
    """The whole trainer beside torch's loop."""
    rates = ", ".join(f"{each['speedup']:.1f} times at batch {size}" for size, each in result["batch"].items())
    cost = result["checkpoints"]
    return f"{rates}; a checkpoint every {cost['updates']:,} updates costs {cost['overhead']:.1%}"
