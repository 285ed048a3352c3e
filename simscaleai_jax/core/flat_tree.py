"""Pytrees as flat dicts of arrays, and back: "params/critic/kernel" -> array.

Flat names make a checkpoint independent of the Python classes of the tree and let a mismatch be named.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simscaleai_jax.core import sharding
from simscaleai_jax.core.checkpoint_files import Piece, Snapshot, StoredArray
from simscaleai_jax.core.errors import suggest
from simscaleai_jax.core.jax_settings import GENERATOR


def host_arrays(tree: Any) -> dict[str, np.ndarray]:
    """Copies every leaf to the host under its flat name ("params/critic/bias"); safe against donation of the leaves."""
    arrays = {}
    for names, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        arrays[_flat_name(names)] = _host_copy(leaf)
    return arrays


def snapshot(tree: Any) -> Snapshot:
    """Copies this process's share of every leaf to the host; of copies on several devices, the first one's.

    The copies are safe against donation of the leaves, and no process holds more than its devices do.
    """
    leaves = {_flat_name(names): _plain(leaf) for names, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
    for leaf in leaves.values():
        if isinstance(leaf, jax.Array):
            for shard in _own_shards(leaf):
                shard.data.copy_to_host_async()
    arrays = {name: {"shape": list(leaf.shape), "dtype": str(leaf.dtype)} for name, leaf in leaves.items()}
    return Snapshot(arrays, [piece for name, leaf in leaves.items() for piece in _pieces(name, leaf)])


def _plain(leaf: Any) -> Any:
    """A leaf as an array of numbers: keys as their data, Python numbers as arrays."""
    if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def _own_shards(leaf: jax.Array) -> list[Any]:
    return [shard for shard in leaf.addressable_shards if shard.replica_id == 0]


def _pieces(name: str, leaf: Any) -> list[Piece]:
    if leaf.size == 0:
        return []
    if not isinstance(leaf, jax.Array):
        is_writer = jax.process_index() == 0
        return [Piece(name, (0,) * leaf.ndim, leaf.shape, np.array(leaf, copy=True))] if is_writer else []
    pieces = []
    for shard in _own_shards(leaf):
        bounds = [part.indices(size)[:2] for part, size in zip(shard.index, leaf.shape, strict=True)]
        is_copied = shard.device.platform != "cpu"  # elsewhere NumPy sees the device's own memory, which may be donated
        data = np.asarray(shard.data) if is_copied else np.array(shard.data, copy=True)
        pieces.append(Piece(name, tuple(low for low, _ in bounds), tuple(high for _, high in bounds), data))
    return pieces


def nest(values: Mapping[str, Any], separator: str = "/") -> dict[str, Any]:
    """Turns flat names into nested dicts: {"a/b": x} -> {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *parents, last = name.split(separator)
        inner = tree
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return tree


def restore(arrays: Mapping[str, Any], target: Any, where: str = "checkpoint") -> Any:
    """Puts flat arrays, stored ones too, into the structure of `target`; each process reads what its devices hold.

    Raises:
      ValueError: an array does not fit; the first one is named.
    """
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


def _place(array: Any, leaf: Any, name: str, where: str) -> Any:
    """One stored array with the shape checked and the dtype, key type and sharding of its target leaf."""
    is_key = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    shape = tuple(np.shape(leaf))
    stored = array.shape[:-1] if is_key else array.shape
    if stored != shape:
        raise ValueError(f"{where} holds {name!r} with shape {stored}, wanted {shape}.")
    placement = getattr(leaf, "sharding", None)
    is_spread = isinstance(placement, jax.sharding.NamedSharding)
    if is_spread and isinstance(array, StoredArray):
        numbers = _read_shares(array, placement, array.dtype if is_key else leaf.dtype)
        return jax.random.wrap_key_data(numbers, impl=_key_impl(leaf)) if is_key else numbers
    array = np.asarray(array)
    value = (
        jax.random.wrap_key_data(jnp.asarray(array), impl=_key_impl(leaf))
        if is_key
        else array.astype(leaf.dtype if hasattr(leaf, "dtype") else np.result_type(leaf))
    )
    if is_spread:
        return sharding.put(value, placement)
    return value if isinstance(leaf, np.ndarray | np.generic) else jax.device_put(value, placement)


def _read_shares(array: StoredArray, placement: jax.sharding.NamedSharding, dtype: Any) -> jax.Array:
    """Reads for every device of this process what it is to hold, and no more; copies are read once.

    One share at a time: all of an array's on the host beside those on the devices would be twice what is held.
    """
    wanted: dict[str, tuple[Any, list[Any]]] = {}
    for device, index in placement.addressable_devices_indices_map(array.shape).items():
        wanted.setdefault(str(index), (index, []))[1].append(device)
    shares: list[jax.Array] = []
    for index, devices in wanted.values():
        share = array.read(index).astype(dtype, copy=False)
        shares += [jax.block_until_ready(jax.device_put(share, device)) for device in devices]
    return jax.make_array_from_single_device_arrays(array.shape, placement, shares)


def _key_impl(leaf: Any) -> Any:
    """The generator of a key array; a shape struct does not tell, so it means the one that this package uses."""
    return jax.random.key_impl(leaf) if isinstance(leaf, jax.Array) else GENERATOR
