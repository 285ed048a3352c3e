"""`vmap` with the batch behind all other axes, where a TPU's 128 lanes are.

A TPU keeps the last axis of an array in lanes of 128. `jax.vmap` puts the batch first, so that matrices of 3 x 3 and
quaternions leave 125 or 124 of them empty. Here a function is traced for one member of the batch, and its operations
are repeated with the batch last (`core.batch_last_rules` has each of them).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from simscaleai_jax.core.batch_last_rules import RULES, Operation, fallback, spread

CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr",
         "custom_vjp_call": "call_jaxpr", "eval_jaxpr": "call_jaxpr"}  # fmt: skip

LANES, TILE_ROWS = 128, 8  # of a float32 tile
LEAST = 256  # members; fewer leave lanes empty either way, and this way takes more instructions

_platform: ContextVar[str | None] = ContextVar("platform", default=None)


@contextmanager
def compiled_for(platform: str) -> Iterator[None]:
    """What is traced within (also as a decorator) is compiled for "tpu", "gpu" or "cpu", by default for JAX's own
    backend.
    """
    token = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(token)


def on_lanes(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; where it is compiled for a TPU, `jax.vmap` over a large batch gives `vmap_last`."""
    if (_platform.get() or jax.default_backend()) != "tpu":
        return function
    mapped = jax.custom_batching.custom_vmap(function)

    @mapped.def_vmap
    def batched(size: int, is_batched: Sequence[Any], *args: Any) -> tuple[Any, Any]:
        axes = jax.tree.map(lambda flag: 0 if flag else None, tuple(is_batched))
        vmap = vmap_last if size >= LEAST else jax.vmap
        out = vmap(function, in_axes=axes)(*args)
        return out, jax.tree.map(lambda _: True, out)

    return mapped


def vmap_last(function: Callable[..., Any], in_axes: Any = 0) -> Callable[..., Any]:
    """`jax.vmap(function, in_axes)`, computed with the batch behind all other axes.

    Args:
      function: of trees of arrays; it is traced once, for one member.
      in_axes: 0, or a tuple with a tree for every argument that has 0 for each of its arrays, or None where all members
        share one.
    Returns:
      A function whose results all lead with B, and are those of `jax.vmap` but for the order of sums.
    """

    def batched(*args: Any) -> Any:
        leaves, tree = jax.tree.flatten(args)
        axes = [0] * len(leaves) if in_axes == 0 else tree.flatten_up_to(in_axes)
        flags = [axis == 0 for axis in axes]
        batch = lanes(next(leaf.shape[0] for leaf, flag in zip(leaves, flags, strict=True) if flag))
        members = [
            jax.ShapeDtypeStruct(leaf.shape[1:] if flag else leaf.shape, leaf.dtype)
            for leaf, flag in zip(leaves, flags, strict=True)
        ]
        traced, shapes = jax.make_jaxpr(lambda *flat: function(*tree.unflatten(flat)), return_shape=True)(*members)
        arrays = [to_last(leaf, batch) if flag else leaf for leaf, flag in zip(leaves, flags, strict=True)]
        found, flags = evaluate(traced, arrays, flags, batch)
        shapes, tree = jax.tree.flatten(shapes)
        found = [spread(x, flag, shape.shape, batch) for x, flag, shape in zip(found, flags, shapes, strict=True)]
        return tree.unflatten([to_first(x, batch) for x in found])

    return batched


