"""Floating-point work of a program before it is compiled, with the rounds of its loops."""

import dataclasses
import math
from typing import Any

from jax.extend.core import Jaxpr

# How often a TPU multiplies bfloat16 numbers for one product of float32 numbers.
PASSES = {"HIGHEST": 6, "HIGH": 3}
MOVES = (
    "reshape", "broadcast_in_dim", "transpose", "slice", "squeeze", "concatenate", "gather", "convert_element_type",
    "dynamic_slice", "dynamic_update_slice", "iota", "copy", "select_n", "rev", "pad", "sharding_constraint",
)  # fmt: skip


@dataclasses.dataclass
class Work:
    """Floating-point operations; loops of unknown length count once, of a conditional the branch that costs most.

    Attributes:
      products: multiplications and additions of matrix products and convolutions.
      passes: the same, times the passes that a TPU takes for their precision.
      other: results of everything else.
    """

    products: float = 0.0
    passes: float = 0.0
    other: float = 0.0

    def add(self, work: "Work", times: float = 1.0) -> None:
        """Adds that much of other work."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + times * getattr(work, field.name))


def count(jaxpr: Any) -> Work:
    """Work of a jaxpr over all devices together."""
    total = Work()
    for eqn in jaxpr.eqns:
        name, inner = eqn.primitive.name, list(_inner(eqn.params))
        if name in ("dot_general", "conv_general_dilated"):
            flops = _product(eqn) if name == "dot_general" else _convolution(eqn)
            total.add(Work(flops, flops * _passes(eqn)))
        elif name == "cond":
            total.add(max((count(branch) for branch in inner), key=lambda work: work.products + work.other))
        elif inner:
            times = 1.0
            if name == "scan":
                times, inner = eqn.params["length"], inner[:1]
            elif name == "while":
                inner = [eqn.params["body_jaxpr"].jaxpr]
            elif name == "shard_map":
                times = eqn.params["mesh"].size
            for each in inner:
                total.add(count(each), times)
        elif name not in MOVES:
            total.other += max((getattr(out.aval, "size", 0) for out in eqn.outvars), default=0)
    return total


def _inner(params: dict[str, Any]) -> Any:
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            part = getattr(part, "jaxpr", part)
            if isinstance(part, Jaxpr):
                yield part


def _product(eqn: Any) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    return 2.0 * eqn.outvars[0].aval.size * math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)


def _convolution(eqn: Any) -> float:
    kernel = eqn.invars[1].aval
    features = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
    return 2.0 * eqn.outvars[0].aval.size * kernel.size / features


def _passes(eqn: Any) -> int:
    if eqn.invars[0].aval.dtype.itemsize <= 2:
        return 1
    precision = eqn.params.get("precision")
    first = precision[0] if isinstance(precision, tuple) else precision
    return PASSES.get(getattr(first, "name", str(first)), 1)
