"""Whether a policy does what it is told: success of every instruction, and a blind control.

In the control the same episodes are played, and each policy is told what another episode's goal is. A policy that
listens fails there, but where the two agree by chance; one that ignores what it is told does as well as before.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from simscaleai_jax.core.intervals import wilson
from simscaleai_jax.core.observations import LANGUAGE
from simscaleai_jax.core.streams import Stream, host_random, host_seed
from simscaleai_jax.core.text import check_instructions
from simscaleai_jax.rl.evaluator import EvalConfig, Outcomes, batched_env, episode_keys, evaluate_episodes


def task_instructions(env: Any) -> Any:
    """The `Instructions` of an environment's task; None where its episodes have none of their own."""
    return getattr(getattr(getattr(env, "unwrapped", env), "task", None), "instructions", None)


def evaluate_instructions(
    env: Any, policy: Callable, config: EvalConfig | None = None
) -> tuple[Outcomes, dict[str, Any]]:
    """`evaluate_episodes` in an environment whose episodes have instructions of their own.

    Returns:
      The episodes, and by name "instructions": plain sentence of each goal -> its "episodes", "success_rate",
      "success_low" and "success_high" (Wilson, 95%). Of a policy that reads instructions (`text_len`) also "blind": the
      same numbers where the instructions are shuffled among the episodes.
    Raises:
      ValueError: the policy cannot read all of the task's sentences; or as `evaluate_policy`. Nothing was played then.
    """
    config = EvalConfig() if config is None else config
    known, length = task_instructions(env), getattr(policy, "text_len", None)
    if length is not None:
        check_instructions(known.sentences, length)
    told, goals = _told(env, policy, config)
    played = evaluate_episodes(env, policy, config, told)
    successes = played.successes
    chosen = {text: successes[goals == number] for number, text in enumerate(known.goals)}
    result: dict[str, Any] = {"instructions": {text: _share(of) for text, of in chosen.items() if len(of)}}
    if length is not None:
        order = host_random(config.seed, Stream.INSTRUCTIONS, 0).permutation(config.n_episodes)
        result["blind"] = _share(evaluate_episodes(env, policy, config, told[order]).successes)
    return played, result


def _share(successes: np.ndarray) -> dict[str, float]:
    rate, count = float(np.mean(successes)), len(successes)
    low, high = wilson(rate, count)
    return {"episodes": count, "success_rate": rate, "success_low": low, "success_high": high}


def _told(env: Any, policy: Callable, config: EvalConfig) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [N, L] of each episode's instruction, and the number of its goal [N]."""
    functional = batched_env(env, policy, config)
    if functional is None:
        starts = [env.reset(seed=host_seed(config.seed, config.stream, n)) for n in range(config.n_episodes)]
        return np.stack([obs[LANGUAGE] for obs, _ in starts]), np.array([info["goal"] for _, info in starts])

    def start(key: Any) -> tuple[Any, Any]:
        state = functional.reset_state(key)
        return state.obs[LANGUAGE], state.task_state.goal

    told, goals = jax.jit(jax.vmap(start))(episode_keys(config))
    return np.asarray(told), np.asarray(goals)
