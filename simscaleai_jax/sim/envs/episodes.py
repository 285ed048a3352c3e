"""Whole episodes, one per key, without auto-reset: for evaluation and data generation.

Taking the first N episodes that happen to finish would favour short ones; here every key's episode counts once.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from simscaleai_jax.core.streams import Stream, substream
from simscaleai_jax.sim.envs.functional import EnvState, FunctionalEnv
from simscaleai_jax.sim.trees import select

# (EnvState, carry, key) -> (action [A], carry), unbatched
PolicyFn = Callable[[EnvState, Any, PRNGKeyArray], tuple[Array, Any]]
# (EnvState before, action, EnvState after) -> pytree to stack over time, unbatched
RecordFn = Callable[[EnvState, Array, EnvState], Any]


def rollout(
    env: FunctionalEnv,
    policy_fn: PolicyFn,
    carry: Any,
    keys: PRNGKeyArray,
    num_steps: int,
    record_fn: RecordFn,
    start: EnvState | None = None,
) -> tuple[EnvState, Any, Array]:
    """Play one episode per key; an episode that has ended stands still.

    Args:
      env: the environment.
      policy_fn: acts on one environment; its carry is per environment.
      carry: the first carry of every environment, leaves lead with B.
      keys: [B] episode keys; the same key gives the same episode.
      num_steps: scan length T; `env.max_episode_steps` plays every episode to its end.
      record_fn: what to keep of each step.
      start: first states [B, ...]; None for `env.reset` of the keys.

    Returns:
      The last EnvState of each episode [B, ...], the records [T, B, ...], and `valid` [T, B]: whether the step was
      played (records of other steps repeat the end and mean nothing).
    """
    state = jax.vmap(env.reset)(keys) if start is None else start
    policy_keys = jax.vmap(lambda key: substream(key, Stream.ACTIONS))(keys)

    def one(state, carry, key, t):
        action, next_carry = policy_fn(state, carry, jax.random.fold_in(key, t))
        after = env.step(state, action)
        ended = state.terminated | state.truncated
        after, next_carry = select(ended, (state, carry), (after, next_carry))
        return after, next_carry, record_fn(state, action, after), ~ended

    def step(loop, t):
        state, carry = loop
        state, carry, record, valid = jax.vmap(one, in_axes=(0, 0, 0, None))(state, carry, policy_keys, t)
        return (state, carry), (record, valid)

    (state, _), (records, valid) = jax.lax.scan(step, (state, carry), jnp.arange(num_steps))
    return state, records, valid
