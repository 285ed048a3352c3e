"""Operations of JAX with the batch behind all other axes (`core.batch_last`).

Most keep their parameters, since axes are counted from the front. Those that would undo the layout are written anew:
small matrix products are products and sums of whole batches, an index of each member's own picks by a mask, and small
symmetric systems are factored column by column.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import GatherScatterMode

MOST_PRODUCTS = 2**16  # of a member, above which a product is left to the matrix unit
MOST_PICKED_FROM = 64  # rows that a mask picks from
LARGEST_MATRIX = 32  # side of one that is factored column by column


class Operation(NamedTuple):
    """An equation of a jaxpr, and the lengths of the batch's axes."""

    eqn: Any
    batch: tuple[int, ...]

    @property
    def params(self) -> dict[str, Any]:
        return self.eqn.params

    def shape(self, number: int) -> tuple[int, ...]:
        """Of an argument, for one member."""
        return self.eqn.invars[number].aval.shape

    def bind(self, *arrays: Any, **changes: Any) -> Any:
        """The same operation on arrays that carry the batch."""
        return self.eqn.primitive.bind(*arrays, **{**self.eqn.primitive.get_bind_params(self.params), **changes})


Rule = Callable[[Operation, list[Any], list[bool]], Any]


def spread(array: Any, is_batched: bool, shape: tuple[int, ...], batch: tuple[int, ...]) -> Any:
    """The array (of a member's `shape`) with the batch's axes behind."""
    if is_batched:
        return array
    return jax.lax.broadcast_in_dim(array, (*shape, *batch), range(len(shape)))


def fallback(operation: Operation, arrays: list[Any], flags: list[bool]) -> Any:
    """`jax.vmap` of the operation."""
    batch, size = operation.batch, math.prod(operation.batch)

    def to_first(x: Any) -> Any:
        return jnp.moveaxis(x.reshape(*x.shape[: x.ndim - len(batch)], size), -1, 0)

    first = [to_first(x) if flag else x for x, flag in zip(arrays, flags, strict=True)]
    axes = [0 if flag else None for flag in flags]
    out = jax.vmap(lambda *args: operation.bind(*args), in_axes=axes, axis_size=size)(*first)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1).reshape(*x.shape[1:], *batch), out)


def _same(operation: Operation, arrays: list[Any], flags: list[bool]) -> Any:
    """Arguments of equal rank, axes counted from the front."""
    shapes = [operation.shape(i) for i in range(len(arrays))]
    return operation.bind(*(spread(*each, operation.batch) for each in zip(arrays, flags, shapes, strict=True)))


def _elementwise(operation: Operation, arrays: list[Any], flags: list[bool]) -> Any:
    """Scalars may stand beside arrays (`select_n`, `clamp`)."""
    shape = operation.eqn.outvars[0].aval.shape
    count = len(operation.batch)

    def fitted(number: int, array: Any, is_batched: bool) -> Any:
        own = operation.shape(number)
        if is_batched and own == shape:
            return array
        behind = range(len(shape), len(shape) + count) if is_batched else ()
        return jax.lax.broadcast_in_dim(array, (*shape, *operation.batch), (*range(len(own)), *behind))

    return operation.bind(*(fitted(i, *each) for i, each in enumerate(zip(arrays, flags, strict=True))))


def _broadcast(operation: Operation, arrays: list[Any], flags: list[bool]) -> Any:
    shape, axes = operation.params["shape"], operation.params["broadcast_dimensions"]
    behind = range(len(shape), len(shape) + len(operation.batch))
    return jax.lax.broadcast_in_dim(arrays[0], (*shape, *operation.batch), (*axes, *behind))


def _reshape(operation: Operation, arrays: list[Any], flags: list[bool]) -> Any:
    return arrays[0].reshape(*operation.params["new_sizes"], *operation.batch)


def _tile(operation: Operation, arrays: list[Any], flags: list[bool]) -> Any:
    return jnp.tile(arrays[0], (*operation.params["reps"], *(1 for _ in operation.batch)))


def _transpose(operation: Operation, arrays: list[Any], flags: list[bool]) -> Any:
    order = operation.params["permutation"]
    return jax.lax.transpose(arrays[0], (*order, *range(len(order), arrays[0].ndim)))


def _slice(operation: Operation, arrays: list[Any], flags: list[bool]) -> Any:
    starts, ends, strides = (operation.params[name] for name in ("start_indices", "limit_indices", "strides"))
    ones = (1,) * len(operation.batch)
    strides = (*(strides or (1,) * len(starts)), *ones)
    return jax.lax.slice(arrays[0], (*starts, *(0 for _ in ones)), (*ends, *operation.batch), strides)


def _pad(operation: Operation, arrays: list[Any], flags: list[bool]) -> Any:
    if flags[1]:
        return fallback(operation, arrays, flags)
    edges = (*operation.params["padding_config"], *((0, 0, 0) for _ in operation.batch))
    return jax.lax.pad(arrays[0], arrays[1], edges)


