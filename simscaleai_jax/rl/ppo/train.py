"""The jitted training loop: one update is one pure function, several updates are one call to the device.

    rollout (T x B transitions) -> GAE -> epochs x minibatches -> statistics

The functions run inside `shard_map` over the mesh: environments, rollouts and minibatches stay on their device.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array

from simscaleai_jax.core import sharding
from simscaleai_jax.core.batch_last import compiled_for
from simscaleai_jax.core.streams import Stream, substream
from simscaleai_jax.rl.ppo.config import Layout
from simscaleai_jax.rl.ppo.finite import is_usable
from simscaleai_jax.rl.ppo.gae import gae
from simscaleai_jax.rl.ppo.normalize import merge
from simscaleai_jax.rl.ppo.rollout import Rollout, collect, next_values, reward_terms
from simscaleai_jax.rl.ppo.state import (
    METRICS,
    STATE_SPECS,
    UNKNOWN_RATE,
    EpisodeStats,
    Learner,
    PPOState,
)  # fmt: skip
from simscaleai_jax.rl.ppo.update import Batch, as_units, learn, minibatch_units

REWARD_TERM = "reward/"  # before the name of a reward term

UpdateFn = Callable[[PPOState], tuple[PPOState, dict[str, Array]]]


def make_update(learner: Learner, env: Any, layout: Layout, axis_name: str | None = None, parts: int = 1) -> UpdateFn:
    """Builds update(state) -> (state, metrics), pure, vmappable over states (seeds) where `axis_name` is None.

    Args:
      learner: network and settings.
      env: a batched environment (docs/contract.md).
      layout: how a rollout is cut.
      axis_name: mesh axis over which environments are split, or None for one device.
      parts: devices on that axis.
    """
    num_envs, num_blocks = layout.num_envs // parts, layout.num_blocks // parts

    def update(state: PPOState) -> tuple[PPOState, dict[str, Array]]:
        part = 0 if axis_name is None else jax.lax.axis_index(axis_name)
        with jax.named_scope("policy"):
            env_state, rollout = collect(learner, state, env, layout.num_steps, part * num_envs + jnp.arange(num_envs))
        with jax.named_scope("learning"):
            state, units, explained = prepare(learner, state, rollout, layout, axis_name)
            key = jax.random.fold_in(substream(state.key, Stream.MINIBATCHES), state.update)
            blocks = part * num_blocks + jnp.arange(num_blocks)
            indices = minibatch_units(key, layout, blocks, learner.config.n_epochs)
            learned, metrics = learn(learner, state, units, indices, axis_name)
            learned, episode_metrics = record(learner, learned, rollout, axis_name)
        metrics |= episode_metrics | {"explained_variance": explained}
        metrics = {name: metrics[name] for name in metric_names(state)}
        return learned.replace(env=env_state, update=state.update + 1), metrics

    return update


def metric_names(state: PPOState) -> tuple[str, ...]:
    """What an update reports: METRICS, and one number for each reward term that the environments name."""
    return *METRICS, *(REWARD_TERM + name for name in reward_terms(state.env))


def prepare(
    learner: Learner, state: PPOState, rollout: Rollout, layout: Layout, axis_name: str | None
) -> tuple[PPOState, Batch, Array]:
    """Turns a rollout into units to learn from: (state with new reward statistics, units, explained variance)."""
    config = learner.config
    state, rewards = scale_rewards(learner, state, rollout, axis_name)
    advantages, returns = gae(
        rewards, rollout.value, next_values(learner, state, rollout), rollout.terminated | rollout.nan,
        rollout.truncated & ~rollout.nan, config.gamma, config.gae_lambda,
    )  # fmt: skip
    sums = jnp.stack([_moments(advantages), _moments(returns)])
    sums = sums if axis_name is None else jax.lax.pmean(sums, axis_name)
    variance = sums[:, 1] - jnp.square(sums[:, 0])
    if config.normalize_advantages:
        advantages = (advantages - sums[0, 0]) * jax.lax.rsqrt(jnp.maximum(variance[0], 0.0) + 1e-8)
    batch = Batch(rollout.inputs, rollout.action, rollout.log_prob, rollout.value, advantages, returns)
    explained = 1.0 - variance[0] / jnp.maximum(variance[1], 1e-8)  # advantage = return - value
    return state, as_units(batch, layout.num_chunks), explained


def _moments(values: Array) -> Array:
    return jnp.stack([values.mean(), jnp.square(values).mean()])


def scale_rewards(learner: Learner, state: PPOState, rollout: Rollout, axis_name: str | None) -> tuple[PPOState, Array]:
    """Rewards as the learner sees them; with normalize_rewards divided by the spread of the discounted return."""
    rewards = rollout.reward * learner.config.reward_scale
    if not learner.config.normalize_rewards:
        return state, rewards

    def accumulate(total: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, done = inputs
        total = total * learner.config.gamma + reward
        return jnp.where(done, 0.0, total), total

    done = rollout.terminated | rollout.truncated
    left, totals = jax.lax.scan(accumulate, state.discounted_return, (rewards, done))
    stats = merge(state.reward_stats, totals[..., None], axis_name)
    rewards = rewards * jax.lax.rsqrt(stats.var[0] + 1e-8)
    return state.replace(reward_stats=stats, discounted_return=left), rewards


def record(
    learner: Learner, state: PPOState, rollout: Rollout, axis_name: str | None
) -> tuple[PPOState, dict[str, Array]]:
    """Merges this rollout into the statistics; reports its finished episodes, and its reward terms as means over all
    of its transitions, so that they sum to the mean reward of a step.
    """
    is_over = (rollout.terminated | rollout.truncated) & is_usable(rollout.episode_return)
    done = is_over.astype(jnp.float32)
    total = jnp.where(is_over, rollout.episode_return, 0.0)
    numbers = (jnp.ones_like(done), total, rollout.episode_length, rollout.success)
    plain = done * ~rollout.assisted
    extra = [rollout.nan.sum(), plain.sum(), (plain * rollout.success).sum(), rollout.overflow.sum()]
    extra += [term.sum() for term in rollout.reward_terms.values()]
    sums = jnp.stack([(done * number).sum() for number in numbers] + [number.astype(jnp.float32) for number in extra])
    sums = sums if axis_name is None else jax.lax.psum(sums, axis_name)
    transitions = rollout.reward.size * (1 if axis_name is None else jax.lax.axis_size(axis_name))
    means = sums[1:4] / jnp.maximum(sums[0], 1.0)
    latest = EpisodeStats(means[0], means[1], means[2])
    episodes = jax.tree.map(lambda new, old: jnp.where(sums[0] > 0, new, old), latest, state.episodes)
    normalizer = state.normalizer
    if learner.config.normalize_observations:
        normalizer = {name: merge(stats, rollout.inputs[name], axis_name) for name, stats in normalizer.items()}
    metrics = {
        "episode_reward": episodes.reward,
        "episode_length": episodes.length,
        "success_rate": episodes.success,
        "plain_success_rate": jnp.where(sums[5] > 0, sums[6] / jnp.maximum(sums[5], 1.0), UNKNOWN_RATE),
        "episodes": sums[0],
        "nan_count": sums[4],
        "overflow_count": sums[7],
        "action_std": jnp.exp(state.params["actor_log_std"]).mean(),
    }
    terms = zip(rollout.reward_terms, sums[8:], strict=True)
    metrics |= {REWARD_TERM + name: total / transitions for name, total in terms}
    return state.replace(normalizer=normalizer, episodes=episodes), metrics


def make_init(learner: Learner, env: Any, layout: Layout, mesh: Mesh) -> Callable[[PPOState], PPOState]:
    """Builds the jitted init(state without environments) -> state with freshly started ones, spread over the mesh."""
    num_envs = layout.num_envs // mesh.size

    @compiled_for(sharding.platform(mesh))
    def init(state: PPOState) -> PPOState:
        env_ids = jax.lax.axis_index(sharding.AXIS) * num_envs + jnp.arange(num_envs, dtype=jnp.int32)
        env_state = env.init(substream(state.key, Stream.TRAINING_EPISODES), env_ids)
        return state.replace(env=env_state, discounted_return=jnp.zeros(env_ids.shape))

    start = STATE_SPECS.replace(discounted_return=sharding.REPLICATED, env=sharding.REPLICATED)
    return jax.jit(jax.shard_map(init, mesh=mesh, in_specs=(start,), out_specs=STATE_SPECS, check_vma=False))


def make_dispatch(learner: Learner, env: Any, layout: Layout, mesh: Mesh, max_updates: int) -> Callable:
    """Builds the jitted dispatch(state, count) -> (state, metrics) that does `count` <= max_updates updates.

    `state` is donated; metrics are name -> (max_updates,) of which the first `count` are filled.
    """
    update = make_update(learner, env, layout, sharding.AXIS, mesh.size)

    @compiled_for(sharding.platform(mesh))
    def dispatch(state: PPOState, count: Array) -> tuple[PPOState, dict[str, Array]]:
        names = metric_names(state)
        history = {name: jnp.zeros(max_updates) for name in names}

        def body(i: Array, carry: tuple) -> tuple:
            state, history = carry
            state, metrics = update(state)
            return state, {name: history[name].at[i].set(metrics[name]) for name in names}

        return jax.lax.fori_loop(0, count, body, (state, history))

    specs = (STATE_SPECS, sharding.REPLICATED)
    mapped = jax.shard_map(dispatch, mesh=mesh, in_specs=specs, out_specs=specs, check_vma=False)
    return jax.jit(mapped, donate_argnums=0)
