"""Values as a file can keep them: NumPy's and JAX's numbers, paths and enumerations become Python's own."""

import dataclasses
import enum
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

SAVABLE = "wanted finite numbers, text, None, paths, enumerations, and lists and mappings of them"


def native(value: Any) -> Any:
    """Python's own value for scalars and arrays (lists, then) of NumPy and JAX and for members of an enumeration.

    Lists, tuples and mappings are searched; anything else comes back as it is.
    """
    if isinstance(value, enum.Enum):
        return native(value.value)
    if _is_array(value):
        listed = _listed(value)
        return listed if _is_array(listed) else native(listed)
    if isinstance(value, Mapping):
        return {native(key): native(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(native(item) for item in value)
    return value


def plain(value: Any, where: str) -> Any:
    """`value` as JSON holds it: dataclasses and mappings as dicts, sequences as lists, paths as text.

    Raises:
      ValueError: something that JSON cannot hold; the message names its place, which begins with `where`.
    """
    value = native(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return {name: plain(getattr(value, name), _join(where, name)) for name in fields}
    if isinstance(value, Mapping):
        return {str(key): plain(item, _join(where, str(key))) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, PurePath):
        return str(value)
    is_savable = value is None or isinstance(value, bool | int | str)
    if not is_savable and not (isinstance(value, float) and math.isfinite(value)):
        kind = "" if isinstance(value, float) else f" ({type(value).__name__})"
        raise ValueError(f"{where} is {value!r}{kind}, which no file can keep; {SAVABLE}.")
    return value


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _is_array(value: Any) -> bool:
    return not isinstance(value, type) and all(hasattr(value, name) for name in ("__array__", "dtype", "tolist"))


def _listed(array: Any) -> Any:
    """Nested lists of an array, a number of a scalar; the array itself where its entries are no numbers (PRNG keys)."""
    try:
        return array.tolist()
    except (AttributeError, TypeError, NotImplementedError):
        return array
