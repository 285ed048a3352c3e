"""AdamW with clipping, and its learning rate: linear warm-up, then a half cosine."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from simscaleai_jax.training.config import TrainConfig

# Parts of the names of parameters that weight decay leaves alone; the last three are learned vectors of ACT.
SPARED = ("bias", "scale", "embed", "token", "queries", "places", "first")


def learning_rate(config: TrainConfig, step: Int[Array, ""] | int) -> Float[Array, ""]:
    """Rate of update number `step`, counted from 0.

    (step + 1) / W of the peak during warm-up, W = warmup_steps; the peak at step W; then a half cosine to
    min_lr_ratio at max_steps. Without warm-up it starts at the peak; with W = max_steps there is no cosine.
    """
    step = jnp.asarray(step, jnp.float32)
    warmup, decay = config.warmup_steps, max(config.max_steps - config.warmup_steps, 1)
    progress = jnp.clip((step - warmup) / decay, 0.0, 1.0)
    cosine = config.min_lr_ratio + (1.0 - config.min_lr_ratio) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    rising = (step + 1.0) / max(warmup, 1)
    return config.lr * jnp.where(step < warmup, rising, cosine)


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Global-norm clipping, Adam, decoupled weight decay of matrices; the caller applies the learning rate."""
    steps: list[Any] = [optax.clip_by_global_norm(config.grad_clip)] if config.grad_clip else []
    return optax.chain(
        *steps, optax.scale_by_adam(eps=1e-8), optax.add_decayed_weights(config.weight_decay, is_decayed)
    )


def is_decayed(params: Any) -> Any:
    """Which parameters weight decay shrinks, as a tree of bools: kernels of linear layers and convolutions.

    Biases, scales of norms and learned vectors (embeddings, tokens) are spared; so is any vector.
    """

    def matters(path: tuple, leaf: Any) -> bool:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return leaf.ndim > 1 and not any(word in name for word in SPARED)

    return jax.tree_util.tree_map_with_path(matters, params)
