"""How long PPO takes to solve pick and place, beside what its physics alone would take.

    python benchmarks/ppo_wall_clock.py [--seeds 0 1 2 3 4]

Follows configs/ppo_pick_place.yaml until 95% of the plain starts of the last updates succeed. Before each seed and
after the last, `mujoco.batch.Batch` steps the recipe's number of environments through recorded states with nothing
around it; the mean of the two rates beside a run is what its steps are divided by. Seconds are those of the updates,
without compiling. Prints a line per seed and writes JSON stamped with the machine and the versions.
"""

import dataclasses
import json
import statistics
from pathlib import Path

import tyro
from env_throughput import Engine
from ppo_ablation import RECIPE, run
from stamp import stamp

from simscaleai_jax.sim import make_batched_env
from simscaleai_jax.tools.commands.rl import parse_options, ppo_config


@dataclasses.dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
      seeds: of the runs.
      max_steps: environment steps after which a run is given up.
      repeats: bare loops whose median is a rate.
      output: JSON file to write.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    max_steps: int = 600_000
    repeats: int = 3
    output: Path = Path("benchmarks/results/ppo_wall_clock.json")


def main(options: Options) -> None:
    recipe = parse_options(["--config", str(RECIPE)])
    num_envs = ppo_config(recipe).num_envs
    assert num_envs, "the recipe says how many"
    env = make_batched_env("pick_place", dt=recipe.env.dt, cameras=[], impl="c")
    bare = Engine(env, num_envs, 64).bare()

    def rate() -> float:
        return 64 * num_envs / statistics.median(bare.run() for _ in range(options.repeats))

    runs, before = [], rate()
    for seed in options.seeds:
        row = run("recipe", seed, options.max_steps)
        after = rate()
        bare_rate = (before + after) / 2
        row |= {"bare_steps_per_second": round(bare_rate)}
        if row["steps"]:
            row |= {"times_bare": round(row["seconds"] / (row["steps"] / bare_rate), 2)}
        runs.append(row)
        before = after
        print(json.dumps(row), flush=True)
    reached = [row["seconds"] for row in runs if row["steps"]]
    summary = {
        "reached": len(reached),
        "median_seconds": statistics.median(reached),
        "worst_seconds": max(reached),
        "worst_times_bare": max(row["times_bare"] for row in runs if row["steps"]),
    }
    options.output.write_text(json.dumps(stamp() | {"recipe": str(RECIPE)} | summary | {"runs": runs}, indent=1) + "\n")
    print(json.dumps(summary))


if __name__ == "__main__":
    main(tyro.cli(Options))
