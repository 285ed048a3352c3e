"""Pytrees as flat dicts of host arrays, and back: "params/critic/kernel" -> array.

Flat names make a checkpoint independent of the Python classes of the tree and let a mismatch be named.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simscaleai_jax.core import sharding
from simscaleai_jax.core.errors import suggest
from simscaleai_jax.core.jax_settings import GENERATOR


def host_arrays(tree: Any) -> dict[str, np.ndarray]:
    """Copies every leaf to the host under its flat name ("params/critic/bias"); safe against donation of the leaves."""
    arrays = {}
    for names, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        arrays[_flat_name(names)] = _host_copy(leaf)
    return arrays


def nest(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Turns flat names into nested dicts: {"a/b": x} -> {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, last = name.split("/")
        inner = tree
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = array
    return tree


def restore(arrays: Mapping[str, np.ndarray], target: Any, where: str = "checkpoint") -> Any:
    """Puts flat arrays into the structure of `target`; a ValueError names the first array that does not fit."""
    paths, structure = jax.tree_util.tree_flatten_with_path(target)
    wanted = {_flat_name(names): leaf for names, leaf in paths}
    if missing := [name for name in wanted if name not in arrays]:
        raise ValueError(f"{where} lacks {len(missing)} arrays, first {missing[0]!r}.{suggest(missing[0], arrays)}")
    if extra := [name for name in arrays if name not in wanted]:
        raise ValueError(f"{where} holds {len(extra)} arrays that are not wanted, first {extra[0]!r}.")
    return jax.tree.unflatten(structure, [_place(arrays[name], leaf, name, where) for name, leaf in wanted.items()])


def _flat_name(names: tuple) -> str:
    return jax.tree_util.keystr(names, simple=True, separator="/") or "value"


def _host_copy(leaf: Any) -> np.ndarray:
    if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        from jax.experimental import multihost_utils

        return np.array(multihost_utils.process_allgather(leaf, tiled=True))
    return np.array(leaf, copy=True)


def _place(array: np.ndarray, leaf: Any, name: str, where: str) -> Any:
    """One stored array with the shape checked and the dtype, key type and sharding of its target leaf."""
    is_key = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    shape = tuple(np.shape(leaf))
    stored = array.shape[:-1] if is_key else array.shape
    if stored != shape:
        raise ValueError(f"{where} holds {name!r} with shape {stored}, wanted {shape}.")
    value = (
        jax.random.wrap_key_data(jnp.asarray(array), impl=_key_impl(leaf))
        if is_key
        else array.astype(leaf.dtype if hasattr(leaf, "dtype") else np.result_type(leaf))
    )
    placement = getattr(leaf, "sharding", None)
    if isinstance(placement, jax.sharding.NamedSharding):
        return sharding.put(value, placement)
    return value if isinstance(leaf, np.ndarray | np.generic) else jax.device_put(value, placement)


def _key_impl(leaf: Any) -> Any:
    """The generator of a key array; a shape struct does not tell, so it means the one that this package uses."""
    return jax.random.key_impl(leaf) if isinstance(leaf, jax.Array) else GENERATOR
