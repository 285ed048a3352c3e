"""Whole episodes of a pure policy in a functional environment: one per key, all of them in one batch."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from simscaleai_jax.core.observations import LANGUAGE

EPISODES_AT_ONCE = 4096  # of pick and place, a gigabyte


@struct.dataclass
class Played:
    """What N episodes came to."""

    returns: Float[Array, "N"]  # undiscounted
    lengths: Int[Array, "N"]  # control steps
    successes: Bool[Array, "N"]  # of the last step
    nans: Bool[Array, "N"]  # a state was not finite
    overflows: Bool[Array, "N"]  # at some step a full buffer may have cost contacts
    physics: Any  # leaves [T, K, ...] of the first K episodes, to draw them; None where K is 0


def blocks(tree: Any, count: int) -> Iterator[Any]:
    """Slices of arrays that lead with `count` episodes, so many at a time as any machine has memory for."""
    for first in range(0, count, EPISODES_AT_ONCE):
        yield jax.tree.map(lambda leaf, first=first: leaf[first : first + EPISODES_AT_ONCE], tree)


def carries_plan(policy: Callable) -> bool:
    """Whether a policy remembers what it planned: `init(batch_shape)` and `step(carry, obs, key, is_over)`."""
    return all(callable(getattr(policy, name, None)) for name in ("init", "step"))


def play(
    env: Any,
    policy: Callable,
    keys: PRNGKeyArray,
    num_steps: int,
    start: Any = None,
    num_filmed: int = 0,
    told: Float[Array, "N L"] | None = None,
) -> Played:
    """Plays one episode per key; to be jitted.

    Args:
      env: a functional environment.
      policy: pure policy(obs, key) -> action; one that carries its plan (`simscaleai_jax.policy.Policy`) executes its
        chunks as it was told to.
      keys: [N] episode keys.
      num_steps: steps after which an episode is cut, if it does not end before.
      start: first states [N, ...]; None for `env.reset` of the keys.
      num_filmed: K, the episodes whose physics is kept.
      told: token ids of what the policy is told in each episode, in place of the episode's own instruction.
    """
    from simscaleai_jax.sim.envs.episodes import rollout

    plans: Any = policy if carries_plan(policy) else None

    def act(state: Any, carry: Any, key: Array) -> tuple[Array, Any]:
        plan, tokens = carry
        obs = state.obs if tokens is None else {**state.obs, LANGUAGE: tokens}
        if plans is None:
            return policy(obs, key), carry
        action, plan = plans.step(plan, obs, key, state.terminated | state.truncated)
        return action, (plan, tokens)

    def keep(before: Any, action: Array, after: Any) -> tuple:
        flags = [jnp.asarray(after.info.get(name, False)) for name in ("nan", "overflow")]
        return after.reward, flags, (after.physics if num_filmed else None)

    carry = (() if plans is None else plans.init(len(keys)), told)
    last, (rewards, (nans, overflows), physics), valid = rollout(env, act, carry, keys, num_steps, keep, start)
    return Played(
        returns=(rewards * valid).sum(0),
        lengths=valid.sum(0),
        successes=last.info["success"],
        nans=(nans & valid).any(0),
        overflows=(overflows & valid).any(0),
        physics=jax.tree.map(lambda leaf: leaf[:, :num_filmed], physics),
    )
