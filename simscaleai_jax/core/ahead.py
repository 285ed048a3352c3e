"""Programs that are compiled from shapes alone, for devices that need not be there."""

import dataclasses
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Program:
    """A jitted function and what it is called with, as shapes.

    Attributes:
      function: what `jax.jit` has returned.
      arguments: trees of `jax.ShapeDtypeStruct` with shardings, which also say for which devices it is compiled.
    """

    function: Any
    arguments: tuple[Any, ...]

    def trace(self) -> Any:
        """`jax.stages.Traced`: its jaxpr."""
        return self.function.trace(*self.arguments)

    def lower(self) -> jax.stages.Lowered:
        """What `.compile()` compiles."""
        return self.function.lower(*self.arguments)


def abstract(tree: Any, shardings: Any) -> Any:
    """Arrays, or shapes, as shapes with shardings: one sharding for all leaves, or a tree of the same structure."""
    if isinstance(shardings, jax.sharding.Sharding):
        shardings = jax.tree.map(lambda _: shardings, tree)

    def shape(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        is_weak = getattr(leaf, "weak_type", False)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding, weak_type=is_weak)

    return jax.tree.map(shape, tree, shardings)
