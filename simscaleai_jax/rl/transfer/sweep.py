"""Sim-to-sim transfer: one policy under many physics, played side by side in one batch.

Every condition is a `DomainRandomizationConfig`; its ranges enter as numbers of each environment, not as Python
constants, so that all conditions share one compiled program. They also share their episodes' keys: the same starts and
goals everywhere, so that conditions differ by their physics alone.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from simscaleai_jax.core import compile_cache
from simscaleai_jax.core.errors import check_names
from simscaleai_jax.core.intervals import wilson
from simscaleai_jax.core.jax_settings import GENERATOR
from simscaleai_jax.core.streams import Stream, seed_key
from simscaleai_jax.rl.play import blocks, play
from simscaleai_jax.sim.randomization import (
    JITTERS,
    NOMINAL,
    PRESETS,
    DomainRandomizationConfig,
    draw_between,
)
from simscaleai_jax.sim.robot.feasibility import check_randomization


@dataclasses.dataclass(frozen=True)
class Condition:
    """One column of the report: a preset, or one parameter away from its nominal value.

    Attributes:
      name: "heavy", "friction=0.50".
      config: what is randomized, by how much.
      parameter: the swept parameter, "" for a preset.
      level: share of the way from nominal (0) to the heavy preset's low (-1) or high (1) end.
      value: the parameter's value; of a deviation (`JITTERS`) the largest one.
    """

    name: str
    config: DomainRandomizationConfig
    parameter: str = ""
    level: float = 0.0
    value: float = 0.0


def sweepable(env: Any) -> tuple[str, ...]:
    """Parameters that reach the scene of a functional environment; what only cameras see needs cameras."""
    ranges: dict[str, Any] = dict.fromkeys(NOMINAL, (1.0, 1.0))
    jitters: dict[str, Any] = dict.fromkeys(JITTERS, 0.1) if env.config.cameras else {}
    model, key = env.physics.host_model, jax.random.key(0, impl=GENERATOR)

    def reaches(name: str) -> bool:
        one = ({name: ranges[name]}, {}) if name in ranges else ({}, {name: jitters[name]})
        overrides = jax.eval_shape(lambda: draw_between(key, *one, model))
        return any(leaf.size for leaf in overrides.values())

    return tuple(name for name in (*ranges, *jitters) if reaches(name))


def make_conditions(env: Any, parameters: Sequence[str] = (), levels: int = 2) -> list[Condition]:
    """The four presets, then each parameter alone at `levels` values on either side of nominal.

    Args:
      env: functional environment.
      parameters: which to sweep; () for all that reach the scene.
      levels: values per side, evenly spaced up to the heavy preset's end. Deviations have one side only.
    Raises:
      ValueError: a parameter that is unknown or does not reach the scene, or fewer than one level.
    """
    if levels < 1:
        raise ValueError(f"levels must be at least 1, got {levels}")
    known = sweepable(env)
    check_names(f"parameter of {env.task.name}", parameters, known)
    conditions = [Condition(name, config) for name, config in PRESETS.items()]
    steps = [(i + 1) / levels for i in range(levels)]
    for name in parameters or known:
        shares = steps if name in JITTERS else [-share for share in reversed(steps)] + steps
        conditions += [_sweep_condition(name, share) for share in shares]
    return conditions


def _sweep_condition(name: str, level: float) -> Condition:
    heavy = getattr(PRESETS["heavy"], name)
    if name in JITTERS:
        value = level * heavy
        setting: Any = value
    else:
        end = heavy[1] if level > 0.0 else heavy[0]
        value = (1.0 - abs(level)) * NOMINAL[name][0] + abs(level) * end
        setting = (value, value)
    return Condition(f"{name}={value:.3g}", DomainRandomizationConfig(**{name: setting}), name, level, value)


def evaluate_conditions(
    env: Any,
    policy: Callable[[Any, jax.Array], jax.Array],
    conditions: Sequence[Condition],
    n_episodes: int = 32,
    max_steps: int | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Plays `n_episodes` whole episodes of every condition, thousands at a time.

    Args:
      env: functional environment; its own randomization is replaced by the conditions'.
      policy: pure policy(obs, key) -> action; one that carries its plan executes its chunks, as in `evaluate_policy`.
      conditions: C of them.
      n_episodes: N per condition; the n-th start and goal are the same in all of them.
      max_steps: control steps after which an episode is cut, if its own limit does not come first.
      seed: of the episodes.
    Returns:
      One row per condition: condition, parameter, level, value, episodes, success_rate with its 95% interval
      (success_low, success_high; Wilson, https://doi.org/10.1080/01621459.1927.10502953), mean_reward, std_reward,
      mean_length, and how many were spoilt by their physics: nan_episodes (a state was not finite) and
      overflow_episodes (a full buffer may have cost contacts).
    Raises:
      ValueError: no episode or condition, or an object too large for the gripper.
    """
    if n_episodes < 1 or not conditions or (max_steps is not None and max_steps < 1):
        raise ValueError(
            f"wanted at least one episode, condition and step; got n_episodes={n_episodes}, "
            f"{len(conditions)} conditions, max_steps={max_steps}"
        )
    compile_cache.enable()
    model = env.physics.host_model
    for condition in conditions:
        check_randomization(env.task, condition.config)
    ranges, jitters = _stack([condition.config for condition in conditions], n_episodes, bool(env.config.cameras))
    steps = min(max_steps or env.max_episode_steps, env.max_episode_steps)

    def start(key: jax.Array, ranges: Any, jitters: Any) -> Any:
        return env.reset(key, draw_between(jax.random.split(key)[0], ranges, jitters, model))

    @jax.jit
    def play_all(keys: jax.Array, ranges: Any, jitters: Any) -> tuple:
        played = play(env, policy, keys, steps, jax.vmap(start)(keys, ranges, jitters))
        return played.successes, played.returns, played.lengths, played.nans, played.overflows

    keys = episode_keys(seed, n_episodes)[jnp.arange(n_episodes * len(conditions)) % n_episodes]
    parts = [play_all(*block) for block in blocks((keys, ranges, jitters), len(keys))]
    played = [np.concatenate(column).reshape(len(conditions), -1) for column in zip(*parts, strict=True)]
    return [_row(condition, *columns) for condition, *columns in zip(conditions, *played, strict=True)]


