"""Generalized advantage estimation (Schulman et al. 2016, https://arxiv.org/abs/1506.02438)."""

import jax
from jaxtyping import Array, Bool, Float


def gae(
    rewards: Float[Array, "T *batch"],
    values: Float[Array, "T *batch"],
    next_values: Float[Array, "T *batch"],
    terminated: Bool[Array, "T *batch"],
    truncated: Bool[Array, "T *batch"],
    gamma: float,
    gae_lambda: float,
) -> tuple[Float[Array, "T *batch"], Float[Array, "T *batch"]]:
    """Advantages and returns of a rollout.

        delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)
        A_t     = delta_t + gamma lambda (1 - terminated_t)(1 - truncated_t) A_{t+1}
        R_t     = A_t + V(s_t)

    Args:
      rewards: r_t.
      values: V(s_t).
      next_values: V of the observation that the step led to, before any reset: a time limit is bootstrapped.
      terminated: the episode ended in a state of no further reward.
      truncated: the episode was cut by a time limit.
      gamma: discount.
      gae_lambda: lambda.
    Returns:
      (advantages, returns).
    """
    going_on = gamma * (1.0 - terminated)
    deltas = rewards + going_on * next_values - values
    decay = going_on * gae_lambda * (1.0 - truncated)

    def step(advantage: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta, factor = inputs
        advantage = delta + factor * advantage
        return advantage, advantage

    _, advantages = jax.lax.scan(step, deltas[0] * 0.0, (deltas, decay), reverse=True)
    return advantages, advantages + values
