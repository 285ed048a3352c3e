"""One update as a pure function: loss -> gradient -> AdamW -> average; and many of them in one call to the device.

Under `jit` over a mesh, batches are split over the data axis and the compiler adds the reduction of the gradients; a
batch on eight devices gives the update that it gives on one.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct
from jax.sharding import Mesh
from jaxtyping import Array

from simscaleai_jax.core import sharding
from simscaleai_jax.core.streams import Stream, seed_key
from simscaleai_jax.models.normalization import Statistics
from simscaleai_jax.training.config import TrainConfig
from simscaleai_jax.training.optimizer import learning_rate, make_optimizer

Metrics = dict[str, Array]
LossFn = Callable[[Any, Any, Array | None], tuple[Array, Metrics]]


class TrainState(struct.PyTreeNode):
    """All that changes during training; fields are untyped because a tree of this kind may hold shardings.

    Attributes:
      step: [] int32 updates done.
      params: weights, nested dict.
      opt_state: AdamW's moments.
      ema_params: averaged weights like `params`, or None.
      key: PRNG key from which every update folds its own.
    """

    step: Any
    params: Any
    opt_state: Any
    ema_params: Any
    key: Any


def init_state(params: Any, config: TrainConfig) -> TrainState:
    """The state before the first update."""
    return TrainState(
        step=jnp.int32(0),
        params=params,
        opt_state=make_optimizer(config).init(params),
        ema_params=None if config.ema_decay is None else jax.tree.map(jnp.array, params),
        key=seed_key(config.seed, Stream.UPDATES),
    )


def make_loss_fn(
    graphdef: Any,
    statistics: Statistics | None,
    remat: bool = False,
    mesh: Mesh | None = None,
    keep_gathered: bool = False,
) -> LossFn:
    """Builds loss(params, batch, key) -> (loss, scalar outputs); without a key there is no dropout.

    `mesh`: over which large parameters are split; None where every device has whole ones. `keep_gathered`: layers that
    are recomputed keep their matrices for it.
    """

    def forward(params: Any, batch: Mapping[str, Any], key: Array | None) -> tuple[Array, Metrics]:
        with sharding.gathering(mesh, keep_gathered):
            model = nnx.merge(graphdef, nnx.State(sharding.whole(params)))
            outputs = model.forward(batch, key=key)
        numbers = {name: value for name, value in outputs.items() if jnp.ndim(value) == 0}
        return outputs["loss"], numbers

    if remat:
        forward = jax.checkpoint(forward, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)

    def loss_fn(params: Any, batch: Mapping[str, Any], key: Array | None) -> tuple[Array, Metrics]:
        return forward(params, batch if statistics is None else statistics.normalize_batch(batch), key)

    return loss_fn


def make_update(loss_fn: LossFn, config: TrainConfig) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """Builds update(state, batch) -> (state, metrics), pure."""
    optimizer = make_optimizer(config)

    def update(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        grads, metrics = gradients(loss_fn, state.params, batch, key, config.grad_accum_steps)
        rate = learning_rate(config, state.step)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda param, change: param - rate * change, state.params, updates)
        metrics |= {"grad_norm": optax.tree.norm(grads), "learning_rate": rate}
        averaged = _average(state.ema_params, params, state.step, config.ema_decay)
        new = state.replace(step=state.step + 1, params=params, opt_state=opt_state, ema_params=averaged)
        return new, metrics

    return update


def gradients(loss_fn: LossFn, params: Any, batch: Any, key: Array, parts: int = 1) -> tuple[Any, Metrics]:
    """Mean gradient and metrics of a batch, computed in `parts` slices one after the other.

    Slices are weighted by their steps that are not padding, so that their mean is the whole batch's. Rows are dealt out
    in turn: a slice of a batch that is split over devices stays split over them.
    """
    grad_fn = jax.grad(loss_fn, has_aux=True)
    if parts == 1:
        return grad_fn(params, batch, key)
    slices = jax.tree.map(lambda leaf: jnp.moveaxis(leaf.reshape(-1, parts, *leaf.shape[1:]), 1, 0), batch)

    def one(total: Any, inputs: tuple[Any, Array]) -> tuple[Any, None]:
        part, index = inputs
        weight = valid_count(part, 1)
        found = grad_fn(params, part, jax.random.fold_in(key, index))
        return jax.tree.map(lambda a, b: a + weight * b, total, (found, jnp.float32(1.0))), None

    first = jax.tree.map(lambda leaf: leaf[0], slices)
    shapes = jax.eval_shape(lambda: (grad_fn(params, first, key), jnp.float32(1.0)))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (total, weight), _ = jax.lax.scan(one, zeros, (slices, jnp.arange(parts)))
    return jax.tree.map(lambda leaf: leaf / jnp.maximum(weight, 1.0), total)


def valid_count(batch: Mapping[str, Any], everything: float) -> Array:
    """Steps of a batch that count, or `everything` where all do."""
    if "is_pad" in batch:
        return jnp.sum(~batch["is_pad"].astype(bool)).astype(jnp.float32)
    if "mask" in batch:
        return jnp.sum(batch["mask"].astype(bool)).astype(jnp.float32)
    return jnp.float32(everything)


def _average(averaged: Any, params: Any, step: Array, decay: float | None) -> Any:
    """Exponential average that starts as a plain one: the decay rises to its value over the first updates."""
    if decay is None:
        return None
    rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: rate * old + (1.0 - rate) * new, averaged, params)


def add_metrics(totals: Metrics, metrics: Metrics) -> Metrics:
    """Sums for the log, kept on the device; the learning rate is the latest."""
    return {
        name: metrics[name].astype(jnp.float32) if name == "learning_rate" else totals[name] + metrics[name]
        for name in totals
    }


def make_single(update: Callable) -> Callable[[TrainState, Metrics, Any], tuple[TrainState, Metrics]]:
    """One update on a batch from the host: step(state, totals, batch) -> (state, totals)."""

    def step(state: TrainState, totals: Metrics, batch: Any) -> tuple[TrainState, Metrics]:
        state, metrics = update(state, batch)
        return state, add_metrics(totals, metrics)

    return step


def make_many(update: Callable, batch_at: Callable) -> Callable[..., tuple[TrainState, Metrics]]:
    """Many updates on data that lives on the device: run(state, totals, first_batch, count, data)."""

    def run(state: TrainState, totals: Metrics, first: Array, count: Array, data: Any) -> tuple[TrainState, Metrics]:
        def body(i: Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            state, metrics = update(carry[0], batch_at(data, first + i))
            return state, add_metrics(carry[1], metrics)

        return jax.lax.fori_loop(0, count, body, (state, totals))

    return run