def episode_keys(seed: int, n_episodes: int) -> PRNGKeyArray:
    """Keys [N] of the episodes of every condition."""
    key = seed_key(seed, Stream.TRANSFER)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n_episodes))


def _stack(configs: Sequence[DomainRandomizationConfig], repeats: int, has_cameras: bool) -> tuple[dict, dict]:
    """Ranges and deviations as arrays, one entry per environment: each config `repeats` times in a row."""

    def column(values: Sequence[float]) -> jax.Array:
        return jnp.repeat(jnp.asarray(values, jnp.float32), repeats)

    ranges = {
        name: (
            column([getattr(config, name)[0] for config in configs]),
            column([getattr(config, name)[1] for config in configs]),
        )
        for name in NOMINAL
    }
    seen = JITTERS if has_cameras else ()
    return ranges, {name: column([getattr(config, name) for config in configs]) for name in seen}


def _row(
    condition: Condition,
    success: np.ndarray,
    reward: np.ndarray,
    length: np.ndarray,
    nan: np.ndarray,
    overflow: np.ndarray,
) -> dict[str, Any]:
    rate = float(np.mean(success))
    low, high = wilson(rate, success.size)
    return {
        "condition": condition.name,
        "parameter": condition.parameter,
        "level": condition.level,
        "value": condition.value,
        "episodes": int(success.size),
        "success_rate": rate,
        "success_low": low,
        "success_high": high,
        "mean_reward": float(np.mean(reward)),
        "std_reward": float(np.std(reward)),
        "mean_length": float(np.mean(length)),
        "nan_episodes": int(np.sum(nan)),
        "overflow_episodes": int(np.sum(overflow)),
    }
