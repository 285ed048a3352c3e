"""Told which of several things is meant, the model finds it in the picture; and learns that from few of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from simscaleai_jax.core.text import tokenize
from simscaleai_jax.models import create_model
from simscaleai_jax.models.image_encoders import InstructedKeypoints
from simscaleai_jax.models.language import WordEncoder

SIZE, WIDTH, LENGTH = 24, 16, 24
COLOURS = {"red": (0.9, 0.1, 0.1), "blue": (0.1, 0.1, 0.9)}
SENTENCES = ("touch the {} spot", "{}", "go to the {} one now", "now the {} spot")
HELD_OUT = ("the spot that is {}", "please find {}")


def told_spots(count: int, seed: int, sentences: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures (N, H, W, 3) with a spot of each colour, ids (N, L) that say one of them, its places (N, 2)."""
    rng = np.random.default_rng(seed)
    images, corners = np.full((count, SIZE, SIZE, 3), 0.5, np.float32), rng.integers(2, SIZE - 5, (count, 2, 2))
    corners[:, 1] = (corners[:, 0] + rng.integers(6, 12, (count, 2)) - 2) % (SIZE - 7) + 2  # apart
    for image, places in zip(images, corners, strict=True):
        for (row, column), colour in zip(places, COLOURS.values(), strict=True):
            image[row : row + 3, column : column + 3] = colour
    told = rng.integers(0, 2, count)
    texts = [rng.choice(sentences).format(list(COLOURS)[which]) for which in told]
    return images, tokenize(texts, LENGTH), (corners[np.arange(count), told, ::-1] + 1.0) / (SIZE / 2) - 1.0


@pytest.mark.wide
def test_the_told_spot_is_found_also_in_words_that_are_new():
    shared = {"dtype": "float32", "rngs": nnx.Rngs(0)}
    parts = [WordEncoder(44, LENGTH, WIDTH, **shared), InstructedKeypoints(3, SIZE, WIDTH, **shared)]
    graphdef, params = nnx.split(nnx.List([*parts, nnx.Linear(WIDTH, 2, rngs=nnx.Rngs(1))]))
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 250))

    def guess(params, images, ids):
        read, see, tell = nnx.merge(graphdef, params)
        return tell(see(images, read(ids)[:, 0]))[:, 0]

    @jax.jit
    def learn(params, state, images, ids, places):
        gradient = jax.grad(lambda p: jnp.abs(guess(p, images, ids) - places).mean())(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state, data = optimizer.init(params), told_spots(1024, 0, SENTENCES)
    for step in range(250):
        rows = np.arange(32 * step, 32 * step + 32) % len(data[0])
        params, state = learn(params, state, *(part[rows] for part in data))
    images, ids, places = told_spots(128, 1, HELD_OUT)
    error = np.abs(np.asarray(jax.jit(guess)(params, images, ids)) - places).max(axis=1) * SIZE / 2
    assert np.mean(error < 2.0) > 0.95, f"{np.mean(error):.2f} pixels"


def test_words_are_read_to_their_end_wherever_they_stand():
    encoder = WordEncoder(44, LENGTH, WIDTH, dtype="float32", rngs=nnx.Rngs(0))
    first, second, nothing = encoder(tokenize(["   red    blue", "   blue    red", ""], LENGTH))
    short = encoder(tokenize(["   red    blue"], 14))
    np.testing.assert_allclose(short[0], first, rtol=1e-4)
    assert not np.allclose(first, nothing, atol=1e-3)
    np.testing.assert_allclose(nothing[0], encoder.out.bias[...], rtol=1e-6)
    middle = encoder(tokenize(["    red    blue    ", "    blue    red    "], LENGTH))
    np.testing.assert_allclose(middle[0], middle[1], rtol=1e-4)
    assert first.shape == second.shape == (1, WIDTH)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"Unknown grounding 'keypoint'.*Did you mean 'keypoints'"):
        create_model("vla", grounding="keypoint")
    with pytest.raises(ValueError, match=r"grounding='keypoints'.*wanted use_language=True"):
        create_model("vla", grounding="keypoints", use_language=False)
    with pytest.raises(ValueError, match=r"auxiliary_size is what sentences.*wanted grounding='keypoints'"):
        create_model("vla", auxiliary_size=3)
    with pytest.raises(ValueError, match="image_size 7 is too small for the keypoint encoder"):
        create_model("vla", grounding="keypoints", image_size=7)
    with pytest.raises(ValueError, match=r"'language' has shape \(1, 25\); wanted"):
        WordEncoder(44, LENGTH, WIDTH, dtype="float32", rngs=nnx.Rngs(0))(np.zeros((1, 25), np.int32))
