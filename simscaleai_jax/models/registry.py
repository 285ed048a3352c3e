"""Names for models: `create_model("bc", state_dim=20)` builds what `@register_model("bc")` decorates.

The built-in models register themselves when their modules are imported; every function here imports them first, so that
a user's own registration can neither hide nor replace them.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from simscaleai_jax.core.errors import check_names, unknown_name
from simscaleai_jax.core.plain import native

BUILT_IN = {
    "act": "simscaleai_jax.models.act",
    "bc": "simscaleai_jax.models.bc",
    "diffusion": "simscaleai_jax.models.generative_policy",
    "flow": "simscaleai_jax.models.generative_policy",
    "vla": "simscaleai_jax.models.vla",
}

_classes: dict[str, type] = {}


def register_model(name: str) -> Callable[[type], type]:
    """Class decorator that makes `create_model(name, **kwargs)` build the class.

    The class keeps every constructor argument as an attribute of the same name, and `forward(batch, *, key=None)`
    returns a dict with "predicted_actions" and, when the batch holds actions, "loss".

    Raises:
      ValueError: another class already has the name (running the same definition again replaces it).
    """

    def decorate(cls: type) -> type:
        known = _classes.get(name)
        if known is None and name in BUILT_IN and cls.__module__ != BUILT_IN[name]:
            known = _lookup(name)
        if known is not None and _identity(known) != _identity(cls):
            raise ValueError(
                f"Model name {name!r} is taken by {_identity(known)}; register {_identity(cls)} as another."
            )
        _classes[name] = cls
        return cls

    return decorate


def create_model(name: str, **kwargs: Any) -> Any:
    """Builds the model registered as `name`; NumPy's numbers and members of an enumeration count as what they hold.

    Raises:
      ValueError: unknown name or argument; the message lists the valid ones.
    """
    cls = find_model(name)
    check_arguments(name, cls, kwargs)
    return cls(**native(kwargs))


def find_model(name: str) -> type:
    """The class registered as `name`; an unknown name is a ValueError with the names there are."""
    return _lookup(name)


def check_arguments(name: str, cls: type, given: Iterable[str]) -> None:
    """Raises a ValueError for names that are no arguments of the constructor of `cls`, the model called `name`."""
    parameters = dict(list(inspect.signature(cls.__init__).parameters.items())[1:])
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
        check_names(f"argument of model {name!r}:", given, parameters)


def list_models() -> list[str]:
    """Sorted names of the built-in and the user's models."""
    return sorted({*BUILT_IN, *_classes})


def describe_models() -> dict[str, str]:
    """name -> first line of the class's docstring ("" where it has none), in the order of `list_models`."""
    return {name: ((_lookup(name).__doc__ or "").strip().splitlines() or [""])[0] for name in list_models()}


def model_class(name: str) -> type:
    """The class registered as `name`; a ValueError where there is none."""
    return _lookup(name)


def registered_name(cls: type) -> str:
    """The name under which `cls` is registered; a ValueError when it is not."""
    for name in list_models():
        if _lookup(name) is cls:
            return name
    raise ValueError(f"{_identity(cls)} is not a registered model. Available: {', '.join(list_models())}.")


class ModelRegistry:
    """The same three functions under one name."""

    register = staticmethod(register_model)
    create = staticmethod(create_model)
    list = staticmethod(list_models)


def _lookup(name: str) -> type:
    if name not in _classes and name in BUILT_IN:
        importlib.import_module(BUILT_IN[name])
    if name not in _classes:
        raise unknown_name("model", name, list_models())
    return _classes[name]


def _identity(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
