"""A strided convolution as one matrix product over patches.

XLA computes a convolution's weight gradient inside a `scan` about 25 times slower on a CPU than outside of one, and
every PPO minibatch is inside of one. The same numbers as a matrix product keep their speed there.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


def strided_conv(conv: nnx.Conv, image: Float[Array, "B H W C"], stride: int) -> Float[Array, "B h w O"]:
    """Applies `conv` (no padding, square kernel, a multiple of `stride` wide) to a batch of images."""
    kernel = conv.kernel[...]
    size, _, channels, features = kernel.shape
    blocks = size // stride  # per side of the kernel
    if blocks * stride != size:
        raise ValueError(f"the kernel's side must be a multiple of the stride, got {size} and {stride}")
    rows, columns = ((side - size) // stride + 1 for side in image.shape[1:3])
    high, wide = rows + blocks - 1, columns + blocks - 1
    cut = image[:, : high * stride, : wide * stride].reshape(-1, high, stride, wide, stride, channels)
    cells = cut.transpose(0, 1, 3, 2, 4, 5).reshape(-1, high, wide, stride * stride * channels)
    offsets = [(i, j) for i in range(blocks) for j in range(blocks)]
    patches = jnp.concatenate([cells[:, i : i + rows, j : j + columns] for i, j in offsets], axis=-1)
    weights = kernel.reshape(blocks, stride, blocks, stride, channels, features).transpose(0, 2, 1, 3, 4, 5)
    product = patches @ weights.reshape(-1, features)
    bias = conv.bias
    return product if bias is None else product + bias[...]
