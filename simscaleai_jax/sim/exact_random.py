"""Random draws that are equal to the last bit in every program.

A compiler may contract `low + u * (high - low)` into one instruction that rounds once instead of twice, and does so in
one program and not in the other: the same key would then give starts and goals that differ in the last digit between
two numbers of environments. Everything here is computed in integers, or by steps that are exact whichever way they are
compiled.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

UNIT = 2.0**-24  # what drawn values are whole multiples of: in metres, a sixteenth of a micrometre
LARGEST = 2.0**31 * UNIT  # 128
SPACING = 2.0**-12  # m, the unit in which distances between points are compared


def uniform(
    key: PRNGKeyArray,
    shape: tuple[int, ...] = (),
    low: Float[ArrayLike, "..."] = 0.0,
    high: Float[ArrayLike, "..."] = 1.0,
) -> Float[Array, "..."]:
    """Uniform float32 values of `shape` between `low` and `high`, which broadcast to it and may be traced.

    `jax.random.uniform` for environments: whatever else is compiled with it does not change a bit. Values are whole
    multiples of `UNIT`, rounded to float32. Like there, `high` is only met by rounding, never between 0 and 1, and
    equal bounds give `low`.

    Raises:
      ValueError: a bound that is not traced is not below `LARGEST` in magnitude.
    """
    for bound in (low, high):
        if not isinstance(bound, jax.core.Tracer) and np.max(np.abs(bound)) >= LARGEST:
            raise ValueError(f"values to draw from must stay below {LARGEST:.0f} in magnitude, got {bound}")
    low, high = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
    first, last = (jnp.ceil(bound / UNIT).astype(jnp.int32) for bound in (low, high))
    span = last.astype(jnp.uint32) - first.astype(jnp.uint32)  # which wraps where int32 would not hold it
    count = jnp.where(last > first, span, 1)
    drawn = first + _scale(jax.random.bits(key, shape, jnp.uint32), count).astype(jnp.int32)
    return jnp.minimum(drawn.astype(jnp.float32) * UNIT, high)  # where no multiple lies between the two


def _scale(bits: Int[Array, "..."], count: Int[Array, "..."]) -> Int[Array, "..."]:
    """`bits * count / 2**32` rounded down, of uint32: the upper half of a 64-bit product, made of 16-bit ones."""
    low_bits, high_bits, low_count, high_count = bits & 0xFFFF, bits >> 16, count & 0xFFFF, count >> 16
    carried = (low_bits * low_count >> 16) + (high_bits * low_count & 0xFFFF) + low_bits * high_count
    return high_bits * high_count + (high_bits * low_count >> 16) + (carried >> 16)


def snap(values: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
    """`values` rounded to multiples of `UNIT`, so that a product can be added to something without contraction."""
    return jnp.round(jnp.asarray(values, jnp.float32) / UNIT) * UNIT


def first_far(points: Float[Array, "N D"], centres: Float[ArrayLike, "*K D"], distance: float) -> Int[Array, ""]:
    """Index of the first point that is at least `distance` metres from the centre, or from all of several, or else of
    the farthest.

    One that is farther by less than half a millimetre may be passed over.
    """
    enough = int(distance / SPACING + 2.0)  # a unit more than wanted, for each point is rounded
    ways = points[:, None] - jnp.atleast_2d(centres)
    apart = jnp.round(ways / SPACING).astype(jnp.int32).clip(-enough, enough)
    nearest = jnp.min(jnp.sum(apart * apart, axis=-1), axis=-1)
    return jnp.argmax(jnp.minimum(nearest, enough * enough))
