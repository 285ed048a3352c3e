"""Actions as the network makes them, about [-1, 1], and in the units of the environment that takes them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from simscaleai_jax.core.plain import native
from simscaleai_jax.rl.ppo.finite import LARGEST

UNBOUNDED = np.finfo(np.float32).max


@dataclasses.dataclass(frozen=True)
class ActionBounds:
    """What each number of an action may be, in the environment's units.

    -1 and 1 of the network are a number's two bounds; a number without bounds is taken as the network makes it.

    Attributes:
      low: lower bounds, None where there is none.
      high: upper bounds, None exactly where `low` is.
    """

    low: tuple[float | None, ...]
    high: tuple[float | None, ...]

    @classmethod
    def unit(cls, size: int) -> "ActionBounds":
        """[-1, 1] for each of `size` numbers."""
        return cls((-1.0,) * size, (1.0,) * size)

    @classmethod
    def of_space(cls, space: Any) -> "ActionBounds":
        """The bounds of a Box; one that reaches beyond 1e15 is none.

        Raises:
          ValueError: a number that is bounded on one side only.
        """
        low, high = ([float(x) for x in np.ravel(side)] for side in (space.low, space.high))
        is_bounded = [(abs(a) < LARGEST, abs(b) < LARGEST) for a, b in zip(low, high, strict=True)]
        if halves := [i for i, sides in enumerate(is_bounded) if sides[0] != sides[1]]:
            i = halves[0]
            raise ValueError(
                f"PPO needs actions that are bounded on both sides or on none; number {i} lies in [{low[i]}, "
                f"{high[i]}]. Give it both bounds, for example with gymnasium.wrappers.TransformAction."
            )
        sides = ([x if both[0] else None for x, both in zip(side, is_bounded, strict=True)] for side in (low, high))
        return cls(*(tuple(side) for side in sides))

    @classmethod
    def from_record(cls, spec: Mapping[str, Any], size: int) -> "ActionBounds":
        """The bounds that a checkpoint's `action_spec` holds: one number for all, or one for each; inverts `record`."""
        sides = (spec.get("low", -1.0), spec.get("high", 1.0))
        return cls(*(tuple(side) if isinstance(side, list | tuple) else (side,) * size for side in sides))

    def record(self) -> dict[str, Any]:
        """As `action_spec` of a manifest: one number for each side where all are the same, else lists."""
        sides = [side[0] if len(set(side)) == 1 and side[0] is not None else list(side) for side in self._sides]
        return {"shape": [len(self.low)], "dtype": "float32", "low": sides[0], "high": sides[1]}

    def to_env(self, action: Any) -> Any:
        """(..., A) numbers of the network in the environment's units and inside its bounds; NumPy or JAX arrays."""
        half, centre, low, high = (row.reshape((1,) * (action.ndim - 1) + (-1,)) for row in self.rows())
        return (action * half + centre).clip(low, high)

    def rows(self) -> tuple[np.ndarray, ...]:
        """(half range, centre, low, high), float32 (A,) each, of which `to_env` is made: clip(half * x + centre)."""
        low, high = (np.array([sign * UNBOUNDED if x is None else x for x in side]) for side, sign in self._signed)
        is_free = np.array([x is None for x in self.low])
        centre, half = np.where(is_free, 0.0, (low + high) / 2), np.where(is_free, 1.0, (high - low) / 2)
        return tuple(row.astype(np.float32) for row in (half, centre, low, high))

    def __str__(self) -> str:
        return " x ".join(f"[{native(a)}, {native(b)}]" for a, b in zip(self.low, self.high, strict=True))

    @property
    def _sides(self) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
        return self.low, self.high

    @property
    def _signed(self) -> tuple[tuple[tuple[float | None, ...], int], ...]:
        return (self.low, -1), (self.high, 1)
