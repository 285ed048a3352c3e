"""Learning from a rollout: the clipped surrogate loss and its minibatch steps.

Schulman et al. 2017, https://arxiv.org/abs/1707.06347. Each minibatch step makes exactly one all-reduce: gradients and
the numbers to report travel in one vector. A step that would not be finite is not taken (`finite`).
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from simscaleai_jax.rl.ppo.config import Layout, PPOConfig
from simscaleai_jax.rl.ppo.finite import is_finite, keep_if, mean_taken
from simscaleai_jax.rl.ppo.rollout import normalized
from simscaleai_jax.rl.ppo.state import Learner, PPOState

ADAPTIVE_LR = (1e-5, 1e-2)
PREDICTORS = ("encoder", "auxiliary")  # parts of the network that learn by the auxiliary loss alone, where there is one


class Batch(struct.PyTreeNode):
    """What the loss needs of each transition; leading axes are the same for every leaf.

    Attributes:
      inputs: network inputs before normalisation.
      action: action taken.
      log_prob: its log probability then.
      value: V then.
      advantage: normalised advantage.
      returns: target of the value function.
      weight: how much it counts, None where all count alike.
    """

    inputs: Any
    action: Any
    log_prob: Any
    value: Any
    advantage: Any
    returns: Any
    weight: Any = None


def ppo_loss(
    learner: Learner, params: Any, normalizer: dict, batch: Batch
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The loss of PPO and the numbers to report, as means over the batch."""
    config = learner.config

    def mean(values: Array) -> Array:
        if batch.weight is None:
            return values.mean(dtype=jnp.float32)
        return (values * batch.weight).sum() / batch.weight.sum()

    inputs = normalized(batch.inputs, normalizer, config)
    network = learner.network(params)
    inputs = network.encode(inputs)
    log_prob, value, entropy = network.evaluate_actions(inputs, batch.action)
    log_ratio = log_prob - batch.log_prob
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - config.clip_epsilon, 1 + config.clip_epsilon)
    policy_loss = -mean(jnp.minimum(ratio * batch.advantage, clipped * batch.advantage))
    value_loss = mean(_value_errors(config, value, batch))
    entropy = mean(entropy)
    auxiliary_loss = jnp.zeros(())
    if config.auxiliary_keys:
        auxiliary_loss = jnp.square(inputs["prediction"] - inputs["auxiliary"]).mean()
    loss = policy_loss + config.value_loss_coef * value_loss - config.entropy_coef * entropy + auxiliary_loss
    return loss, {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "auxiliary_loss": auxiliary_loss,
        "approx_kl": mean(ratio - 1 - log_ratio),  # http://joschu.net/blog/kl-approx.html
        "clip_fraction": mean(jnp.abs(ratio - 1) > config.clip_epsilon),
    }


def _value_errors(config: PPOConfig, value: Array, batch: Batch) -> Array:
    error = jnp.square(value - batch.returns)
    if config.clip_value_loss:
        near = batch.value + jnp.clip(value - batch.value, -config.clip_epsilon, config.clip_epsilon)
        error = jnp.maximum(error, jnp.square(near - batch.returns))
    return error


def minibatch_step(
    learner: Learner, state: PPOState, batch: Batch, axis_name: str | None = None
) -> tuple[PPOState, dict[str, Float[Array, ""]]]:
    """One gradient step on one minibatch, averaged over all devices where `axis_name` is given."""
    grad_fn = jax.grad(lambda params: ppo_loss(learner, params, state.normalizer, batch), has_aux=True)
    grads, metrics = all_mean(grad_fn(state.params), axis_name)
    learning_rate = adapt_learning_rate(learner.config, state.learning_rate, metrics["approx_kl"])
    updates, opt_state = learner.optimizer.update(grads, state.opt_state, state.params)
    rate = scheduled_rate(learner.config, learning_rate, state.update)
    rates = dict.fromkeys(state.params, rate)
    if learner.config.auxiliary_keys:
        rates |= dict.fromkeys(PREDICTORS, learner.config.auxiliary_lr * remaining_share(learner.config, state.update))
    steps = {name: optax.tree.scale(-rates[name], part) for name, part in updates.items()}
    params = cast("dict[str, Any]", optax.apply_updates(state.params, steps))
    bounds = learner.config.log_std_min, learner.config.log_std_max
    params = params | {"actor_log_std": jnp.clip(params["actor_log_std"], *bounds)}
    losses = [metrics[name] for name in ("policy_loss", "value_loss", "auxiliary_loss")]
    is_good = is_finite((losses, params, opt_state, learning_rate))
    metrics |= {"grad_norm": optax.tree.norm(grads), "learning_rate": rate}
    metrics |= {"skipped_steps": 1.0 - is_good.astype(jnp.float32)}
    old = state.params, state.opt_state, state.learning_rate
    params, opt_state, learning_rate = keep_if(is_good, (params, opt_state, learning_rate), old)
    return state.replace(params=params, opt_state=opt_state, learning_rate=learning_rate), metrics


