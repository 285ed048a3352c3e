"""A model as plain data: its registered name, the constructor arguments that rebuild it, its parameters by name."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from simscaleai_jax.core import flat_tree
from simscaleai_jax.core.plain import native
from simscaleai_jax.models.registry import create_model, registered_name


def describe(model: nnx.Module) -> tuple[str, dict[str, Any]]:
    """(registered name, constructor arguments that differ from their defaults); JSON values.

    Relies on every constructor argument being an attribute of the same name.

    Raises:
      ValueError: the class is not registered.
    """
    return registered_name(type(model)), changed_kwargs(model)


def changed_kwargs(model: nnx.Module) -> dict[str, Any]:
    """Constructor arguments of `model` that differ from their defaults; NumPy's values as Python's own."""
    parameters = inspect.signature(type(model).__init__).parameters
    names = [name for name in parameters if name not in ("self", "rngs")]
    if missing := [name for name in names if not hasattr(model, name)]:
        raise ValueError(f"{type(model).__name__} keeps no attribute {missing[0]!r} for its constructor argument.")
    values = {name: native(getattr(model, name)) for name in names}
    return {name: value for name, value in values.items() if value != parameters[name].default}


def all_kwargs(cls: type, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """`kwargs` with the defaults of `cls` for the arguments that are not given."""
    parameters = inspect.signature(cls.__init__).parameters
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty and name != "rngs"}
    return defaults | dict(kwargs)


def flat_parameters(model: nnx.Module) -> dict[str, np.ndarray]:
    """Copies of all parameters on the host under flat names ("action_head/layers/0/kernel")."""
    return flat_tree.host_arrays(nnx.to_pure_dict(_state(model)))


def set_parameters(model: nnx.Module, params: Mapping[str, Any], where: str = "parameters") -> None:
    """Puts parameters, flat or nested by name, into `model`.

    Raises:
      ValueError: one is missing, left over, or of another shape; the message names it.
    """
    state = _state(model)
    restored = flat_tree.restore(flat_tree.host_arrays(dict(params)), nnx.to_pure_dict(state), where)
    nnx.replace_by_pure_dict(state, restored)
    nnx.update(model, state)


def rebuild_model(model_name: str, model_kwargs: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
    """The model that a checkpoint of kind "model" holds, in eval mode."""
    model = create_model(model_name, **model_kwargs)
    set_parameters(model, params, f"The {model_name!r} checkpoint")
    model.eval()
    return model


def _state(model: nnx.Module) -> Any:
    return nnx.state(model, nnx.Not(nnx.RngState))
