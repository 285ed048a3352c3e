"""YAML files and dicts to dataclasses and back; unknown keys fail with the nearest valid name.

Values are checked against the field's annotation: an int is accepted for a float, "3e-4" (which YAML 1.1 reads as a
string) for a number, a list for a tuple, a path for a string, and NumPy's numbers and arrays, JAX's and members of an
enumeration for what they hold (`core.plain`); anything else of the wrong type is a ValueError that names the field.
"""

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, TypeVar

from simscaleai_jax.core.errors import check_names
from simscaleai_jax.core.plain import native, plain

T = TypeVar("T")  # not a type parameter: the data-set modules are also read by Python 3.11, where torch is tested


def load_yaml(path: str | Path, cls: type[T], overrides: Mapping[str, Any] | None = None) -> T:
    """Builds `cls` from a YAML file, then applies `overrides` (keys may be dotted: "ppo.lr").

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a mapping, not YAML, or a key or value that `cls` does not take.
    """
    config = from_dict(cls, read_yaml(path), where=f"{path}: ")
    return apply_overrides(config, overrides or {})


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML mapping; an empty file is an empty mapping."""
    import yaml

    path = Path(path).expanduser()
    if not path.is_file():
        nearby = sorted(str(other) for other in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f" Files there: {', '.join(nearby)}." if nearby else ""
        raise FileNotFoundError(f"Config file {str(path)!r} does not exist.{hint}")
    try:
        values = yaml.load(path.read_text(), Loader=_loader())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of field names to values, got {type(values).__name__}.")
    return values


@functools.cache
def _loader() -> type:
    """YAML's safe loader, which refuses a key that stands twice in one mapping."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[Any] = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if key in seen:
                    line = key_node.start_mark.line + 1
                    raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice (again in line {line})")
                seen.add(key)
            return super().construct_mapping(node, deep)

    return Loader


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Builds the dataclass `cls` (nested dataclasses too) from a mapping; missing keys keep their defaults."""
    fields = init_fields(cls)
    try:
        check_names(f"{cls.__name__} field", values, fields)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None
    hints = _hints(cls)
    return cls(**{name: _convert(hints[name], value, f"{where}{name}") for name, value in values.items()})


def settle(config: Any) -> None:
    """Converts every field of a config dataclass to what its annotation says; the first line of `__post_init__`.

    What a sweep hands over (NumPy's numbers, arrays, paths, enumerations) is then what a file would have said, so that
    it is compared, compiled and saved like that.

    Raises:
      ValueError: a value of another type; the message names class and field.
    """
    cls = type(config)
    for name in init_fields(cls):
        value = _convert(_hints(cls)[name], getattr(config, name), f"{cls.__name__}.{name}")
        object.__setattr__(config, name, value)


def to_dict(config: Any) -> dict[str, Any]:
    """Turns a dataclass into plain dicts, lists and scalars that YAML and JSON can hold; `from_dict` inverts it.

    Raises:
      ValueError: a value that no file can keep; the message names class and field.
    """
    cls = type(config)
    return {name: plain(getattr(config, name), f"{cls.__name__}.{name}") for name in init_fields(cls)}


def apply_overrides(config: T, overrides: Mapping[str, Any]) -> T:
    """Returns `config` with fields replaced; a dotted key reaches into a nested dataclass or dict."""
    if not overrides:
        return config
    values = to_dict(config)
    for name, value in overrides.items():
        *parents, last = name.split(".")
        inner = values
        for parent in parents:
            check_names("config field", [parent], inner)
            inner = inner[parent]
        inner[last] = plain(value, name)
    return from_dict(type(config), values)


def init_fields(cls: type) -> dict[str, dataclasses.Field]:
    """Fields of the dataclass `cls` that its constructor takes, by name."""
    return {field.name: field for field in dataclasses.fields(cls) if field.init}


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Converts one value to the type that its field's annotation asks for."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _convert_enum(hint, value, where)
    value = native(value)
    if hint is Any:
        return value
    if origin is typing.Annotated:
        return _convert(args[0], value, where)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, value, where)
    if origin is typing.Literal:
        if value not in args:
            raise ValueError(f"{where} must be one of {', '.join(map(repr, args))}; got {value!r}.")
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _convert_dataclass(hint, value, where)
    if origin in (list, tuple):
        return _convert_sequence(origin, args, value, where)
    if origin in (dict, Mapping):
        return _convert_mapping(args, value, where)
    return _convert_scalar(hint, value, where)


def _convert_dataclass(cls: type, value: Any, where: str) -> Any:
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a mapping of {cls.__name__} fields; got {value!r}.")
    return from_dict(cls, value, where=f"{where}.")


def _convert_union(args: tuple, value: Any, where: str) -> Any:
    """Takes the first member that fits; None and exact types come before conversions."""
    if value is None and type(None) in args:
        return None
    members = [arg for arg in args if arg is not type(None)]
    exact = [arg for arg in members if isinstance(arg, type) and type(value) is arg]
    failure = ValueError(f"{where} has no type that a value can have.")
    for member in exact + members:
        try:
            return _convert(member, value, where)
        except ValueError as error:
            failure = error
    raise failure


def _convert_sequence(kind: type, args: tuple, value: Any, where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where} must be a list; got {value!r}.")
    if kind is list or (len(args) == 2 and args[1] is Ellipsis):
        hints = [args[0] if args else Any] * len(value)
    elif args and len(args) != len(value):
        raise ValueError(f"{where} must hold {len(args)} values; got {len(value)}: {value!r}.")
    else:
        hints = list(args) or [Any] * len(value)
    return kind(_convert(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(zip(hints, value, strict=True)))


def _convert_mapping(args: tuple, value: Any, where: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a mapping; got {value!r}.")
    key_hint, hint = args
    return {
        _convert(key_hint, key, f"{where} key"): _convert(hint, item, f"{where}[{key!r}]")
        for key, item in value.items()
    }


def _convert_enum(kind: type[enum.Enum], value: Any, where: str) -> enum.Enum:
    if isinstance(value, kind):
        return value
    try:
        return kind(native(value))
    except ValueError:
        raise ValueError(f"{where} must be one of {', '.join(repr(m.value) for m in kind)}; got {value!r}.") from None


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    wrong = ValueError(f"{where} must be {getattr(hint, '__name__', hint)}; got {value!r}.")
    if hint is bool and not isinstance(value, bool):
        raise wrong
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (int, float):
        try:
            number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
        except ValueError:
            raise wrong from None
        if number is None or (hint is int and not number.is_integer()):
            raise wrong
        return hint(number)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is str and isinstance(value, PurePath):
        return str(value)
    if isinstance(hint, type) and not isinstance(value, hint):
        raise wrong
    return value
