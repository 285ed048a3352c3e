"""What a model needs before it can be trained: its graph in the computing dtype, its parameters, a fitting data set."""

import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from simscaleai_jax.core.observations import image_keys, state_keys
from simscaleai_jax.models.normalization import MIN_STD, Statistics
from simscaleai_jax.models.record import changed_kwargs, describe
from simscaleai_jax.training.config import TrainConfig


def split_model(model: nnx.Module, config: TrainConfig, platform: str = "cpu") -> tuple[Any, Any, Any]:
    """(graph for training, graph for evaluation, parameters as nested dict).

    The graphs compute in the config's dtype on `platform`; with `remat` they recompute layer by layer where the model
    can.

    Raises:
      ValueError: the module keeps state that is not parameters (batch statistics, generators).
    """
    _, params, rest = nnx.split(model, nnx.Param, ...)
    if leaves := jax.tree.leaves(rest):
        raise ValueError(
            f"{type(model).__name__} keeps {len(leaves)} arrays that are not parameters (batch statistics or random "
            "generators); Trainer trains modules whose state is nnx.Param, and hands `key` to forward()."
        )
    computing = _rebuilt(model, config, platform)
    computing.train()
    training = nnx.graphdef(computing)
    computing.eval()
    evaluation = nnx.graphdef(computing)
    return training, evaluation, nnx.to_pure_dict(params)


def describe_any(model: nnx.Module) -> tuple[str, dict[str, Any]]:
    """(registered name, constructor arguments); for a class that is not registered its own name and nothing."""
    try:
        return describe(model)
    except ValueError as error:
        logging.getLogger(__name__).warning("Checkpoints will not rebuild the model by themselves: %s", error)
        return f"{type(model).__module__}.{type(model).__qualname__}", {}


def recomputes_layers(model: nnx.Module) -> bool:
    """Whether the model has a `remat` argument of its own."""
    return hasattr(model, "remat")


def check_fit(update: Any, state: Any, batch: Any, model_name: str, where: str = "") -> dict[str, jax.ShapeDtypeStruct]:
    """Traces one update without computing; returns the shapes of its metrics.

    Raises:
      ValueError: keys or sizes of the data and the model differ; the message names both.
    """
    try:
        return jax.eval_shape(update, state, batch)[1]
    except ValueError as error:
        shapes = {name: tuple(leaf.shape[1:]) for name, leaf in batch["observations"].items()}
        actions = tuple(batch["actions"].shape[1:]) if "actions" in batch else None
        raise ValueError(
            f"The data set {where or 'given'} does not fit the model {model_name!r}: {error} "
            f"The data set has observations {shapes} and actions {actions}."
        ) from error


def dataset_statistics(dataset: Any) -> Statistics | None:
    """Mean and deviation of a data set's state vector; None where it has no states or knows no statistics."""
    if not hasattr(dataset, "stats"):
        return None
    names = state_keys(key for key in dataset.obs_keys if key not in dataset.image_keys)
    if not names:
        return None
    stats = dataset.stats(names)
    joined = {
        part: np.concatenate([np.asarray(stats["observations"][name][part], np.float64).ravel() for name in names])
        for part in ("mean", "std")
    }
    std = np.where(joined["std"] < MIN_STD, 1.0, joined["std"])
    identity = Statistics.identity(len(std), int(np.size(stats["actions"]["mean"])))
    return identity.replace(state_mean=joined["mean"].astype(np.float32), state_std=std.astype(np.float32))


def model_kwargs_for(model_name: str, item: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of a built-in model that fit a data set's item; those in `given` win."""
    observations, actions = item["observations"], np.asarray(item["actions"])
    states = [np.asarray(observations[name]) for name in state_keys(observations)]
    images = [np.asarray(observations[name]) for name in image_keys(observations)]
    found: dict[str, Any] = {"state_dim": sum(int(state.shape[-1]) for state in states)}
    found["action_dim"] = int(actions.shape[-1])
    if images:
        found |= {"image_size": int(images[0].shape[-2])}
    if model_name == "bc":
        found |= {"use_image": bool(images)}
        found |= {"image_channels": int(images[0].shape[-3])} if images else {}
    elif model_name == "vla":
        found |= {"use_language": "language" in item, "action_horizon": actions.shape[0] if actions.ndim == 2 else 1}
        found |= {"in_channels": int(images[0].shape[-3])} if images else {}
    else:
        found = {}
    return found | dict(given)


def _rebuilt(model: nnx.Module, config: TrainConfig, platform: str) -> nnx.Module:
    """The model's structure with the config's computing dtype and remat; the model itself where nothing changes."""
    dtype = config.compute_dtype_on(platform)
    wanted: dict[str, Any] = {"dtype": dtype} if dtype != "float32" else {}
    if config.remat and recomputes_layers(model):
        wanted["remat"] = True
    wanted = {name: value for name, value in wanted.items() if getattr(model, name, value) != value or name == "dtype"}
    if not wanted:
        return model
    if missing := [name for name in wanted if not hasattr(model, name)]:
        logging.getLogger(__name__).warning(
            "%s has no argument %r; it computes in float32.", type(model).__name__, missing[0]
        )
        return model
    kwargs = changed_kwargs(model) | wanted
    return nnx.eval_shape(lambda: type(model)(**kwargs))
