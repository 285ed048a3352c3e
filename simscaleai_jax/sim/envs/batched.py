"""Thousands of environments at once: `vmap` over a functional environment, with time limit and auto-reset.

Auto-reset takes from a pool of fresh resets. A slot belongs to one environment and its next episode: its key is
(seed, environment id, episode number), so that an environment's episodes do not depend on how many others there are or
which device they are on, and no start is ever played twice. Slots are computed for the whole batch at once, whenever an
environment is about to take one that it has used.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from simscaleai_jax.sim.envs.functional import EnvState, FunctionalEnv
from simscaleai_jax.sim.trees import select


@struct.dataclass
class BatchState:
    """A batch of environments after a step; every leaf leads with B (environments)."""

    env: EnvState  # to act on: where an episode ended, already the next one
    pool: EnvState  # the next episode's start, without images
    pool_episode: Int[Array, "B"]  # which episode `pool` starts
    env_id: Int[Array, "B"]
    base_key: PRNGKeyArray  # [B] of the seed
    episode: Int[Array, "B"]  # of `env`, counted from 0
    control_steps: Int[Array, "B"]  # since `init`
    started: Int[Array, "B"]  # `control_steps` when `env`'s episode began; the next start is eased by it (curriculum)
    reward: Float[Array, "B"]
    reward_terms: dict[str, Float[Array, "B"]]
    terminated: Bool[Array, "B"]
    truncated: Bool[Array, "B"]
    final_obs: dict[str, Array]  # state keys of the observation before auto-reset; equals `obs` where no episode ended
    info: dict[str, Array]  # of the step, before auto-reset
    episode_return: Float[Array, "B"]  # of the episode the step belongs to, this step included
    episode_length: Int[Array, "B"]

    @property
    def obs(self) -> dict[str, Array]:
        """The observation to act on, after auto-reset."""
        return self.env.obs

    @property
    def done(self) -> Bool[Array, "B"]:
        """Whether the step ended an episode."""
        return self.terminated | self.truncated


class BatchedEnv:
    """Auto-resetting batch of a functional environment. Works on any leading size, so also on one shard of a batch."""

    def __init__(self, env: FunctionalEnv) -> None:
        self.functional = env
        self.observation_spec = env.observation_spec
        self.action_size = env.action_size
        self.max_episode_steps = env.max_episode_steps

    def init(self, key: PRNGKeyArray, env_ids: Int[Array, "B"]) -> BatchState:
        """First resets. Episodes are staggered: each first one starts at a random age, so that time limits do not
        coincide.
        """
        env_ids = jnp.asarray(env_ids, jnp.int32)
        base_key = jnp.broadcast_to(key, env_ids.shape)
        zeros = jnp.zeros_like(env_ids)
        # One after the other, so that a reset is compiled once.
        starts = jax.lax.map(
            lambda episode: self._fresh(base_key, env_ids, jnp.full_like(env_ids, episode), zeros), jnp.arange(2)
        )
        env, pool = (jax.tree.map(lambda leaf, n=n: leaf[n], starts) for n in range(2))
        ages = jax.vmap(lambda k, i: jax.random.randint(_age_key(k, i), (), 0, self.max_episode_steps))
        env = env.replace(step=ages(base_key, env_ids).astype(jnp.int32))
        return BatchState(
            env=jax.vmap(self.functional.add_images)(env),
            pool=pool,
            pool_episode=jnp.ones_like(env_ids),
            env_id=env_ids,
            base_key=base_key,
            episode=zeros,
            control_steps=zeros,
            started=zeros,
            reward=env.reward,
            reward_terms=env.reward_terms,
            terminated=env.terminated,
            truncated=env.truncated,
            final_obs=env.obs,
            info=env.info,
            episode_return=jnp.zeros_like(env.reward),
            episode_length=jnp.zeros_like(env_ids),
        )

    def step(self, state: BatchState, action: Float[Array, "B A"]) -> BatchState:
        """One control step everywhere; ended episodes are replaced by their environment's next one. Renders once, at
        the end.
        """
        was_done = state.done
        after = jax.vmap(self.functional.step_state)(_without_images(state.env, state.pool), action)
        done = after.terminated | after.truncated
        pool, pool_episode = self._refill(state, done)
        env = select(done, pool, after)
        return BatchState(
            env=jax.vmap(self.functional.add_images)(env),
            pool=pool,
            pool_episode=pool_episode,
            env_id=state.env_id,
            base_key=state.base_key,
            episode=state.episode + done,
            control_steps=state.control_steps + 1,
            started=jnp.where(done, state.control_steps + 1, state.started),
            reward=after.reward,
            reward_terms=after.reward_terms,
            terminated=after.terminated,
            truncated=after.truncated,
            final_obs=after.obs,
            info=after.info,
            episode_return=jnp.where(was_done, 0.0, state.episode_return) + after.reward,
            episode_length=jnp.where(was_done, 0, state.episode_length) + 1,
        )

    def _refill(self, state: BatchState, done: Bool[Array, "B"]) -> tuple[EnvState, Int[Array, "B"]]:
        """The pool, recomputed for the whole batch if any ended environment has used up its slot."""
        wanted = state.episode + 1
        is_stale = done & (state.pool_episode != wanted)

        def fresh():
            return self._fresh(state.base_key, state.env_id, wanted, state.started), wanted

        return jax.lax.cond(jnp.any(is_stale), fresh, lambda: (state.pool, state.pool_episode))

    def _fresh(
        self, base_key: PRNGKeyArray, env_id: Int[Array, "B"], episode: Int[Array, "B"], control_steps: Int[Array, "B"]
    ) -> EnvState:
        @jax.named_scope("resets")
        def one(key, env_id, episode, control_steps):
            return self.functional.reset_state(episode_key(key, env_id, episode), control_steps)

        return jax.vmap(one)(base_key, env_id, episode, control_steps)


def episode_key(key: PRNGKeyArray, env_id: Int[Array, ""], episode: Int[Array, ""]) -> PRNGKeyArray:
    """The key of one environment's n-th episode."""
    return jax.random.fold_in(jax.random.fold_in(key, env_id), episode)


def _age_key(key: PRNGKeyArray, env_id: Int[Array, ""]) -> PRNGKeyArray:
    return episode_key(key, env_id, jnp.int32(-1))


def _without_images(env: EnvState, like: EnvState) -> EnvState:
    return env.replace(obs={key: env.obs[key] for key in like.obs})
