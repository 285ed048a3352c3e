"""`simscale demo`: learn a task from nothing, evaluate, and leave a film of how it went."""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from simscaleai_jax.tools.arguments import parse

DESCRIPTION = """Learn pick and place from nothing, evaluate the policy, and film it.

Leaves in the output folder: the run with its checkpoint (which `simscale eval` takes), learning_curve.png,
metrics.jsonl, eval.json, and film.mp4 with a small film.gif: nine episodes of the untrained policy, of the policy
that succeeds half of the time, and of the trained one.

Examples:
  simscale demo
  simscale demo --recipe ppo_reach --output outputs/reach_demo"""

HALF = 0.5  # success rate of the policy in the film's second act
WINDOW = 4  # updates that it is averaged over
ACTS = (60, 70, 80)  # control steps of each act
NUM_FILMED = 36  # episodes that nine tiles have at hand
EVAL_SEED = 1000


@dataclasses.dataclass(frozen=True)
class DemoOptions:
    """Options of `simscale demo`.

    Attributes:
      recipe: preset (see simscale config show) or YAML file of a PPO run.
      output: folder for everything; a run in it is replaced.
      seed: of the run.
      n_episodes: fresh episodes that judge the policy.
    """

    recipe: str = "ppo_pick_place"
    output: str = "outputs/demo"
    seed: int = 0
    n_episodes: int = 100


class HalfwayPolicy:
    """A callback of `PPOAgent.train` that keeps the first policy whose latest updates succeed half of the time.

    Attributes:
      params: of that policy; None as long as there is none.
      steps: that it was trained for.
    """

    def __init__(self) -> None:
        self.params: Any = None
        self.steps = 0
        self._recent: list[float] = []

    def __call__(self, agent: Any, row: dict[str, float]) -> None:
        self._recent = [*self._recent, row["plain_success_rate"]][-WINDOW:]
        known = [success for success in self._recent if math.isfinite(success)]
        is_half = bool(known) and sum(known) / len(known) >= HALF
        is_current = int(row["total_steps"]) == agent.total_steps  # the agent is that of the end of a dispatch
        if self.params is None and is_half and is_current:
            self.params, self.steps = acting_params(agent), agent.total_steps


def acting_params(agent: Any) -> Any:
    """Parameters of a PPO policy (`load_policy(path).params`) as the agent has them now."""
    import jax

    from simscaleai_jax.rl.ppo.storage import acting_state

    return jax.tree.map(np.array, acting_state(agent.state))


def main(argv: list[str]) -> None:
    """Parses the options; trains, evaluates, films; says after each what took how long."""
    from simscaleai_jax.rl.film import write_film
    from simscaleai_jax.tools.commands import rl

    options = parse(DemoOptions, argv, "demo", DESCRIPTION)
    folder = Path(options.output)
    source = ["--config", options.recipe] if Path(options.recipe).is_file() else [options.recipe]
    recipe = rl.parse_options([*source, "--output", str(folder), "--ppo.seed", str(options.seed)])
    _clear(folder)
    started = time.perf_counter()
    _say(started, f"Learning {recipe.env_name} from nothing ({options.recipe}).")
    halfway = HalfwayPolicy()
    rl.train(recipe, callbacks=[halfway])
    _say(started, f"Playing {options.n_episodes} fresh episodes.")
    acts = judge(recipe, halfway, folder, options.n_episodes)
    _say(started, "Filming nine episodes at a time.")
    for path in write_film(*acts, folder / "film.mp4"):
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


def judge(recipe: Any, halfway: HalfwayPolicy, folder: Path, n_episodes: int) -> tuple[Any, list[Any]]:
    """Prints how the best policy does, batched and on the host; returns (physics, acts) of the film.

    The untrained policy and the one halfway play the same episodes, as further parameters of the same program.
    """
    from simscaleai_jax.core.checkpoint import resolve
    from simscaleai_jax.policy import load_policy
    from simscaleai_jax.rl.agents.ppo import PPOAgent
    from simscaleai_jax.rl.evaluator import EvalConfig, outcomes, play_episodes
    from simscaleai_jax.rl.film import Act
    from simscaleai_jax.tools.commands import eval as evaluation
    from simscaleai_jax.tools.commands import rl

    training_env = rl.make_training_env(recipe)
    env, best = training_env.functional, resolve(folder)
    policy = load_policy(best)
    config = EvalConfig(n_episodes, env.max_episode_steps, seed=EVAL_SEED)

    def act(steps: int, num_steps: int) -> Act:
        played = play_episodes(env, policy, config, min(NUM_FILMED, n_episodes))
        successes = int(np.sum(played.successes))
        when = f"After {steps:,} steps" if steps else "Before training"
        return Act(f"{when}: {successes} of {n_episodes} episodes succeed", played, num_steps)

    trained = act(int(best.name.removeprefix("step_")), ACTS[2])
    results = {env.config.impl: evaluation.judged(outcomes(trained.played).summary(), n_episodes, env.config.dt)}
    options = evaluation.EvalOptions(str(folder), None, n_episodes, physics="host", seed=EVAL_SEED)
    results |= evaluation.evaluate(options)
    evaluation.show(dataclasses.replace(options, output=str(folder / "eval.json")), results)
    policy.params = acting_params(PPOAgent.for_env(training_env, rl.ppo_config(recipe)))
    acts = [act(0, ACTS[0])]
    if halfway.params is not None:
        policy.params = halfway.params
        acts.append(act(halfway.steps, ACTS[1]))
    return env.physics, [*acts, trained]
