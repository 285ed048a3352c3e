"""PPO on our pick and place: ours, brax's and Stable-Baselines3's, until 95% of the episodes succeed.

    make bench-peers; .venv-peers/bin/python benchmarks/peers_ppo.py

All learn the same task on the same engine (MuJoCo on all cores, dt 0.01, episodes of 100 steps) through the adapters
that ship with simscaleai_jax. Variants:
  ours            configs/ppo_pick_place.yaml as it is, with its curriculum
  ours_plain      the same without the curriculum, as the others have none
  brax            brax PPO, the settings of MuJoCo Playground for PandaPickCubeCartesian, whose actions are as ours
  brax_ours       brax PPO with the batch sizes, epochs, network and discount of our recipe
  sb3             Stable-Baselines3 PPO, its defaults and 8 environments, observations and rewards normalized
  sb3_ours        Stable-Baselines3 PPO with the batch sizes, epochs, network and discount of our recipe
Success is over recent episodes with sampled actions: the last 4 updates (ours, of plain starts), 256 evaluation
episodes (brax, whose evaluations are not on the clock), the last 200 episodes (SB3). Seconds are those of training,
without compiling. A run ends at 95%, or at a limit of seconds; then its success says how far it got. Each is a process
of its own. The others see all state keys, our recipe a choice of them. brax begins every episode at one of few starts,
as its wrapper does: the environment is reset between its evaluations.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers import PEERS, advice, is_installed, mend_brax, versions
from stamp import stamp

RESULTS = Path(__file__).parent / "results" / "peers_ppo.json"
RECIPE = Path(__file__).parents[1] / "configs" / "ppo_pick_place.yaml"
GOAL = 0.95
NEEDS = {"brax": "brax", "brax_ours": "brax", "sb3": "stable_baselines3", "sb3_ours": "stable_baselines3"}
VARIANTS = ("ours", "ours_plain", *NEEDS)
EPISODE_STEPS, DT = 100, 0.01
WINDOW = {"updates": 4, "episodes": 200, "evaluation": 256}


class ReachedError(Exception):
    """Raised out of a library's training when there is no more to wait for."""


class Clock:
    """Collects (steps, seconds, success) and says when a run is over.

    Attributes:
      rows: as they came.
    """

    def __init__(self, max_seconds: float) -> None:
        self.max_seconds, self.rows = max_seconds, []

    def is_over(self, steps: int, seconds: float, success: float) -> bool:
        """Adds a row."""
        self.rows.append([steps, round(seconds, 2), round(success, 4)])
        return success >= GOAL or seconds >= self.max_seconds


