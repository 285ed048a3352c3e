"""A camera's picture as a vector of features: by averages over a grid, by where things are, or where told ones are."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.models.layers import compute_dtype, fan_in_uniform, gelu, linear, uniform_of_std

POOLED = 4  # averages are over a grid of 4x4
CONVOLUTIONS = ((32, 8, 4, 2), (64, 4, 2, 1), (64, 3, 1, 1))  # channels, kernel, stride, padding
KEYPOINTS = 16
SHARPNESS = 10.0  # of the softmax: maps begin with few enough places to follow
POOLINGS = ("average", "keypoints")
QUERIES = 8  # places that an instruction asks for


def make_image_encoder(
    pooling: str, channels: int, size: int, embed_dim: int, *, dtype: str, rngs: nnx.Rngs
) -> "ImageEncoder | KeypointEncoder":
    """The encoder that `pooling` names: "average" or "keypoints"; a ValueError for another, or a picture too small."""
    if pooling not in POOLINGS:
        raise unknown_name("image_pooling", pooling, POOLINGS)
    kind = KeypointEncoder if pooling == "keypoints" else ImageEncoder
    return kind(channels, size, embed_dim, dtype=dtype, rngs=rngs)


class ImageEncoder(nnx.Module):
    """Three convolutions, a 4x4 average pool and a linear layer, ReLU after each."""

    def __init__(self, channels: int, size: int, embed_dim: int, *, dtype: str, rngs: nnx.Rngs) -> None:
        self.dtype = dtype
        convolutions = []
        for out, kernel, stride, pad in CONVOLUTIONS:
            size = (size + 2 * pad - kernel) // stride + 1
            init = fan_in_uniform(channels * kernel * kernel)
            layer = nnx.Conv(
                channels,
                out,
                (kernel, kernel),
                strides=stride,
                padding=pad,
                dtype=compute_dtype(dtype),
                kernel_init=init,
                bias_init=init,
                rngs=rngs,
            )
            convolutions.append(layer)
            channels = out
        if size < 1:
            raise ValueError("image_size is too small for the image encoder; wanted at least 8.")
        self.convolutions = nnx.List(convolutions)
        self.out = linear(POOLED * POOLED * channels, embed_dim, dtype=dtype, rngs=rngs)

    def __call__(self, image: Float[Array, "B H W C"]) -> Float[Array, "B E"]:
        """(B, H, W, C) in [0, 1] to (B, embed_dim)."""
        hidden = image.astype(compute_dtype(self.dtype))
        for layer in self.convolutions:
            hidden = jax.nn.relu(layer(hidden))
        pooled = adaptive_average_pool(hidden, POOLED)
        return jax.nn.relu(self.out(pooled.reshape(pooled.shape[0], -1)))


def adaptive_average_pool(x: Float[Array, "B H W C"], size: int) -> Float[Array, "B P P C"]:
    """Averages over `size` x `size` windows that cover the image, of floor(i n / size) to ceil((i + 1) n / size)."""
    rows, columns = (jnp.asarray(pool_matrix(n, size), x.dtype) for n in x.shape[1:3])
    return jnp.einsum("ph,bhwc,qw->bpqc", rows, x, columns)


def pool_matrix(length: int, size: int) -> np.ndarray:
    weights = np.zeros((size, length), np.float32)
    for i in range(size):
        start, stop = i * length // size, -(-(i + 1) * length // size)
        weights[i, start:stop] = 1.0 / (stop - start)
    return weights


class KeypointEncoder(nnx.Module):
    """A convolution, 16 maps of a softmax over places, the mean place of each, and a linear layer with ReLU.

    After https://arxiv.org/abs/1504.00702: it says where a small thing of some colour is, to a fraction of a pixel, and
    learns that from few pictures. Places are (u, v) in [-1, 1], to the right and down.
    """

    def __init__(self, channels: int, size: int, embed_dim: int, *, dtype: str, rngs: nnx.Rngs) -> None:
        features = CONVOLUTIONS[0][0]
        self.dtype = dtype
        self.first, self.size = first_convolution(channels, size, dtype, rngs)
        self.maps = unbiased_linear(features, KEYPOINTS, dtype, rngs)
        self.out = linear(2 * KEYPOINTS, embed_dim, dtype=dtype, rngs=rngs)

    def __call__(self, image: Float[Array, "B H W C"]) -> Float[Array, "B E"]:
        """(B, H, W, C) in [0, 1] to (B, embed_dim)."""
        hidden = jax.nn.relu(self.first(image.astype(compute_dtype(self.dtype)) - 0.5))
        maps = self.maps(hidden).astype(jnp.float32).reshape(-1, self.size * self.size, KEYPOINTS)
        weights = jax.nn.softmax(SHARPNESS * maps, axis=1)
        places = jnp.einsum("bnk,nd->bdk", weights, grid(self.size)).reshape(-1, 2 * KEYPOINTS)
        return jax.nn.relu(self.out(places.astype(compute_dtype(self.dtype))))


class InstructedKeypoints(nnx.Module):
    """The places in a picture that an instruction asks for, as one token.

    Attention from 8 queries, which a text's vector gives, to the cells of a convolution: the softmax over cells of
    their products with a query, the mean place under it as in `KeypointEncoder`, and the mean features there. Which
    thing is meant and where it is come together in one product; neither has to be learnt before the other.
    """

    def __init__(self, channels: int, size: int, embed_dim: int, *, dtype: str, rngs: nnx.Rngs) -> None:
        features = CONVOLUTIONS[0][0]
        self.dtype = dtype
        self.first, self.size = first_convolution(channels, size, dtype, rngs)
        self.keys = unbiased_linear(features, features, dtype, rngs)
        self.queries = linear(embed_dim, QUERIES * features, dtype=dtype, rngs=rngs)
        self.out1 = linear(QUERIES * (features + 2), embed_dim, dtype=dtype, rngs=rngs)
        self.out2 = linear(embed_dim, embed_dim, dtype=dtype, rngs=rngs)

    def __call__(self, image: Float[Array, "B H W C"], text: Float[Array, "B D"]) -> Float[Array, "B 1 D"]:
        """(B, H, W, C) in [0, 1] and texts (B, embed_dim) to (B, 1, embed_dim)."""
        hidden = jax.nn.relu(self.first(image.astype(compute_dtype(self.dtype)) - 0.5))
        hidden = hidden.reshape(hidden.shape[0], self.size * self.size, -1)
        queries = self.queries(text).reshape(hidden.shape[0], QUERIES, -1)
        maps = jnp.einsum("bnf,bkf->bkn", self.keys(hidden), queries).astype(jnp.float32)
        weights = jax.nn.softmax(maps, axis=-1)
        places = jnp.einsum("bkn,nd->bkd", weights, grid(self.size)).astype(hidden.dtype)
        found = jnp.einsum("bkn,bnf->bkf", weights.astype(hidden.dtype), hidden)
        seen = jnp.concatenate([places, found], axis=-1).reshape(hidden.shape[0], 1, -1)
        return self.out2(gelu(self.out1(seen)))


def first_convolution(channels: int, size: int, dtype: str, rngs: nnx.Rngs) -> tuple[nnx.Conv, int]:
    """The convolution before a softmax over places, and the side of its output for pictures of `size` pixels."""
    features, kernel, stride, pad = CONVOLUTIONS[0]
    side = (size + 2 * pad - kernel) // stride + 1
    if side < 2:
        raise ValueError(f"image_size {size} is too small for the keypoint encoder; wanted at least 8.")
    layer = nnx.Conv(
        channels,
        features,
        (kernel, kernel),
        strides=stride,
        padding=pad,
        dtype=compute_dtype(dtype),
        kernel_init=uniform_of_std((2.0 / (channels * kernel * kernel)) ** 0.5),
        rngs=rngs,
    )
    return layer, side


def unbiased_linear(features: int, outputs: int, dtype: str, rngs: nnx.Rngs) -> nnx.Linear:
    """What cells say of themselves before a softmax over them, which a bias would not change."""
    return nnx.Linear(
        features,
        outputs,
        use_bias=False,
        dtype=compute_dtype(dtype),
        kernel_init=uniform_of_std((2.0 / features) ** 0.5),
        rngs=rngs,
    )


def grid(size: int) -> np.ndarray:
    """(size * size, 2) places (u, v) in [-1, 1] of a map's cells, row by row."""
    line = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    v, u = np.meshgrid(line, line, indexing="ij")
    return np.stack([u.ravel(), v.ravel()], axis=-1)
