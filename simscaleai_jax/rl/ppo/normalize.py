"""Running mean and variance of inputs: one snapshot per update, merged over devices with a single all-reduce."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

CLIP = 10.0
EPSILON = 1e-4  # added to the variance: inputs that hardly move are not blown up


class RunningStats(struct.PyTreeNode):
    """Statistics of everything seen so far.

    Attributes:
      mean: (D,) mean.
      var: (D,) variance.
      count: [] number of rows seen, as float32.
    """

    mean: Any
    var: Any
    count: Any


def init_stats(size: int) -> RunningStats:
    """Statistics that leave inputs as they are, for nothing seen yet."""
    return RunningStats(jnp.zeros(size), jnp.ones(size), jnp.zeros(()))


def normalize(stats: RunningStats, values: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Shifts and scales to about zero mean and unit variance, clipped to 10 standard deviations."""
    return jnp.clip((values - stats.mean) * jax.lax.rsqrt(stats.var + EPSILON), -CLIP, CLIP)


def merge(stats: RunningStats, values: Float[Array, "*batch D"], axis_name: str | None = None) -> RunningStats:
    """Adds the rows of `values`, over all devices where `axis_name` is given (Chan et al. 1979, parallel variance)."""
    rows = values.reshape(-1, values.shape[-1])
    deviation = rows - stats.mean  # of the old mean: no cancellation where the mean is far from zero
    sums = jnp.stack([deviation.sum(0), jnp.square(deviation).sum(0)])
    size = jnp.float32(rows.shape[0])
    if axis_name is not None:
        sums = jax.lax.psum(sums, axis_name)
        size = size * jax.lax.axis_size(axis_name)
    count = stats.count + size
    shift = sums[0] / count
    total = stats.var * stats.count + sums[1] - count * jnp.square(shift)
    mean, var = stats.mean + shift, jnp.maximum(total / count, 0.0)
    is_fine = jnp.isfinite(mean) & jnp.isfinite(var)  # else squares overflowed
    return RunningStats(jnp.where(is_fine, mean, stats.mean), jnp.where(is_fine, var, stats.var), count)
