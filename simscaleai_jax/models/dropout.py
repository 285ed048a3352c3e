"""Dropout whose random bits cost next to nothing.

JAX's default generator runs 20 rounds for every number: on a small model that is half of a training step. Here a key is
drawn into two 32-bit words per dropout site, and element i of the site hashes (i, words) with the two-multiply mixer of
https://github.com/skeeto/hash-prospector. The hash is elementwise, so XLA may fuse it into its surroundings.
benchmarks/model_throughput.py reports a step with and without dropout.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt32


def dropout_seeds(key: Array | None, *shape: int) -> UInt32[Array, "..."] | None:
    """Draws the words of `shape` dropout sites: (*shape, 2), or None (no dropout) without a key."""
    return None if key is None else jax.random.bits(key, (*shape, 2), jnp.uint32)


def dropout(x: Float[Array, "..."], rate: float, seed: UInt32[Array, "2"] | None) -> Float[Array, "..."]:
    """Zeroes each element of `x` with probability `rate` and divides the others by 1 - rate.

    Args:
      x: any shape, up to 2**32 elements.
      rate: probability in [0, 1).
      seed: the site's two words, or None for no dropout.
    """
    if seed is None or rate == 0.0:
        return x
    threshold = jnp.uint32(round(rate * 2**32))
    keep = _hash(lax.iota(jnp.uint32, x.size).reshape(x.shape), seed) >= threshold
    return x * jnp.where(keep, jnp.asarray(1.0 / (1.0 - rate), x.dtype), jnp.zeros((), x.dtype))


def _hash(position: UInt32[Array, "..."], seed: UInt32[Array, "2"]) -> UInt32[Array, "..."]:
    bits = position * jnp.uint32(0x9E3779B9) + seed[0]
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x21F0AAAD)
    bits = bits ^ seed[1]
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x735A2D97)
    return bits ^ (bits >> 15)
