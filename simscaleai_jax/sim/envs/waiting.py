"""A batch in which an episode that ended stays as it is until it is told to go on with the next one.

`BatchedEnv` resets within the step, which suits training on a device. Gymnasium also knows environments that reset in
the step after (NEXT_STEP), or only when they are asked to (DISABLED); both need the last observation, images included.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from simscaleai_jax.sim.envs.batched import episode_key
from simscaleai_jax.sim.envs.functional import EnvState, FunctionalEnv
from simscaleai_jax.sim.trees import select


@struct.dataclass
class WaitingState:
    """A batch after a step; every leaf leads with B (environments)."""

    env: EnvState  # as the step left it
    base_key: PRNGKeyArray  # [B] of the seed
    env_id: Int[Array, "B"]
    episode: Int[Array, "B"]  # counted from 0


class WaitingBatch:
    """Environments side by side, whose n-th episode starts from `episode_key(key, env_id, n)` as in BatchedEnv."""

    def __init__(self, env: FunctionalEnv) -> None:
        self.functional = env

    def init(self, key: PRNGKeyArray, env_ids: Int[Array, "B"]) -> WaitingState:
        """First episodes, all of them at their beginning. `key` is one key, or [B] of them."""
        env_ids = jnp.asarray(env_ids, jnp.int32)
        base_key = jnp.broadcast_to(key, env_ids.shape)
        zeros = jnp.zeros_like(env_ids)
        return WaitingState(self._fresh(base_key, env_ids, zeros), base_key, env_ids, zeros)

    def step(self, state: WaitingState, action: Float[Array, "B A"], restart: Bool[Array, "B"]) -> WaitingState:
        """One control step; where `restart`, the next episode begins instead and the action means nothing."""
        after = jax.vmap(self.functional.step)(state.env, action)
        episode = state.episode + restart

        def begin() -> EnvState:
            return self._fresh(state.base_key, state.env_id, episode)

        fresh = jax.lax.cond(jnp.any(restart), begin, lambda: after)
        return state.replace(env=select(restart, fresh, after), episode=episode)

    def _fresh(self, base_key: PRNGKeyArray, env_id: Int[Array, "B"], episode: Int[Array, "B"]) -> EnvState:
        return jax.vmap(lambda *of: self.functional.reset(episode_key(*of)))(base_key, env_id, episode)
