"""`simscale demo`: learn a task from nothing, evaluate, and leave a film of how it went."""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simscaleai_jax.tools.arguments import parse

DESCRIPTION = """Learn pick and place from nothing, evaluate the policy, and film it.

Leaves in the output folder: the run with its checkpoint (which `simscale eval` takes), learning_curve.png,
metrics.jsonl, eval.json, and film.mp4 with a small film.gif: nine episodes of the untrained policy, of the policy
that succeeds half of the time, and of the trained one.

Examples:
  simscale demo
  simscale demo --recipe configs/ppo_reach.yaml --output outputs/reach_demo"""

HALF = 0.5  # success rate of the policy in the film's second act
WINDOW = 4  # updates that it is averaged over
ACTS = (60, 80, 80)  # control steps of each act
EVAL_SEED = 1000


@dataclasses.dataclass(frozen=True)
class DemoOptions:
    """Options of `simscale demo`.

    Attributes:
      recipe: YAML file of a PPO run.
      output: folder for everything; a run in it is replaced.
      seed: of the run.
      n_episodes: fresh episodes that judge the policy.
    """

    recipe: str = "configs/ppo_pick_place.yaml"
    output: str = "outputs/demo"
    seed: int = 0
    n_episodes: int = 200


class HalfwayPolicy:
    """A callback of `PPOAgent.train` that keeps the first policy whose latest updates succeed half of the time."""

    def __init__(self) -> None:
        self.policy: Callable | None = None
        self.steps = 0
        self._recent: list[float] = []

    def __call__(self, agent: Any, row: dict[str, float]) -> None:
        self._recent = [*self._recent, row["plain_success_rate"]][-WINDOW:]
        known = [success for success in self._recent if math.isfinite(success)]
        is_half = bool(known) and sum(known) / len(known) >= HALF
        is_current = int(row["total_steps"]) == agent.total_steps  # the agent is that of the end of a dispatch
        if self.policy is None and is_half and is_current:
            self.policy, self.steps = agent.policy(), agent.total_steps


def main(argv: list[str]) -> None:
    """Parses the options; trains, evaluates, films; says after each what took how long."""
    from simscaleai_jax.tools.commands import eval as evaluation
    from simscaleai_jax.tools.commands import rl

    options = parse(DemoOptions, argv, "demo", DESCRIPTION)
    folder = Path(options.output)
    recipe = rl.parse_options(["--config", options.recipe, "--output", str(folder), "--ppo.seed", str(options.seed)])
    _clear(folder)
    started = time.perf_counter()
    _say(started, f"Learning {recipe.env_name} from nothing ({options.recipe}).")
    halfway = HalfwayPolicy()
    rl.train(recipe, callbacks=[halfway])
    _say(started, f"Playing {options.n_episodes} fresh episodes.")
    evaluation.main(
        [
            str(folder), "--n-episodes", str(options.n_episodes), "--seed", str(EVAL_SEED),
            "--output", str(folder / "eval.json"),
        ]
    )  # fmt: skip
    _say(started, "Filming nine episodes of three policies.")
    for path in _film(recipe, halfway, folder):
        _say(started, f"Written: {path}")


def _say(started: float, text: str) -> None:
    print(f"[{time.perf_counter() - started:5.0f} s] {text}", flush=True)


def _clear(folder: Path) -> None:
    """Removes an earlier demo's run; a folder that another process is writing in is refused."""
    import shutil

    from simscaleai_jax.core.checkpoint import SERIES
    from simscaleai_jax.core.runs.folder import RUN
    from simscaleai_jax.core.runs.lock import FolderLock

    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder):
        for old in [*folder.glob("step_*"), *folder.glob(".step_*")]:
            shutil.rmtree(old)
        for name in (SERIES, RUN, "metrics.jsonl", "metrics.csv"):
            (folder / name).unlink(missing_ok=True)


def _film(recipe: Any, halfway: HalfwayPolicy, folder: Path) -> list[Path]:
    from simscaleai_jax.core.checkpoint import resolve
    from simscaleai_jax.policy import load_policy
    from simscaleai_jax.rl.agents.ppo import PPOAgent
    from simscaleai_jax.rl.film import Act, write_film
    from simscaleai_jax.tools.commands import rl

    plain = dataclasses.replace(recipe.env, task=recipe.env.task | _no_curriculum(recipe))
    env = rl.make_training_env(dataclasses.replace(recipe, env=plain))
    untrained = PPOAgent.for_env(env, rl.ppo_config(recipe))
    acts = [Act("Before training", untrained.policy(), ACTS[0])]
    if halfway.policy is not None:
        acts.append(Act(f"After {halfway.steps:,} steps: half of the episodes succeed", halfway.policy, ACTS[1]))
    best = resolve(folder)
    steps = int(best.name.removeprefix("step_"))
    acts.append(Act(f"After {steps:,} steps", load_policy(best), ACTS[2] if len(acts) > 1 else sum(ACTS[1:])))
    return write_film(env, acts, folder / "film.mp4")


def _no_curriculum(recipe: Any) -> dict[str, float]:
    return {"curriculum_share": 0.0} if "curriculum_share" in recipe.env.task else {}