def all_mean(tree: Any, axis_name: str | None) -> Any:
    """Mean over the devices, with one all-reduce for the whole tree."""
    if axis_name is None:
        return tree
    vector, unravel = ravel_pytree(tree)
    return unravel(jax.lax.pmean(vector, axis_name))


def adapt_learning_rate(config: PPOConfig, rate: Array, divergence: Array) -> Array:
    """Under the adaptive schedule: down by 1.5 above twice the target divergence, up by 1.5 below half of it."""
    if config.lr_schedule != "adaptive":
        return rate
    factor = jnp.where(divergence > 2 * config.target_kl, 1 / 1.5, jnp.where(divergence < config.target_kl / 2, 1.5, 1))
    return jnp.clip(rate * factor, *ADAPTIVE_LR)


def scheduled_rate(config: PPOConfig, rate: Array, update: Array) -> Array:
    """The rate of this update: falls linearly to zero under the linear schedule."""
    if config.lr_schedule != "linear":
        return rate
    return rate * remaining_share(config, update)


def remaining_share(config: PPOConfig, update: Array) -> Array:
    """From 1 at the first update to 0 at the end of training."""
    return jnp.maximum(1.0 - update / config.num_updates, 0.0)


def minibatch_units(key: Array, layout: Layout, blocks: Int[Array, "K"], num_epochs: int) -> Int[Array, "N M"]:
    """Which of this device's units each minibatch of every epoch takes.

    Units permute inside their block, and a block's permutation depends on its global number alone: the same transitions
    meet in a minibatch on any number of devices.

    Args:
      key: key of this update.
      layout: how the rollout is cut.
      blocks: global numbers of this device's blocks.
      num_epochs: epochs.
    Returns:
      (epochs * minibatches, units of this device in one minibatch).
    """
    size, count = layout.units_per_block, layout.num_minibatches

    def block_units(key_epoch: Array, block: Array, local: Array) -> Array:
        order = jax.random.permutation(jax.random.fold_in(key_epoch, block), size)
        return local * size + order.reshape(count, size // count)

    def epoch_units(key_epoch: Array) -> Array:
        units = jax.vmap(block_units, in_axes=(None, 0, 0))(key_epoch, blocks, jnp.arange(len(blocks)))
        return jnp.moveaxis(units, 0, 1).reshape(count, -1)

    return jax.vmap(epoch_units)(jax.random.split(key, num_epochs)).reshape(num_epochs * count, -1)


def as_units(tree: Any, num_chunks: int) -> Any:
    """Cuts [T, B, ...] leaves into units: [B * chunks, T / chunks, ...], an environment's units next to each other."""

    def cut(leaf: Array) -> Array:
        by_env = jnp.moveaxis(leaf, 0, 1)
        return by_env.reshape(by_env.shape[0] * num_chunks, -1, *by_env.shape[2:])

    return jax.tree.map(cut, tree)


def learn(
    learner: Learner, state: PPOState, units: Batch, indices: Int[Array, "N M"], axis_name: str | None = None
) -> tuple[PPOState, dict[str, Float[Array, ""]]]:
    """Takes a gradient step for every row of `indices`; reports means over the steps that were taken."""

    def step(state: PPOState, chosen: Array) -> tuple[PPOState, dict[str, Array]]:
        batch = jax.tree.map(lambda leaf: leaf[chosen].reshape(-1, *leaf.shape[2:]), units)
        return minibatch_step(learner, state, batch, axis_name)

    state, metrics = jax.lax.scan(step, state, indices)
    return state, mean_taken(metrics)