def lanes(size: int) -> tuple[int, ...]:
    """Axes that a batch is laid out in: two fill whole tiles, whatever axes stand before them."""
    return (size // LANES, LANES) if size % (TILE_ROWS * LANES) == 0 else (size,)


def to_last(array: Any, batch: tuple[int, ...]) -> Any:
    """[B, ...] as [..., *batch]."""
    return jnp.moveaxis(array, 0, -1).reshape(*array.shape[1:], *batch)


def to_first(array: Any, batch: tuple[int, ...]) -> Any:
    """[..., *batch] as [B, ...]."""
    shape = array.shape[: array.ndim - len(batch)]
    return jnp.moveaxis(array.reshape(*shape, math.prod(batch)), -1, 0)


def evaluate(closed: Any, arrays: list[Any], flags: list[bool], batch: tuple[int, ...]) -> tuple[list, list[bool]]:
    """Results of a jaxpr, and which of them depend on the batch, whose axes are then their last.

    Args:
      closed: the jaxpr, with its constants.
      arrays: its arguments; those whose flag is set end with the axes of the batch.
      flags: of the arguments.
      batch: lengths of those axes.
    """
    jaxpr = closed.jaxpr
    env: dict[Any, tuple[Any, bool]] = {
        **{var: (const, False) for var, const in zip(jaxpr.constvars, closed.consts, strict=True)},
        **dict(zip(jaxpr.invars, zip(arrays, flags, strict=True), strict=True)),
    }

    def read(var: Any) -> tuple[Any, bool]:
        return (np.asarray(var.val, var.aval.dtype), False) if isinstance(var, Literal) else env[var]

    for eqn in jaxpr.eqns:
        inputs = [read(var) for var in eqn.invars]
        scope = str(eqn.source_info.name_stack)
        with jax.named_scope(scope) if scope else nullcontext():
            results = _apply(eqn, [x for x, _ in inputs], [flag for _, flag in inputs], batch)
        env |= dict(zip(eqn.outvars, results, strict=True))
    pairs = [read(var) for var in jaxpr.outvars]
    return [x for x, _ in pairs], [flag for _, flag in pairs]


def _apply(eqn: Any, arrays: list[Any], flags: list[bool], batch: tuple[int, ...]) -> list[tuple[Any, bool]]:
    name = eqn.primitive.name
    if name in CALLS and CALLS[name] in eqn.params:
        return list(zip(*evaluate(eqn.params[CALLS[name]], arrays, flags, batch), strict=True))
    if name == "scan":
        return _scan(eqn.params, arrays, flags, batch)
    if not any(flags):
        out = eqn.primitive.bind(*arrays, **eqn.primitive.get_bind_params(eqn.params))
        return [(x, False) for x in (out if eqn.primitive.multiple_results else [out])]
    if name == "while":
        return _while(eqn.params, arrays, flags, batch)
    if name == "cond" and flags[0]:
        return _select_branch(eqn.params["branches"], arrays, flags, batch)
    operation = Operation(eqn, batch)
    out = RULES.get(name, fallback)(operation, arrays, flags)
    return [(x, True) for x in (out if eqn.primitive.multiple_results else [out])]


def _depends(closed: Any, flags: list[bool]) -> list[bool]:
    """Which results of a jaxpr may depend on the batch, from which arguments do."""
    jaxpr = closed.jaxpr
    found = dict(zip(jaxpr.invars, flags, strict=True))
    for eqn in jaxpr.eqns:
        is_batched = any(found.get(var, False) for var in eqn.invars if not isinstance(var, Literal))
        found |= dict.fromkeys(eqn.outvars, is_batched)
    return [not isinstance(var, Literal) and found.get(var, False) for var in jaxpr.outvars]


def _carried(body: Any, before: list[bool], carry: list[bool], after: list[bool]) -> list[bool]:
    """Which parts of a loop's carry depend on the batch after any number of rounds."""
    while True:
        out = _depends(body, [*before, *carry, *after])[: len(carry)]
        joined = [a or b for a, b in zip(carry, out, strict=True)]
        if joined == carry:
            return carry
        carry = joined


def _spread_all(body: Any, arrays: Any, flags: list[bool], wanted: list[bool], batch: tuple[int, ...]) -> list[Any]:
    """Arrays with the batch's axes where they are wanted; `body` says their shapes without them."""
    return [
        spread(x, flag, var.aval.shape, batch) if want else x
        for x, flag, want, var in zip(arrays, flags, wanted, body, strict=True)
    ]


def _scan(params: dict[str, Any], arrays: list[Any], flags: list[bool], batch: tuple[int, ...]) -> list[Any]:
    body = params["jaxpr"]
    if "ft_in" in params:  # since jax 0.12
        first, second = (len(list(part)) for part in params["ft_in"].unpack()[:2])
    else:
        first, second = params["num_consts"], params["num_carry"]
    second += first
    carry = _carried(body, flags[:first], flags[first:second], flags[second:])
    invars = body.jaxpr.invars
    init = _spread_all(invars[first:second], arrays[first:second], flags[first:second], carry, batch)
    inner = [*flags[:first], *carry, *flags[second:]]
    wanted = _depends(body, inner)
    wanted[: len(carry)] = carry

    def step(state: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
        out, found = evaluate(body, [*arrays[:first], *state, *x], inner, batch)
        out = _spread_all(body.jaxpr.outvars, out, found, wanted, batch)
        return out[: len(carry)], out[len(carry) :]

    state, out = jax.lax.scan(
        step, init, arrays[second:], length=params["length"], reverse=params["reverse"], unroll=params["unroll"]
    )
    return list(zip([*state, *out], wanted, strict=True))


def _while(params: dict[str, Any], arrays: list[Any], flags: list[bool], batch: tuple[int, ...]) -> list[Any]:
    """Goes on while any member does; those that are done keep what they have."""
    condition, body = params["cond_jaxpr"], params["body_jaxpr"]
    first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    invars = body.jaxpr.invars[params["body_nconsts"] :]
    carry = _carried(body, flags[first:second], flags[second:], [])
    is_common = not _depends(condition, [*flags[:first], *carry])[0]
    carry = carry if is_common else [True] * len(carry)
    init = _spread_all(invars, arrays[second:], flags[second:], carry, batch)

    def goes_on(state: list[Any]) -> Any:
        return evaluate(condition, [*arrays[:first], *state], [*flags[:first], *carry], batch)[0][0]

    def step(state: list[Any]) -> list[Any]:
        out, found = evaluate(body, [*arrays[first:second], *state], [*flags[first:second], *carry], batch)
        out = _spread_all(invars, out, found, carry, batch)
        if is_common:
            return out
        goes = goes_on(state)
        return [jnp.where(goes, new, old) for new, old in zip(out, state, strict=True)]

    state = jax.lax.while_loop(lambda state: jnp.any(goes_on(state)), step, init)
    return list(zip(state, carry, strict=True))


def _select_branch(branches: Any, arrays: list[Any], flags: list[bool], batch: tuple[int, ...]) -> list[Any]:
    """What each member's branch gives; all are computed."""
    index = jnp.clip(arrays[0], 0, len(branches) - 1)
    results = []
    for branch in branches:
        out, found = evaluate(branch, arrays[1:], flags[1:], batch)
        results.append(_spread_all(branch.jaxpr.outvars, out, found, [True] * len(out), batch))
    return [(jax.lax.select_n(jnp.broadcast_to(index, x[0].shape), *x), True) for x in zip(*results, strict=True)]
