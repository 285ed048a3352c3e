"""Plays many episodes on the device, a few steps at a time, in slots that are refilled as soon as an episode ends.

A lockstep batch would wait for its longest episode; here a slot takes the next episode at the next chunk. Which slot
plays an episode does not matter: everything random in it follows from (seed, episode, attempt), so a data set does not
depend on the number of environments.

`make_chunk_fn` gives one jitted function: refill the slots whose episode has ended, then step all of them `chunk_steps`
times; an ended episode stands still until the chunk is over.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from simscaleai_jax.core.jax_settings import GENERATOR
from simscaleai_jax.core.observations import LANGUAGE
from simscaleai_jax.core.streams import Stream, seed_key, substream
from simscaleai_jax.datagen.noise import NoiseConfig, add_noise

# (EnvState, carry, key) -> (action (A,), carry), unbatched; or (2, A): the label, and what is executed
ActFn = Callable[[Any, Any, PRNGKeyArray], tuple[Array, Any]]


@dataclasses.dataclass(frozen=True)
class RolloutPolicy:
    """How to act in one environment; `init_fn(EnvState)` gives the first carry of an episode."""

    act_fn: ActFn
    init_fn: Callable[[Any], Any] = lambda state: jnp.zeros((), jnp.int32)


@struct.dataclass
class Slots:
    """What every slot is doing; all leaves lead with B."""

    env: Any  # EnvState
    carry: Any  # of the policy
    episode: Int[Array, "B"]  # number of the episode, -1 where the slot is idle
    attempt: Int[Array, "B"]  # how often this episode was started before
    lost: Bool[Array, "B"]  # a full buffer of the physics may have cost the episode contacts
    cursor: Int[Array, ""]  # episodes of `todo` that were handed out


@struct.dataclass
class Chunk:
    """What the host needs of one chunk; records lead with [K, B]."""

    records: dict[str, Any]
    valid: Bool[Array, "K B"]  # the step was played
    episode: Int[Array, "B"]
    attempt: Int[Array, "B"]
    done: Bool[Array, "B"]  # the slot's episode ended within the chunk
    success: Bool[Array, "B"]
    terminated: Bool[Array, "B"]
    nan: Bool[Array, "B"]  # the state was not finite
    lost: Bool[Array, "B"]  # as in Slots
    sentence: Int[Array, "B"]  # number of the instruction, in a task that gives one; -1 in others
    retry: Bool[Array, "B"]  # it will be played again with other randomness
    left: Bool[Array, ""]  # whether another chunk is needed


def episode_key(seed: int, episode: Int[Array, ""], attempt: Int[Array, ""]) -> PRNGKeyArray:
    """Key of one attempt at an episode."""
    return jax.random.fold_in(jax.random.fold_in(seed_key(seed, Stream.DEMONSTRATIONS), episode), attempt)


def empty_slots(env: Any, policy: RolloutPolicy, num_envs: int) -> Slots:
    """Idle slots."""
    state, carry = jax.eval_shape(lambda: _start(env, policy, jax.random.key(0, impl=GENERATOR)))
    env_state, first_carry = jax.tree.map(lambda leaf: _blank(leaf, num_envs), (state, carry))
    idle = jnp.full((num_envs,), -1, jnp.int32)
    never = jnp.zeros((num_envs,), bool)
    return Slots(env_state, first_carry, idle, jnp.zeros((num_envs,), jnp.int32), never, jnp.int32(0))


def make_chunk_fn(
    env: Any,
    policy: RolloutPolicy,
    seed: int,
    *,
    chunk_steps: int,
    only_success: bool = False,
    noise: NoiseConfig | None = None,
    with_next_obs: bool = False,
) -> Callable[[Slots, Array, Array], tuple[Slots, Chunk]]:
    """Builds `chunk(slots, todo, num_todo) -> (slots, Chunk)`, jitted, donating the slots.

    `todo` is an int32 array of episode numbers of which the first `num_todo` count.
    """

    def step(slots: Slots, _: None) -> tuple[Slots, tuple[dict[str, Any], Array]]:
        ended = _ended(slots)
        played, carry, record = jax.vmap(_play(env, policy, noise, with_next_obs))(slots.env, slots.carry)
        lost = slots.lost | (~ended & played.info.get("overflow", False))
        env_state, carry = _keep(ended, (slots.env, slots.carry), (played, carry))
        return dataclasses.replace(slots, env=env_state, carry=carry, lost=lost), (record, ~ended)

    def chunk(slots: Slots, todo: Int[Array, "M"], num_todo: Int[Array, ""]) -> tuple[Slots, Chunk]:
        slots = _refill(env, policy, seed, only_success, slots, todo, num_todo)
        slots, (records, valid) = jax.lax.scan(step, slots, None, length=chunk_steps)
        active = slots.episode >= 0
        done = active & _ended(slots)
        retry = done & _retry(slots, only_success)
        left = (slots.cursor < num_todo) | (active & ~done).any() | retry.any()
        outcome = (slots.env.info["success"], slots.env.terminated, slots.env.info["nan"], slots.lost)
        told = getattr(getattr(slots.env, "task_state", None), "sentence", jnp.full_like(slots.episode, -1))
        return slots, Chunk(records, valid, slots.episode, slots.attempt, done, *outcome, told, retry, left)

    return jax.jit(chunk, donate_argnums=0)


def _play(env: Any, policy: RolloutPolicy, noise: NoiseConfig | None, with_next_obs: bool) -> Callable[..., Any]:
    """One control step of one environment and what is kept of it."""

    def one(state: Any, carry: Any) -> tuple[Any, Any, dict[str, Any]]:
        streams = (substream(state.key, stream) for stream in (Stream.ACTIONS, Stream.ACTION_NOISE))
        key_policy, key_noise = (jax.random.fold_in(key, state.step) for key in streams)
        action, carry = policy.act_fn(state, carry, key_policy)
        action = jnp.clip(action.astype(jnp.float32), -1.0, 1.0)
        is_labelled = action.ndim == 2
        label, executed = (action[0], action[1]) if is_labelled else (action, action)
        executed = executed if noise is None else add_noise(key_noise, executed, noise)
        after = env.step(state, executed)
        record = {"obs": _without_text(state.obs), "actions": label, "rewards": after.reward}
        if hasattr(state.physics, "qpos"):
            record["states"] = jnp.concatenate([state.physics.qpos, state.physics.qvel])
        if noise is not None or is_labelled:
            record["actions_executed"] = executed
        if with_next_obs:
            record["next_obs"] = _without_text(after.obs)
        return after, carry, record

    return one


def _without_text(obs: dict[str, Array]) -> dict[str, Array]:
    """The observation without the instruction, which is stored once for each episode."""
    return {name: value for name, value in obs.items() if name != LANGUAGE}


def _refill(
    env: Any, policy: RolloutPolicy, seed: int, only_success: bool, slots: Slots, todo: Array, num_todo: Array
) -> Slots:
    """Gives every free slot its next episode: the same one again where it must be retried, else the next of `todo`."""
    free = (slots.episode < 0) | _ended(slots)
    again = (slots.episode >= 0) & _ended(slots) & _retry(slots, only_success)
    wants_new = free & ~again
    position = slots.cursor + jnp.cumsum(wants_new) - 1
    gets_new = wants_new & (position < num_todo)
    number = todo[jnp.clip(position, 0, todo.shape[0] - 1)]
    episode = jnp.where(again, slots.episode, jnp.where(gets_new, number, jnp.where(free, -1, slots.episode)))
    attempt = jnp.where(again, slots.attempt + 1, jnp.where(free, 0, slots.attempt))
    keys = jax.vmap(lambda e, a: episode_key(seed, e, a))(jnp.maximum(episode, 0), attempt)
    fresh = jax.vmap(lambda key: _start(env, policy, key))(keys)
    env_state, carry = _keep(~(again | gets_new), (slots.env, slots.carry), fresh)
    return dataclasses.replace(
        slots,
        env=env_state,
        carry=carry,
        episode=episode,
        attempt=attempt,
        lost=slots.lost & ~free,
        cursor=slots.cursor + gets_new.sum(dtype=jnp.int32),
    )


def _start(env: Any, policy: RolloutPolicy, key: PRNGKeyArray) -> tuple[Any, Any]:
    state = env.reset(key)
    return state, policy.init_fn(state)


def _ended(slots: Slots) -> Bool[Array, "B"]:
    return slots.env.terminated | slots.env.truncated | (slots.episode < 0)


def _retry(slots: Slots, only_success: bool) -> Bool[Array, "B"]:
    """Broken physics (not finite, contacts lost) is never kept; a failure is not where only successes are wanted."""
    unwanted = ~slots.env.info["success"] if only_success else jnp.zeros_like(slots.env.terminated)
    return unwanted | slots.env.info["nan"] | slots.lost


def _keep(condition: Bool[Array, "B"], old: Any, new: Any) -> Any:
    """Leafwise old where `condition`, else new."""

    def pick(before: Array, after: Array) -> Array:
        shape = condition.shape + (1,) * (after.ndim - 1)
        return jnp.where(condition.reshape(shape), before, after)

    return jax.tree.map(pick, old, new)


def _blank(leaf: jax.ShapeDtypeStruct, num_envs: int) -> Array:
    shape = (num_envs, *leaf.shape)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0, impl=GENERATOR), shape)
    return jnp.zeros(shape, leaf.dtype)
