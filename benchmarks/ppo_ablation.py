"""What each part of a PPO recipe is worth: steps and seconds until plain starts succeed, with parts taken away.

    python benchmarks/ppo_ablation.py [--seeds 10 11 12] [--max-steps 600000]

Every variant is configs/ppo_pick_place.yaml with something changed; the seeds are none of those whose results the
recipe reports. A run ends when 95% of the plain starts of its last updates succeed, or at the limit. Seconds are those
of its updates, without compiling. Prints a line per run and writes JSON stamped with the machine and the versions.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import tyro
from stamp import stamp

from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.tools.commands.rl import make_training_env, parse_options, ppo_config

RECIPE = Path("configs/ppo_pick_place.yaml")
WINDOW = 4  # updates over which successes are averaged
GOAL = 0.95
PLAIN_KEYS = ("ee_pos", "gripper_state", "joint_vel", "object_pos", "object_quat", "target_pos")
# name -> (settings of the task, of PPO) that differ from the recipe's
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "recipe": ({}, {}),
    "no curriculum": ({"curriculum_share": 0.0}, {}),
    "no relative observations": ({"relative_observations": False}, {"actor_keys": PLAIN_KEYS}),
    "no reward for the stages": ({"reach_weight": 0.0, "grasp_weight": 0.0, "lift_weight": 0.0}, {}),
    "no entropy bonus": ({}, {"entropy_coef": 0.0}),
    "fixed learning rate": ({}, {"lr_schedule": "constant"}),
    "smaller exploration (log std -1.4)": ({}, {"log_std_init": -1.4}),
    "twice the rollout, half the updates": ({}, {"n_steps": 8192}),
    "width 256": ({}, {"hidden_dim": 256}),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
      variants: names of them; default: all.
      seeds: of each.
      max_steps: environment steps after which a run is given up.
      output: JSON file to write.
    """

    variants: tuple[str, ...] = tuple(VARIANTS)
    seeds: tuple[int, ...] = (10, 11, 12)
    max_steps: int = 600_000
    output: Path = Path("benchmarks/results/ppo_ablation.json")


class Watch:
    """A callback that ends training when the goal is reached or the limit is."""

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps
        self.recent: list[float] = []
        self.seconds = 0.0
        self.success = 0.0
        self.reached: dict[str, float] = {}

    def __call__(self, agent: PPOAgent, row: dict[str, float]) -> bool:
        if self.reached:  # the rest of the dispatch
            return False
        self.seconds += agent.config.n_steps / row["steps_per_second"]
        self.recent = [*self.recent, row["plain_success_rate"]][-WINDOW:]
        known = [value for value in self.recent if math.isfinite(value)]
        self.success = sum(known) / len(known) if known else 0.0
        if self.success >= GOAL:
            self.reached = {"steps": row["total_steps"], "seconds": round(self.seconds, 1)}
        return not self.reached and row["total_steps"] < self.max_steps


def main(options: Options) -> None:
    runs = []
    for name in options.variants:
        for seed in options.seeds:
            runs.append(run(name, seed, options.max_steps))
            print(json.dumps(runs[-1]), flush=True)
            options.output.write_text(json.dumps(stamp() | {"goal": GOAL, "runs": runs}, indent=1) + "\n")


def run(name: str, seed: int, max_steps: int) -> dict[str, Any]:
    """One run of a variant: steps and seconds to the goal (None where it was not reached), success at its end."""
    task, ppo = VARIANTS[name]
    recipe = parse_options(["--config", str(RECIPE)])
    env_options = dataclasses.replace(recipe.env, task=recipe.env.task | task)
    env = make_training_env(dataclasses.replace(recipe, env=env_options))
    config: PPOConfig = dataclasses.replace(ppo_config(recipe), seed=seed, **ppo)
    watch = Watch(max_steps)
    PPOAgent.for_env(env, config).train(env, callbacks=[watch], progress=False)
    return {
        "variant": name,
        "seed": seed,
        "steps": watch.reached.get("steps"),
        "seconds": watch.reached.get("seconds"),
        "last_success": round(watch.success, 3),
    }


if __name__ == "__main__":
    main(tyro.cli(Options))
