"""Collecting transitions: the policy acts in every environment for T steps.

Action noise is keyed by (update, step, environment), so that a rollout does not depend on how environments are split.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from simscaleai_jax.core.errors import check_names
from simscaleai_jax.core.observations import colour_keys, state_vector
from simscaleai_jax.core.streams import Stream, substream
from simscaleai_jax.rl.ppo.config import PPOConfig
from simscaleai_jax.rl.ppo.finite import cleaned, is_usable
from simscaleai_jax.rl.ppo.networks import Normal
from simscaleai_jax.rl.ppo.normalize import RunningStats, normalize
from simscaleai_jax.rl.ppo.state import Learner, PPOState


class Rollout(struct.PyTreeNode):
    """Transitions, every leaf [T, B, ...].

    Attributes:
      inputs: network inputs before normalisation: "state", "critic"?, "image"? (the channels of all cameras),
        "auxiliary"? (what the image is to tell).
      next_inputs: the same of the observation that the step led to, before any reset; without images.
      action: the sampled action, not clipped.
      log_prob: its log probability.
      value: V of `inputs`.
      reward: unscaled reward, 0 where `nan`.
      reward_terms: name -> the weighted terms that sum to it; {} where the environment names none.
      terminated: no further reward after this step.
      truncated: cut by a time limit.
      success: the step's info["success"].
      assisted: the step's info["assisted"], where the environment eases some starts; else False.
      nan: the step's environment, its reward or an observation before or after it was not finite.
      overflow: a full buffer may have cost the step contacts, where the environment says so; else False.
      episode_return: undiscounted return of the episode so far.
      episode_length: its length so far.
    """

    inputs: Any
    next_inputs: Any
    action: Any
    log_prob: Any
    value: Any
    reward: Any
    reward_terms: Any
    terminated: Any
    truncated: Any
    success: Any
    assisted: Any
    nan: Any
    overflow: Any
    episode_return: Any
    episode_length: Any


def network_inputs(obs: Any, config: PPOConfig) -> dict[str, Any]:
    """What training sees of an observation (dict, or an array that is the state itself).

    Raises:
      ValueError: a key of the actor, of the critic or of the auxiliary loss that the observation lacks.
    """
    inputs = actor_inputs(obs, config)
    for name, keys in (("critic", config.critic_keys), ("auxiliary", config.auxiliary_keys)):
        if keys and isinstance(obs, Mapping):
            check_names(f"observation key of PPOConfig.{name}_keys", keys, obs)
            inputs[name] = state_vector(obs, keys)
    return inputs


def actor_inputs(obs: Any, config: PPOConfig) -> dict[str, Any]:
    """What the actor sees of an observation (dict, or an array that is the state itself).

    Raises:
      ValueError: a key of the actor that the observation lacks.
    """
    if not isinstance(obs, Mapping):
        return {"state": obs}
    check_names("observation key of the policy", config.actor_keys, obs)
    inputs = {"state": state_vector(obs, config.actor_keys)}
    images = [obs[key] for key in colour_keys(obs)] if config.encoder != "none" else []
    if images:
        inputs["image"] = images[0] if len(images) == 1 else jnp.concatenate(images, axis=-1)
    return inputs


def act_distribution(learner: Learner, acting: dict[str, Any], obs: Any) -> Normal:
    """The policy's action distribution at an observation, of which it needs what the actor sees.

    Args:
      learner: network and settings.
      acting: {"params", "normalizer"} of the training state.
      obs: one observation or a batch of them.
    """
    inputs = normalized(actor_inputs(obs, learner.config), acting["normalizer"], learner.config)
    return learner.network(acting["params"]).action_distribution(inputs)


def normalized(inputs: dict[str, Array], normalizer: dict[str, RunningStats], config: PPOConfig) -> dict[str, Array]:
    """Inputs with every normalised entry shifted and scaled by one snapshot of the statistics."""
    if not config.normalize_observations:
        return inputs
    return {name: normalize(normalizer[name], x) if name in normalizer else x for name, x in inputs.items()}


def collect(learner: Learner, state: PPOState, env: Any, num_steps: int, env_ids: Array) -> tuple[Any, Rollout]:
    """Steps the environments of this device `num_steps` times.

    Args:
      learner: network and settings.
      state: training state; `state.env` holds this device's environments.
      env: a batched environment (docs/contract.md).
      num_steps: T.
      env_ids: (B,) global numbers of this device's environments.
    Returns:
      (state of the environments afterwards, rollout).
    """
    key_update = jax.random.fold_in(substream(state.key, Stream.POLICY_NOISE), state.update)
    network = learner.network(state.params)

    def step(env_state: Any, t: Array) -> tuple[Any, Rollout]:
        inputs, is_seen = cleaned(network_inputs(env_state.obs, learner.config))
        distribution, value = network(normalized(inputs, state.normalizer, learner.config))
        noise = env_noise(jax.random.fold_in(key_update, t), env_ids, distribution.mean.shape[-1])
        action = distribution.mean + distribution.stddev * noise
        after = env.step(env_state, action)
        next_inputs, is_reached = cleaned(network_inputs(after.final_obs, learner.config))
        nan = after.info["nan"] | ~(is_seen & is_reached & is_usable(after.reward))
        return after, Rollout(
            inputs=inputs,
            next_inputs=next_inputs,
            action=action,
            log_prob=distribution.log_prob(action).sum(-1),
            value=value,
            reward=jnp.where(nan, 0.0, after.reward),
            reward_terms={name: jnp.where(nan, 0.0, term) for name, term in reward_terms(after).items()},
            terminated=after.terminated,
            truncated=after.truncated,
            success=after.info["success"],
            assisted=after.info.get("assisted", jnp.zeros_like(after.terminated)),
            nan=nan,
            overflow=after.info.get("overflow", jnp.zeros_like(after.terminated)),
            episode_return=after.episode_return,
            episode_length=after.episode_length,
        )

    return jax.lax.scan(step, state.env, jnp.arange(num_steps))


def reward_terms(env_state: Any) -> dict[str, Any]:
    """The weighted reward terms of the environments' latest step, (B,) each; {} where they name none."""
    return dict(getattr(env_state, "reward_terms", None) or {})


def env_noise(key: Array, env_ids: Array, action_size: int) -> Float[Array, "B A"]:
    """Standard normal numbers, one row for each environment number."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, env_ids)
    return jax.vmap(lambda key_env: jax.random.normal(key_env, (action_size,)))(keys)


def next_values(learner: Learner, state: PPOState, rollout: Rollout) -> Float[Array, "T B"]:
    """V of the observations that the steps led to; their images, which they lack, are those of the step before."""
    images = {name: x for name, x in rollout.inputs.items() if name == "image"}
    inputs = normalized(rollout.next_inputs | images, state.normalizer, learner.config)
    return learner.network(state.params)(inputs)[1]