def _dot(operation: Operation, arrays: list[Any], flags: list[bool]) -> Any:
    """Products and sums of whole batches: no axis of one member is worth a row of the matrix unit."""
    (summed, summed_too), (shared, shared_too) = operation.params["dimension_numbers"]
    left, right = operation.shape(0), operation.shape(1)
    free = [i for i in range(len(left)) if i not in (*summed, *shared)]
    free_too = [i for i in range(len(right)) if i not in (*summed_too, *shared_too)]
    out = operation.eqn.outvars[0].aval
    if math.prod(out.shape) * math.prod(left[i] for i in summed) > MOST_PRODUCTS:
        return fallback(operation, arrays, flags)
    ones = (1,) * len(operation.batch)

    def aligned(number: int, order: list[int], new: list[int]) -> Any:
        x = arrays[number] if flags[number] else jnp.reshape(arrays[number], (*operation.shape(number), *ones))
        x = jnp.transpose(x, (*order, *range(len(order), x.ndim)))
        x = jnp.expand_dims(x, new)
        return x.astype(out.dtype)

    start = len(summed) + len(shared)
    x = aligned(0, [*summed, *shared, *free], list(range(start + len(free), start + len(free) + len(free_too))))
    y = aligned(1, [*summed_too, *shared_too, *free_too], list(range(start, start + len(free))))
    if len(summed) == 1 and 0 < x.shape[0] <= 4:
        return sum(x[k] * y[k] for k in range(1, x.shape[0])) + x[0] * y[0]
    return jnp.sum(x * y, axis=tuple(range(len(summed))))


def _dynamic_slice(operation: Operation, arrays: list[Any], flags: list[bool]) -> Any:
    sizes, shape = operation.params["slice_sizes"], operation.shape(0)
    if not any(flags[1:]):
        sizes = (*sizes, *operation.batch)
        return jax.lax.dynamic_slice(arrays[0], [*arrays[1:], *(0 for _ in operation.batch)], sizes)
    picked = [axis for axis in range(len(shape)) if sizes[axis] < shape[axis]]
    if len(picked) != 1 or sizes[picked[0]] != 1 or shape[picked[0]] > MOST_PICKED_FROM:
        return fallback(operation, arrays, flags)
    rows = jnp.moveaxis(spread(arrays[0], flags[0], shape, operation.batch), picked[0], 0)
    return jnp.expand_dims(pick(rows, arrays[1 + picked[0]]), picked[0])


def _dynamic_update_slice(operation: Operation, arrays: list[Any], flags: list[bool]) -> Any:
    if any(flags[2:]):
        return fallback(operation, arrays, flags)
    operand, update = (spread(arrays[i], flags[i], operation.shape(i), operation.batch) for i in range(2))
    return jax.lax.dynamic_update_slice(operand, update, [*arrays[2:], *(0 for _ in operation.batch)])


def _gather(operation: Operation, arrays: list[Any], flags: list[bool]) -> Any:
    numbers = operation.params["dimension_numbers"]
    if flags[1]:
        return _pick(operation, arrays, flags)
    rank = len(operation.eqn.outvars[0].aval.shape)
    behind = range(rank, rank + len(operation.batch))
    return operation.bind(
        *arrays, dimension_numbers=numbers._replace(offset_dims=(*numbers.offset_dims, *behind)),
        slice_sizes=(*operation.params["slice_sizes"], *operation.batch),
    )  # fmt: skip


def _pick(operation: Operation, arrays: list[Any], flags: list[bool]) -> Any:
    """What each member's own indices say of one axis, by a mask."""
    numbers, sizes, shape = operation.params["dimension_numbers"], operation.params["slice_sizes"], operation.shape(0)
    shared, shared_too = numbers.operand_batching_dims, numbers.start_indices_batching_dims
    picked = [(i, axis) for i, axis in enumerate(numbers.start_index_map) if sizes[axis] < shape[axis]]
    others = [axis for axis in range(len(shape)) if axis not in shared and axis not in [axis for _, axis in picked]]
    mode = operation.params["mode"]
    is_plain = len(picked) == 1 and sizes[picked[0][1]] == 1 and shape[picked[0][1]] <= MOST_PICKED_FROM
    may_fill = mode == GatherScatterMode.FILL_OR_DROP and len(numbers.start_index_map) > 1
    if not is_plain or may_fill or mode == GatherScatterMode.ONE_HOT:
        return fallback(operation, arrays, flags)
    (number, axis), outer = picked[0], len(operation.shape(1)) - 1
    batch = operation.batch
    # Rows: the picked axis, then an axis for each of the indices' (of length 1 but for the shared), then the others.
    rows = jnp.transpose(
        spread(arrays[0], flags[0], shape, batch),
        (axis, *[shared[shared_too.index(i)] for i in range(outer) if i in shared_too], *others,
         *range(len(shape), len(shape) + len(batch))),
    )  # fmt: skip
    rows = jnp.expand_dims(rows, [1 + i for i in range(outer) if i not in shared_too])
    index = jnp.take(arrays[1], number, axis=outer)
    index = jnp.expand_dims(index, range(outer, outer + len(others)))
    found = pick(rows, index, mode, operation.params["fill_value"])
    # Axes of length 1 that stay where the picked one and others of length 1 were.
    kept = [i for i in range(len(shape)) if i not in numbers.collapsed_slice_dims and i not in shared]
    found = found.reshape(*found.shape[:outer], *(sizes[i] for i in kept), *batch)
    rank, of_rows = outer + len(kept), list(numbers.offset_dims)
    order = [0] * rank
    for place, source in zip([*(i for i in range(rank) if i not in of_rows), *of_rows], range(rank), strict=True):
        order[place] = source
    return jnp.transpose(found, (*order, *range(rank, found.ndim)))