def main() -> None:
    """Runs every variant and seed, prints a line for each and writes the JSON file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max-seconds", type=float, default=300.0, help="of training, for one run")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(train(**json.loads(options.child))))
        return
    head = stamp()
    head["versions"] |= versions("brax", "stable_baselines3")
    report: dict[str, Any] = {"benchmark": "peers_ppo", **head, "goal": GOAL}
    report |= {"max_seconds": options.max_seconds, "load_before": os.getloadavg()[0], "settings": {}, "runs": []}
    for seed in options.seeds:  # seeds outside, so that a slow hour hits all variants
        for variant in options.variants:
            report["runs"].append(child(variant, seed, options.max_seconds))
            shown = {key: value for key, value in report["runs"][-1].items() if key not in ("rows", "settings")}
            print(json.dumps(shown), flush=True)
            report["summary"] = summary(report["runs"])
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(report, indent=1) + "\n")


def child(variant: str, seed: int, max_seconds: float) -> dict[str, Any]:
    """One run in a process of its own; what is missing or fails becomes part of the report."""
    run = {"variant": variant, "seed": seed}
    if variant in NEEDS and not is_installed(NEEDS[variant]):
        return run | {"missing": advice(NEEDS[variant])}
    command = [sys.executable, __file__, "--child", json.dumps(run | {"max_seconds": max_seconds})]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return run | {"failed": last}
    return run | json.loads(done.stdout.splitlines()[-1])


def train(variant: str, seed: int, max_seconds: float) -> dict[str, Any]:
    """One run: its rows, and what the first one that reached the goal says."""
    clock = Clock(max_seconds)
    start = time.perf_counter()
    name = variant.removesuffix("_plain").removesuffix("_ours")
    settings = {"ours": ours, "brax": brax, "sb3": sb3}[name](variant, seed, clock)
    steps, seconds, success = clock.rows[-1] if clock.rows else (0, 0.0, 0.0)
    return {
        "steps": steps if success >= GOAL else None,
        "seconds": seconds if success >= GOAL else None,
        "last": {"steps": steps, "seconds": seconds, "success": success},
        "highest_success": max((row[2] for row in clock.rows), default=0.0),
        "wall_seconds": round(time.perf_counter() - start, 1),
        "settings": settings,
        "rows": clock.rows,
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over seeds for each variant, and how many times our recipe's seconds it took (at least, where it never
    got there).
    """
    found: dict[str, Any] = {}
    for variant in dict.fromkeys(run["variant"] for run in runs):
        measured = [run for run in runs if run["variant"] == variant and "last" in run]
        if not measured:
            continue
        spent = [run["last"]["seconds"] for run in measured]
        found[variant] = {
            "reached": sum(run["seconds"] is not None for run in measured),
            "seeds": len(measured),
            "median_seconds": statistics.median(spent),  # those of the limit where it was not reached
            "median_steps": statistics.median(run["last"]["steps"] for run in measured),
            "highest_success": statistics.median(run["highest_success"] for run in measured),
        }
    if "ours" in found:
        for each in found.values():
            each["times_ours"] = each["median_seconds"] / found["ours"]["median_seconds"]
    return found


def ours(variant: str, seed: int, clock: Clock) -> dict[str, Any]:
    """Our PPO by the recipe, with or without its curriculum."""
    import dataclasses
    import math

    from simscaleai_jax.rl.agents.ppo import PPOAgent
    from simscaleai_jax.tools.commands.rl import make_training_env, parse_options, ppo_config

    recipe = parse_options(["--config", str(RECIPE)])
    if variant == "ours_plain":
        task = recipe.env.task | {"curriculum_share": 0.0}
        recipe = dataclasses.replace(recipe, env=dataclasses.replace(recipe.env, task=task))
    config = dataclasses.replace(ppo_config(recipe), seed=seed, total_timesteps=50_000_000, updates_per_dispatch=4)
    recent: list[float] = []
    seconds = [0.0]

    def watch(agent: Any, row: dict[str, float]) -> bool:
        seconds[0] += agent.config.n_steps / row["steps_per_second"]
        recent.append(row["plain_success_rate"])
        known = [value for value in recent[-WINDOW["updates"] :] if math.isfinite(value)]
        if clock.rows and clock.rows[-1][2] >= GOAL:  # the rest of a dispatch
            return False
        return not clock.is_over(int(row["total_steps"]), seconds[0], sum(known) / len(known) if known else 0.0)

    PPOAgent.for_env(make_training_env(recipe), config).train(make_training_env(recipe), [watch], progress=False)
    return {"recipe": RECIPE.name, "curriculum": variant == "ours"}


BRAX = {
    "brax": {  # mujoco_playground/config/manipulation_params.py, PandaPickCubeCartesian
        "num_envs": 1024, "unroll_length": 10, "num_minibatches": 8, "num_updates_per_batch": 8, "batch_size": 256,
        "discounting": 0.97, "learning_rate": 5e-4, "entropy_cost": 7.5e-3, "reward_scaling": 0.1, "max_grad_norm": 1.0,
        "hidden": (256, 256), "num_resets_per_eval": 1,
    },
    "brax_ours": {
        "num_envs": 256, "unroll_length": 16, "num_minibatches": 8, "num_updates_per_batch": 5, "batch_size": 32,
        "discounting": 0.97, "learning_rate": 1e-3, "entropy_cost": 5e-3, "reward_scaling": 1.0, "max_grad_norm": 0.5,
        "hidden": (128, 128), "num_resets_per_eval": 1, "clipping_epsilon": 0.2,
        "learning_rate_schedule": "ADAPTIVE_KL", "desired_kl": 0.02,
    },
}  # fmt: skip
BRAX_STEPS_PER_EVAL = 81_920


