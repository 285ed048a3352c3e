"""AdamW with clipping, and its learning rate: linear warm-up, then a half cosine."""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from simscaleai_jax.training.config import TrainConfig


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
    """Global-norm clipping, Adam, decoupled weight decay; the caller applies the learning rate."""
    steps: list[Any] = [optax.clip_by_global_norm(config.grad_clip)] if config.grad_clip else []
    return optax.chain(*steps, optax.scale_by_adam(eps=1e-8), optax.add_decayed_weights(config.weight_decay))