def pick(rows: Any, index: Any, mode: Any = GatherScatterMode.CLIP, fill: Any = None) -> Any:
    """rows[index] of the first axis, where `index` has a number for each of the other axes' entries."""
    length = rows.shape[0]
    if mode == GatherScatterMode.CLIP:
        index = jnp.clip(index, 0, length - 1)
    shape = jnp.broadcast_shapes(rows.shape[1:], index.shape)
    found = jnp.broadcast_to(rows[0], shape)
    for number in range(1, length):
        found = jnp.where(index == number, rows[number], found)
    if mode == GatherScatterMode.FILL_OR_DROP:
        fill = _filling(found.dtype) if fill is None else fill
        found = jnp.where((index >= 0) & (index < length), found, jnp.asarray(fill, found.dtype))
    return found


def _filling(dtype: Any) -> Any:
    """What JAX gives for an index outside, without another wish."""
    if jnp.issubdtype(dtype, jnp.inexact):
        return jnp.nan
    if dtype == jnp.bool_:
        return True
    return jnp.iinfo(dtype).min if jnp.issubdtype(dtype, jnp.signedinteger) else jnp.iinfo(dtype).max


def _scatter(operation: Operation, arrays: list[Any], flags: list[bool]) -> Any:
    if flags[1]:
        return fallback(operation, arrays, flags)
    numbers = operation.params["dimension_numbers"]
    operand, updates = (spread(arrays[i], flags[i], operation.shape(i), operation.batch) for i in (0, 2))
    rank = len(operation.shape(2))
    behind = range(rank, rank + len(operation.batch))
    numbers = numbers._replace(update_window_dims=(*numbers.update_window_dims, *behind))
    return operation.bind(operand, arrays[1], updates, dimension_numbers=numbers)


def _cholesky(operation: Operation, arrays: list[Any], flags: list[bool]) -> Any:
    """The lower factor, column by column."""
    shape = operation.shape(0)
    if len(shape) != 2 or shape[0] > LARGEST_MATRIX:
        return fallback(operation, arrays, flags)
    size, rest = shape[0], arrays[0]
    columns = []
    for j in range(size):
        column = rest[:, 0] * jax.lax.rsqrt(rest[0, 0])
        rest = rest[1:, 1:] - column[1:, None] * column[None, 1:]
        columns.append(jnp.concatenate([jnp.zeros_like(column, shape=(j, *column.shape[1:])), column]))
    return jnp.stack(columns, axis=1)


def _triangular_solve(operation: Operation, arrays: list[Any], flags: list[bool]) -> Any:
    """Substitution, row by row."""
    params, shapes = operation.params, (operation.shape(0), operation.shape(1))
    is_plain = params["left_side"] and len(shapes[0]) == len(shapes[1]) == 2 and shapes[0][0] <= LARGEST_MATRIX
    if not is_plain:
        return fallback(operation, arrays, flags)
    matrix, rest = (spread(arrays[i], flags[i], shapes[i], operation.batch) for i in range(2))
    matrix = jnp.swapaxes(matrix, 0, 1) if params["transpose_a"] else matrix
    size = shapes[0][0]
    goes_down = params["lower"] != params["transpose_a"]
    rows: dict[int, Any] = {}
    for i in range(size) if goes_down else reversed(range(size)):
        rows[i] = rest[i] if params["unit_diagonal"] else rest[i] / matrix[i, i]
        rest = rest - matrix[:, i, None] * rows[i]
    return jnp.stack([rows[i] for i in range(size)])


ELEMENTWISE = (
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "clamp",
    "convert_element_type", "copy", "cos", "cosh", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1",
    "floor", "ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne",
    "neg", "nextafter", "not", "or", "pow", "reduce_precision", "rem", "round", "rsqrt", "select_n", "shift_left",
    "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "sub",
    "tan", "tanh", "xor",
)  # fmt: skip
SAME = (
    "argmax", "argmin", "concatenate", "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "expand_dims",
    "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum", "reduce_xor", "rev", "sort",
    "split", "squeeze", "stack", "unstack",
)  # fmt: skip
RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(SAME, _same),
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "tile": _tile,
    "transpose": _transpose,
    "slice": _slice,
    "pad": _pad,
    "dot_general": _dot,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "scatter": _scatter,
    "scatter-add": _scatter,
    "scatter_add": _scatter,
    "scatter_mul": _scatter,
    "cholesky": _cholesky,
    "triangular_solve": _triangular_solve,
}
