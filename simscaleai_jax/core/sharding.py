"""The mesh and every PartitionSpec of the project: one axis, "data"; batches are split over it, parameters are not.

One device is a mesh of one, so that no caller needs a second code path. Axis types are Auto (jax.make_mesh would
default to Explicit, which asks for shardings in types).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "data"

REPLICATED = P()
BATCH = P(AXIS)  # [B, ...]: environments and batches
TIME_BATCH = P(None, AXIS)  # [T, B, ...]: rollouts

SHARDED_MIN_SIZE = 65_536  # numbers; smaller arrays cost more to gather than their copies take room


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A 1-D mesh over `devices` (default: every device of every process), which may be those of a topology description.

    Neighbours in the mesh are neighbours in the machine; where there are several slices, one comes after the other.
    """
    devices = list(jax.devices() if devices is None else devices)
    slices: dict[int, list[Any]] = {}
    for device in devices:
        slices.setdefault(getattr(device, "slice_index", None) or 0, []).append(device)
    rows = [mesh_utils.create_device_mesh((len(part),), part) for _, part in sorted(slices.items())]
    return Mesh(np.concatenate(rows), (AXIS,), axis_types=(AxisType.Auto,))


def platform(mesh: Mesh) -> str:
    """What the mesh's devices are: "cpu", "gpu" or "tpu"."""
    found = mesh.devices.flat[0].platform
    return "gpu" if found in ("cuda", "rocm") else found


def pick_devices(device: str = "auto", count: int | None = None) -> list[Any]:
    """Devices for a documented device string: "auto", "cpu", "gpu" (or "cuda", "cuda:0"), "tpu".

    Without `count`, a CPU gives one device (XLA already uses its cores), accelerators give all of them; a run over
    several processes uses every device of every process.

    Raises:
      ValueError: an unknown or absent device, or more devices wanted than there are.
    """
    kind, _, index = device.partition(":")
    platform = {"cuda": "gpu"}.get(kind, kind)
    if platform not in ("auto", "cpu", "gpu", "tpu"):
        hint = " JAX has no backend for it that runs this package." if platform == "mps" else ""
        raise ValueError(f"Unknown device {device!r}: use 'auto', 'cpu', 'gpu' or 'tpu'.{hint}")
    try:
        devices = jax.devices() if platform == "auto" else jax.devices(platform)
    except RuntimeError as error:
        present = sorted({found.platform for found in jax.devices()})
        raise ValueError(f"No {device!r} device on this machine; found: {', '.join(present)}.") from error
    if jax.process_count() > 1:
        if index or count not in (None, len(devices)):
            raise ValueError(f"A run over {jax.process_count()} processes uses all of its {len(devices)} devices.")
        return list(devices)
    if index:
        if int(index) >= len(devices):
            raise ValueError(f"No device {device!r}: there are {len(devices)} of this kind.")
        return [devices[int(index)]]
    if count is None:
        count = 1 if devices[0].platform == "cpu" else len(devices)
    if not 1 <= count <= len(devices):
        raise ValueError(f"{count} {platform} devices wanted, {len(devices)} found.")
    return list(devices[:count])


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding that keeps a whole copy on every device."""
    return NamedSharding(mesh, REPLICATED)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding that splits the leading axis over the devices."""
    return NamedSharding(mesh, BATCH)


def parameter_spec(shape: Sequence[int], parts: int) -> P:
    """How an array of parameters, or of their optimizer state, is split when each device keeps a part of it (FSDP).

    The rule: the longest axis that `parts` divides, the last of equals; small arrays and those that no axis divides are
    copied to every device.
    """
    size = 1
    for length in shape:
        size *= length
    axes = [axis for axis, length in enumerate(shape) if length % parts == 0]
    if parts == 1 or size < SHARDED_MIN_SIZE or not axes:
        return REPLICATED
    chosen = max(axes, key=lambda axis: (shape[axis], axis))
    return P(*(AXIS if axis == chosen else None for axis in range(len(shape))))


def parameter_shardings(tree: Any, mesh: Mesh, is_split: bool) -> Any:
    """A sharding for every leaf of `tree`: whole copies, or split by `parameter_spec`."""

    def sharding(leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, parameter_spec(leaf.shape, mesh.size) if is_split else REPLICATED)

    return jax.tree.map(sharding, tree)


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """Places every leaf of `tree` on every device of the mesh."""
    return jax.tree.map(lambda leaf: put(leaf, replicated(mesh)), tree)


def put_batch(tree: Any, mesh: Mesh) -> Any:
    """Splits the leading axis of every leaf of `tree` (the global batch) over the mesh."""
    for leaf in jax.tree.leaves(tree):
        check_divisible(leaf.shape[0], mesh.size, "batch")
    return jax.tree.map(lambda leaf: put(leaf, batch_sharding(mesh)), tree)


def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """Places one array that every process holds whole, also where some devices belong to other processes."""
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = put(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def check_divisible(size: int, parts: int, what: str, parts_name: str = "devices") -> None:
    """Raises a ValueError with the nearest sizes when `size` does not split evenly into `parts`."""
    if size % parts or size < parts:
        low, high = size // parts * parts, (size // parts + 1) * parts
        nearest = f"{low} or {high}" if low else f"{high}"
        raise ValueError(f"{what} of {size} does not split evenly over {parts} {parts_name}; nearest: {nearest}.")
