"""What a model needs before it can be trained: its graph in the computing dtype, its parameters, a fitting data set."""

import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from simscaleai_jax.core.observations import colour_keys, state_keys
from simscaleai_jax.models.normalization import MIN_STD, Scaling, Statistics
from simscaleai_jax.models.record import changed_kwargs, describe
from simscaleai_jax.models.registry import find_model
from simscaleai_jax.models.specs import DataSpec
from simscaleai_jax.training.acting import LIMITS
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


def dataset_statistics(dataset: Any, scaling: Scaling | None = None) -> Statistics | None:
    """Mean and deviation of a data set's state vector, and the middle and half the range of its actions where `scaling`
    says so; None where it has no statistics, or nothing to scale.
    """
    scaling = Scaling() if scaling is None else scaling
    if not hasattr(dataset, "stats"):
        return None
    names = state_keys([key for key in dataset.obs_keys if key not in dataset.image_keys])
    if not names and not scaling.actions:
        return None
    stats = dataset.stats(names)
    mean, std = (
        np.concatenate([np.zeros(0), *(np.ravel(stats["observations"][name][part]) for name in names)])
        for part in ("mean", "std")
    )
    std = np.where(std < MIN_STD, 1.0, np.maximum(std, scaling.state_floor))
    statistics = Statistics.identity(len(std), int(np.size(stats["actions"]["mean"])))
    statistics = statistics.replace(state_mean=mean.astype(np.float32), state_std=std.astype(np.float32))
    if scaling.state_clip is not None:
        statistics = statistics.replace(state_clip=np.float32(scaling.state_clip))
    if not scaling.actions:
        return statistics
    low, high = (np.asarray(stats["actions"][part], np.float64) for part in ("min", "max"))
    half = np.where(high - low < MIN_STD, 1.0, (high - low) / 2.0)
    middle = ((high + low) / 2.0).astype(np.float32)
    return statistics.replace(action_mean=middle, action_std=half.astype(np.float32))


def action_limits(dataset: Any) -> dict[str, Any]:
    """ "low" and "high" of a policy's actions: [-1, 1] where the data's lie there, else the data's own range, (A,)."""
    if not hasattr(dataset, "stats"):
        return dict(LIMITS)
    stats = dataset.stats([])["actions"]
    low, high = (np.asarray(stats[part], np.float64) for part in ("min", "max"))
    if (np.abs([low, high]) <= 1.0).all():
        return dict(LIMITS)
    return {"low": low.tolist(), "high": high.tolist()}


def data_spec(dataset: Any) -> DataSpec:
    """What a data set offers to a model, told from one of its items."""
    item = dataset[0]
    observations, actions = item["observations"], np.asarray(item["actions"])
    states = [np.asarray(observations[name]) for name in state_keys(observations)]
    pictures = {name: np.shape(observations[name])[-3:] for name in colour_keys(observations)}
    return DataSpec(
        state_dim=sum(int(state.shape[-1]) for state in states),
        action_dim=int(actions.shape[-1]),
        action_horizon=actions.shape[0] if actions.ndim == 2 else 1,
        pictures=pictures,
        has_language="language" in item,
    )


def model_arguments(model_name: str, data: DataSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of a registered model that fit a data set; those in `given` win.

    Raises:
      ValueError: the model needs what the data set does not have.
    """
    arguments_for = getattr(find_model(model_name), "arguments_for", None)
    return ({} if arguments_for is None else arguments_for(data)) | dict(given)


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
