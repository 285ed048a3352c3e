"""Losses over action chunks, in float32, with padding left out."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from simscaleai_jax.core.errors import unknown_name

AUXILIARY_WEIGHT = 0.5  # of what is known only in training, beside the actions

LOSSES: dict[str, Callable[[Array], Array]] = {
    "mse": jnp.square,
    "l1": jnp.abs,
    "smooth_l1": lambda error: jnp.where(jnp.abs(error) < 1.0, 0.5 * jnp.square(error), jnp.abs(error) - 0.5),
}


def error_fn(name: str) -> Callable[[Array], Array]:
    """The elementwise loss registered as `name`; a ValueError lists the choices."""
    if name not in LOSSES:
        raise unknown_name("loss_type", name, LOSSES)
    return LOSSES[name]


def target_actions(batch: Mapping[str, Any], shape: tuple[int, ...]) -> Float[Array, "*B A"]:
    """batch["actions"] as float32 of `shape`; a window of one step, (B, 1, A), also fits (B, A).

    Raises:
      ValueError: any other shape.
    """
    actions = jnp.asarray(batch["actions"], jnp.float32)
    if actions.shape != shape and actions.ndim == len(shape) + 1 and actions.shape[1] == 1:
        actions = actions[:, 0]
    if actions.shape != shape:
        raise ValueError(f"'actions' has shape {actions.shape}; the model predicts {shape}.")
    return actions


def valid_steps(batch: Mapping[str, Any], shape: tuple[int, ...]) -> Bool[Array, "..."] | None:
    """Which steps count, `shape[:-1]`: from "is_pad" (True: padding) and "mask" (True: counts), None without either.

    Raises:
      ValueError: a mask of another shape.
    """
    valid = None
    for name, flip in (("is_pad", True), ("mask", False)):
        if name not in batch:
            continue
        given = jnp.asarray(batch[name]).astype(bool)
        if given.ndim == len(shape) and given.shape[-1] == 1:
            given = given[..., 0]
        if given.shape != shape[:-1]:
            raise ValueError(f"{name!r} has shape {given.shape}; the actions {shape} want {shape[:-1]}.")
        given = ~given if flip else given
        valid = given if valid is None else valid & given
    return valid


def masked_mean(error: Float[Array, "*B A"], valid: Bool[Array, "..."] | None) -> Float[Array, ""]:
    """Mean of `error` (..., A) over the valid steps; 0 where none is valid."""
    error = error.astype(jnp.float32)
    if valid is None:
        return jnp.mean(error)
    weight = valid.astype(jnp.float32)
    return jnp.sum(error * weight[..., None]) / jnp.maximum(jnp.sum(weight) * error.shape[-1], 1.0)