def brax(variant: str, seed: int, clock: Clock) -> dict[str, Any]:
    """brax PPO through `to_brax`."""
    import functools

    mend_brax()
    from brax.training.agents.ppo import networks
    from brax.training.agents.ppo import train as ppo

    from simscaleai_jax import adapters
    from simscaleai_jax.sim import make_functional_env

    settings: dict[str, Any] = dict(BRAX[variant])
    hidden = settings.pop("hidden")
    env = make_functional_env("pick_place", **env_settings())
    # Steps until training ends anyway; evaluations are as far apart as in 50,000,000 steps of training.
    total, ahead = 50_000_000, []

    def progress(steps: int, metrics: dict[str, Any]) -> None:
        if "training/walltime" not in metrics:
            return  # before training
        ahead.append(float(metrics["training/walltime"]))
        parts = np.diff(ahead, prepend=0.0)
        if len(parts) < 2:
            return  # of the first part most was compiling; the second one says how long it took
        seconds = ahead[-1] - parts[0] + statistics.median(parts[1:])
        if clock.is_over(int(steps), seconds, float(metrics["eval/episode_success"])):
            raise ReachedError

    with contextlib.suppress(ReachedError):
        ppo.train(
            adapters.to_brax(env), num_timesteps=total, num_evals=total // BRAX_STEPS_PER_EVAL + 1, seed=seed,
            episode_length=EPISODE_STEPS, normalize_observations=True, num_eval_envs=WINDOW["evaluation"],
            network_factory=functools.partial(
                networks.make_ppo_networks, policy_hidden_layer_sizes=hidden, value_hidden_layer_sizes=hidden
            ),
            progress_fn=progress, **settings,
        )  # fmt: skip
    return BRAX[variant]


SB3 = {
    "sb3": {"num_envs": 8},
    "sb3_ours": {
        "num_envs": 256, "n_steps": 16, "batch_size": 512, "n_epochs": 5, "gamma": 0.97, "learning_rate": 1e-3,
        "ent_coef": 5e-3, "policy_kwargs": {"net_arch": [128, 128], "log_std_init": -1.0},
    },
}  # fmt: skip


def sb3(variant: str, seed: int, clock: Clock) -> dict[str, Any]:
    """Stable-Baselines3 PPO through `to_sb3`."""
    from collections import deque

    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import VecNormalize

    from simscaleai_jax import adapters
    from simscaleai_jax.sim import make_vec_env

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(threads or 1)
    settings: dict[str, Any] = dict(SB3[variant])
    envs = make_vec_env("pick_place", settings.pop("num_envs"), **env_settings())
    gamma = settings.get("gamma", 0.99)
    vec = VecNormalize(adapters.to_sb3(envs), gamma=gamma)
    vec.seed(seed)
    ended: deque[bool] = deque(maxlen=WINDOW["episodes"])
    began: list[float] = []

    class Watch(BaseCallback):
        """Counts episodes and ends training."""

        def _on_step(self) -> bool:
            if not began:
                began.append(time.perf_counter())  # the first step compiles
            infos, dones = self.locals["infos"], self.locals["dones"]
            ended.extend(bool(infos[i]["is_success"]) for i in np.flatnonzero(dones))
            return not (clock.rows and self.is_over)

        is_over = False

        def _on_rollout_end(self) -> None:
            rate = float(np.mean(ended)) if len(ended) == ended.maxlen else 0.0
            self.is_over = clock.is_over(self.num_timesteps, time.perf_counter() - began[0], rate)

    PPO("MlpPolicy", vec, seed=seed, device="cpu", **settings).learn(50_000_000, callback=Watch())
    return SB3[variant] | {"library": PEERS["stable_baselines3"][0]}


def env_settings() -> dict[str, Any]:
    """The environment of the recipe without its curriculum."""
    from simscaleai_jax.sim.tasks.pick_place.config import PickPlaceConfig

    task = PickPlaceConfig(relative_observations=True)
    return {"dt": DT, "cameras": [], "max_episode_steps": EPISODE_STEPS, "impl": "auto", "task": task}


if __name__ == "__main__":
    main()
