"""The patch product equals the convolution it stands for, gradient included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from simscaleai_jax.rl.ppo.strided_conv import strided_conv


@pytest.mark.parametrize(
    ("size", "stride", "shape"), [(8, 4, (2, 23, 20, 3)), (4, 2, (3, 9, 12, 5)), (3, 3, (1, 9, 9, 1))]
)
def test_equals_the_convolution(size, stride, shape):
    conv = nnx.Conv(shape[-1], 6, (size, size), strides=stride, padding="VALID", rngs=nnx.Rngs(0))
    conv.bias[...] = jnp.arange(6.0)
    image = jax.random.normal(jax.random.key(1), shape)
    np.testing.assert_allclose(strided_conv(conv, image, stride), conv(image), rtol=1e-4, atol=1e-5)
    expected = nnx.grad(lambda module: jnp.sum(module(image) ** 2))(conv)
    slope = nnx.grad(lambda module: jnp.sum(strided_conv(module, image, stride) ** 2))(conv)
    for given, wanted in zip(jax.tree.leaves(slope), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=1e-2)


def test_a_stride_that_does_not_divide_the_kernel():
    conv = nnx.Conv(1, 1, (3, 3), strides=2, padding="VALID", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="multiple of the stride, got 3 and 2"):
        strided_conv(conv, jnp.zeros((1, 9, 9, 1)), 2)
