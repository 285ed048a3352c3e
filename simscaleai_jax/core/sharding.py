"""The mesh and every PartitionSpec of the project: one axis, "data"; batches are split over it, parameters are not.

One device is a mesh of one, so that no caller needs a second code path. Axis types are Auto (jax.make_mesh would
default to Explicit, which asks for shardings in types).

Where large parameters are split, too (FSDP), the mesh has an axis for every dimension of a TPU slice's grid, and
batches and parameters are split over all of them: along one dimension at a time a TPU scatters sums and gathers parts;
over two at once its compiler reduces whole copies, twice the bytes.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "data"

REPLICATED = P()
BATCH = P(AXIS)  # [B, ...]: environments and batches
TIME_BATCH = P(None, AXIS)  # [T, B, ...]: rollouts

SLICE = "slice"  # axis over slices, which a slower network connects: parameters are not split over it
GRID = ("x", "y", "z", "core")  # axes over the chips of a slice, and over their cores

SHARDED_MIN_SIZE = 65_536  # numbers; smaller matrices cost more to gather than their copies take room
TILE = (8, 128)  # in which a TPU keeps float32 matrices
MAX_PADDING = 2  # times the room of the numbers that a part may take

KEPT = "gathered parameters"  # name under which a rematerialized function may save them

_gathering: ContextVar[tuple[Mesh, bool] | None] = ContextVar("gathering", default=None)


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


def make_grid(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh for split parameters: an axis for every dimension of the devices' grid, where they have one; otherwise as
    `make_mesh`.
    """
    devices = list(jax.devices() if devices is None else devices)
    if not all(hasattr(device, "coords") for device in devices):
        return make_mesh(devices)
    places = [(getattr(device, "slice_index", None) or 0, *device.coords, device.core_on_chip) for device in devices]
    sizes = [len(set(along)) for along in zip(*places, strict=True)]
    axes = [(name, size) for name, size in zip((SLICE, *GRID), sizes, strict=True) if size > 1]
    if math.prod(sizes) != len(devices) or len(axes) < 2:
        return make_mesh(devices)
    order = sorted(range(len(devices)), key=places.__getitem__)
    grid = np.array([devices[i] for i in order]).reshape([size for _, size in axes])
    return Mesh(grid, [name for name, _ in axes], axis_types=(AxisType.Auto,) * len(axes))


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
    return NamedSharding(mesh, BATCH if mesh.axis_names == (AXIS,) else P(mesh.axis_names))


def parameter_spec(shape: Sequence[int], parts: int, axes: str | tuple[str, ...] = AXIS) -> P:
    """How an array of parameters, or of their optimizer state, is split into `parts` over the mesh's `axes` (FSDP).

    Matrices are split, and stacks of them within each matrix, along the axis whose parts fill most of a TPU's tiles;
    all others, small ones, and those whose parts would be mostly padding, are copied to every device.
    """
    if len(shape) not in (2, 3) or parts == 1 or math.prod(shape[-2:]) < SHARDED_MIN_SIZE:
        return REPLICATED
    rows, columns = shape[-2:]
    by_rows = _padded(rows // parts, columns) if rows % parts == 0 else math.inf
    by_columns = _padded(rows, columns // parts) if columns % parts == 0 else math.inf
    if min(by_rows, by_columns) * parts > MAX_PADDING * rows * columns:
        return REPLICATED
    matrix = (axes, None) if by_rows <= by_columns else (None, axes)
    return P(*(None,) * (len(shape) - 2), *matrix)


def split_axes(mesh: Mesh) -> tuple[str, ...]:
    """The axes over which parameters are split."""
    return tuple(name for name in mesh.axis_names if name != SLICE)


def _spec_on(mesh: Mesh, shape: Sequence[int], axes: tuple[str, ...]) -> P:
    """`parameter_spec` over some of the axes of a mesh, of an array that is split over all of them."""
    every = split_axes(mesh)
    spec = parameter_spec(shape, math.prod(mesh.shape[name] for name in every), every)
    if len(axes) == len(every):
        return spec
    return P(*(None if part is None else axes or None for part in spec))


def _padded(rows: int, columns: int) -> int:
    return math.ceil(rows / TILE[0]) * TILE[0] * math.ceil(columns / TILE[1]) * TILE[1]


def parameter_shardings(tree: Any, mesh: Mesh, is_split: bool) -> Any:
    """A sharding for every leaf of `tree`: whole copies, or split by `parameter_spec`."""

    def sharding(leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, _spec_on(mesh, leaf.shape, split_axes(mesh)) if is_split else REPLICATED)

    return jax.tree.map(sharding, tree)


@contextmanager
def gathering(mesh: Mesh | None, is_kept: bool = False) -> Iterator[None]:
    """Within it `whole` gathers what `parameter_spec` splits over this mesh; None: nothing is split.

    `is_kept`: layers that are recomputed in the backward pass keep their gathered matrices, under the name KEPT.
    """
    token = _gathering.set(None if mesh is None else (mesh, is_kept))
    try:
        yield
    finally:
        _gathering.reset(token)


def whole(tree: Any, dtype: Any = None) -> Any:
    """Parameters as they are computed with: split matrices are gathered here, and their gradients are summed onto the
    devices that own the parts. A stack of layers is left alone: its layers are gathered one by one, where they run.

    `dtype`: that in which a layer multiplies, and so in which its matrices are kept where they are.
    """
    gathering = _gathering.get()
    if gathering is None:
        return tree
    mesh, is_kept = gathering

    def gather(leaf: Any) -> Any:
        is_stack = leaf.ndim == 3 and leaf.shape[0] > 1
        is_split = _spec_on(mesh, leaf.shape, split_axes(mesh)) != REPLICATED
        if not is_split or is_stack:
            return leaf
        if is_kept and dtype is not None:
            return checkpoint_name(_gathered(leaf.astype(dtype), mesh), KEPT)
        return _gathered(leaf, mesh)

    return jax.tree.map(gather, tree)


def _gathered(leaf: Any, mesh: Mesh) -> Any:
    axes = split_axes(mesh)
    steps = [NamedSharding(mesh, _spec_on(mesh, leaf.shape, axes[:count])) for count in range(len(axes) + 1)]

    @jax.custom_vjp
    def gather(leaf: Any) -> Any:
        for step in reversed(steps[:-1]):
            leaf = jax.lax.with_sharding_constraint(leaf, step)
        return leaf

    def backward(_: None, gradient: Any) -> tuple[Any]:
        for step in steps[1:]:
            gradient = jax.lax.with_sharding_constraint(gradient, step)
        return (gradient,)

    gather.defvjp(lambda leaf: (gather(leaf), None), backward)
    return gather(leaf)


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
