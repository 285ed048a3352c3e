"""Dropout, pooling, attention, inputs and normalisation, each against a plain reference."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from simscaleai_jax.core.text import check_instructions
from simscaleai_jax.models import PatchEmbedding, SimpleLanguageEncoder, Statistics
from simscaleai_jax.models.dropout import dropout, dropout_seeds
from simscaleai_jax.models.image_encoders import adaptive_average_pool
from simscaleai_jax.models.inputs import model_image, model_state, scale_image
from simscaleai_jax.models.layers import gelu
from simscaleai_jax.models.losses import error_fn, masked_mean
from simscaleai_jax.models.transformer import TransformerEncoder


def test_dropout_drops_its_rate_and_keeps_the_mean() -> None:
    seeds = dropout_seeds(jax.random.key(0), 2)
    ones = jnp.ones((400, 500))
    first, second = (np.asarray(dropout(ones, 0.1, seed)) for seed in seeds)
    assert abs((first == 0).mean() - 0.1) < 0.003
    np.testing.assert_allclose(first[first > 0], 1 / 0.9, rtol=1e-6)
    # Independent: across sites, neighbouring columns and neighbouring rows both drop together in 1 % of the places.
    for other, one in ((second, first), (first[:, 1:], first[:, :-1]), (first[1:], first[:-1])):
        assert abs(((one == 0) & (other == 0)).mean() - 0.01) < 0.001
    assert abs((first == 0).mean(0).std() - np.sqrt(0.09 / 400)) < 0.003


def test_dropout_gradient_follows_the_same_mask() -> None:
    seed = dropout_seeds(jax.random.key(1), 1)[0]
    x = jnp.arange(1.0, 101.0)
    gradient = jax.grad(lambda x: dropout(x, 0.5, seed).sum())(x)
    np.testing.assert_allclose(gradient * x, dropout(x, 0.5, seed))
    assert dropout(x, 0.5, None) is x


def test_gelu_is_exact() -> None:
    x = jnp.linspace(-6, 6, 101)
    np.testing.assert_allclose(gelu(x), jax.nn.gelu(x, approximate=False), atol=1e-6)


@pytest.mark.parametrize("length", [4, 7, 9])
def test_adaptive_pool_averages_the_documented_windows(length: int) -> None:
    x = np.random.default_rng(0).normal(size=(1, length, length, 2)).astype(np.float32)
    pooled = adaptive_average_pool(jnp.asarray(x), 4)
    for i in range(4):
        for j in range(4):
            rows = slice(i * length // 4, -(-(i + 1) * length // 4))
            columns = slice(j * length // 4, -(-(j + 1) * length // 4))
            np.testing.assert_allclose(pooled[0, i, j], x[0, rows, columns].mean((0, 1)), rtol=1e-5, atol=1e-6)


@pytest.mark.wide
def test_ways_of_running_a_transformer_agree() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    outputs = []
    for options in ({}, {"scan_layers": True, "remat": True}):
        encoder = TransformerEncoder(8, 2, 3, 16, dropout=0.2, rngs=nnx.Rngs(0), **options)
        graphdef, params = nnx.split(encoder)

        def run(params: Any, graphdef: Any = graphdef) -> Any:
            return nnx.merge(graphdef, params)(x, key=jax.random.key(1), num_out=1).sum()

        outputs.append(jax.jit(jax.value_and_grad(run))(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *outputs)


def test_attention_without_dropout_is_the_library_call_and_unread_tokens_cost_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    original = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *a, **k: calls.append(k) or original(*a, **k))
    graphdef, params = nnx.split(TransformerEncoder(8, 2, 2, 16, dropout=0.2, rngs=nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(0), (1, 3, 8))

    def both(params: Any) -> tuple[Any, Any]:
        return nnx.merge(graphdef, params)(x, num_out=1), nnx.merge(graphdef, params)(x)

    first, whole = jax.jit(both)(params)
    assert len(calls) == 4
    assert whole.shape == (1, 3, 8)
    np.testing.assert_allclose(first, whole[:, :1], atol=1e-6)
    jax.eval_shape(lambda params: nnx.merge(graphdef, params)(x, key=jax.random.key(0)), params)
    assert len(calls) == 4
    with pytest.raises(ValueError, match="cudnn"):
        TransformerEncoder(8, 2, 2, 16, attention="fast", rngs=nnx.Rngs(0))


def test_patches_are_a_strided_convolution() -> None:
    embed = PatchEmbedding(8, 4, 3, 6)
    image = np.random.default_rng(0).uniform(size=(2, 3, 8, 8)).astype(np.float32)
    kernel = embed.proj.kernel[...].reshape(4, 4, 3, 6).transpose(3, 2, 0, 1)
    wanted = jax.lax.conv(jnp.asarray(image), kernel, (4, 4), "VALID") + embed.proj.bias[...][None, :, None, None]
    wanted = wanted.reshape(2, 6, 4).swapaxes(1, 2) + embed.pos_embed[...]
    np.testing.assert_allclose(embed(image), wanted, atol=1e-5)


def test_images_come_in_two_layouts_and_no_other() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    floats = (pixels / 255.0).astype(np.float32).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(scale_image(pixels, 3, 8), scale_image(floats, 3, 8), atol=1e-7)
    windows = np.stack([pixels, 255 - pixels], axis=1)
    np.testing.assert_array_equal(model_image({"image": windows}, 3, 8), scale_image(pixels, 3, 8))
    for wrong in (pixels.transpose(0, 3, 1, 2), floats.transpose(0, 2, 3, 1), pixels[:, :4], pixels.astype(np.int32)):
        with pytest.raises(ValueError, match="'image' has shape"):
            scale_image(wrong, 3, 8)


def test_state_is_the_key_or_the_sorted_others() -> None:
    obs = {"b": np.ones((2, 1)), "image": np.zeros((2, 8, 8, 3), np.uint8), "a": np.zeros((2, 2))}
    np.testing.assert_array_equal(model_state(obs, 3), [[0, 0, 1], [0, 0, 1]])
    np.testing.assert_array_equal(model_state({**obs, "state": np.full((2, 4), 7.0)}, 4), np.full((2, 4), 7.0))
    with pytest.raises(ValueError, match="state_dim=5"):
        model_state(obs, 5)


def test_tokenizer_makes_the_documented_ids() -> None:
    encoder = SimpleLanguageEncoder(max_len=8, embed_dim=8, num_heads=1, num_layers=1)
    tokens = encoder.tokenize(["Ab 9.-", "é!", "abcdefghijk"])
    np.testing.assert_array_equal(tokens[0], [2, 3, 1, 37, 38, 43, 0, 0])
    np.testing.assert_array_equal(tokens[1], [0, 40, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(tokens[2], range(2, 10))
    with pytest.raises(ValueError, match="vocab_size"):
        SimpleLanguageEncoder(vocab_size=43)
    with pytest.raises(ValueError, match="L up to 8"):
        encoder(np.zeros((1, 9), np.int32))


def test_what_the_tokenizer_would_lose_is_refused() -> None:
    check_instructions(["Go on, 7!", "12345678"], 9)
    with pytest.raises(ValueError, match=r"'123456789' has 9 characters; the model reads 8\."):
        check_instructions(["ok", "123456789"], 8)
    with pytest.raises(ValueError, match=r"'nimm das grüne' has characters that models do not read: ü$"):
        check_instructions(["nimm das grüne"], 20)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_masked_padding_changes_nothing(dropout: float) -> None:
    rngs, tokens = nnx.Rngs(0), np.array([[5, 9, 3, 0, 0, 0], [0, 0, 0, 0, 0, 0]], np.int32)
    shared: dict = {"max_len": 6, "embed_dim": 8, "num_heads": 2, "num_layers": 2, "dropout": dropout}
    masked = SimpleLanguageEncoder(**shared, mask_padding=True, rngs=rngs)
    read = SimpleLanguageEncoder(**shared, rngs=nnx.Rngs(0))
    for encoder, is_masked in ((masked, True), (read, False)):
        encoder.eval()
        whole, cut = encoder(tokens)[:, :3], encoder(tokens[:, :3])
        assert np.isfinite(whole).all()
        assert np.allclose(whole, cut, atol=1e-6) == is_masked
    masked.train()
    assert np.isfinite(masked(tokens, key=jax.random.key(0))).all()


def test_losses_leave_padding_out() -> None:
    error = jnp.asarray([[1.0, -3.0], [5.0, 5.0]])
    valid = jnp.asarray([True, False])
    assert masked_mean(error_fn("mse")(error), valid) == 5.0
    assert masked_mean(error_fn("l1")(error), valid) == 2.0
    assert masked_mean(error_fn("smooth_l1")(error), valid) == 1.5
    assert masked_mean(jnp.abs(error), jnp.zeros(2, bool)) == 0.0
    with pytest.raises(ValueError, match="l1, mse, smooth_l1"):
        error_fn("l2")


def test_statistics_normalise_and_come_back() -> None:
    rng = np.random.default_rng(0)
    states, actions = rng.normal(3.0, 2.0, (500, 3)), rng.uniform(0.0, 0.5, (500, 2))
    states[:, 2] = 4.0
    statistics = Statistics.from_arrays(states, actions, normalize_actions=True)
    obs = statistics.normalize_observations({"state": states.astype(np.float32), "image": "as it is"})
    assert obs["image"] == "as it is"
    np.testing.assert_allclose(obs["state"].mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(obs["state"].std(0), [1.0, 1.0, 0.0], atol=1e-5)
    actions = actions.astype(np.float32)
    normal = statistics.normalize_actions(actions)
    assert abs(float(normal.std()) - 1.0) < 1e-3
    np.testing.assert_allclose(statistics.denormalize_actions(normal), actions, atol=1e-6)
    assert np.array_equal(Statistics.from_arrays(states, actions).action_std, [1.0, 1.0])
