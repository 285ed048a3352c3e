"""The keypoint encoder says where small things are, and learns it from few pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from simscaleai_jax.models import create_model
from simscaleai_jax.models.image_encoders import KeypointEncoder, grid, make_image_encoder

SIZE = 32


def spots(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, H, W, 3) of a red spot of 3x3 pixels on grey, and its places (N, 2) in [-1, 1]."""
    rng = np.random.default_rng(seed)
    images, corners = np.full((count, SIZE, SIZE, 3), 0.5, np.float32), rng.integers(2, SIZE - 5, (count, 2))
    for image, (row, column) in zip(images, corners, strict=True):
        image[row : row + 3, column : column + 3] = (0.9, 0.1, 0.1)
    return images, (corners[:, ::-1] + 1.0) / (SIZE / 2) - 1.0


@pytest.mark.wide
def test_a_spot_is_found_to_a_fraction_of_a_pixel():
    encoder = KeypointEncoder(3, SIZE, 16, dtype="float32", rngs=nnx.Rngs(0))
    reader = nnx.Linear(16, 2, rngs=nnx.Rngs(1))
    graphdef, params = nnx.split(nnx.List([encoder, reader]))
    images, places = spots(512, 0)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 400))

    def guess(params, images):
        see, read = nnx.merge(graphdef, params)
        return read(see(images))

    @jax.jit
    def learn(params, state, images, places):
        _, gradient = jax.value_and_grad(lambda p: jnp.abs(guess(p, images) - places).mean())(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for step in range(400):
        rows = np.arange(32 * step, 32 * step + 32) % len(images)
        params, state = learn(params, state, images[rows], places[rows])
    fresh, wanted = spots(128, 1)
    error = np.abs(np.asarray(guess(params, jnp.asarray(fresh))) - wanted).mean() * SIZE / 2
    assert error < 0.5, f"{error:.2f} pixels"


def test_places_run_to_the_right_and_down():
    np.testing.assert_allclose(grid(2), [[-1, -1], [1, -1], [-1, 1], [1, 1]])


def test_a_pooling_that_there_is_not_is_named():
    with pytest.raises(ValueError, match=r"Unknown image_pooling 'keypoint'.*Did you mean 'keypoints'"):
        create_model("flow", cameras=("image",), image_pooling="keypoint")
    with pytest.raises(ValueError, match="image_size 7 is too small for the keypoint encoder"):
        make_image_encoder("keypoints", 3, 7, 8, dtype="float32", rngs=nnx.Rngs(0))
