"""Toy proofs: behaviour cloning overfits, language is used, a full-size model trains."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from simscaleai_jax.models import BehaviorCloning, VisionLanguageAction


def fit(model: Any, batch: Any, num_steps: int, lr: float) -> tuple[Any, float]:
    """The model after `num_steps` Adam steps on one batch, without dropout, and its last loss."""
    graphdef, params = nnx.split(model)
    optimizer = optax.adam(optax.cosine_decay_schedule(lr, num_steps))

    def loss(params: Any) -> Any:
        return nnx.merge(graphdef, params)(batch)["loss"]

    def step(carry: Any, _: None) -> tuple[Any, Any]:
        params, state = carry
        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradients, state)
        return (optax.apply_updates(params, updates), state), value

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=num_steps))
    (params, _), losses = run((params, optimizer.init(params)))
    return nnx.merge(graphdef, params), float(losses[-1])


def test_behaviour_cloning_overfits_ten_samples() -> None:
    rng = np.random.default_rng(0)
    batch = {
        "observations": {"state": rng.normal(size=(10, 20)).astype(np.float32)},
        "actions": rng.uniform(-1, 1, (10, 4)).astype(np.float32),
    }
    model, loss = fit(BehaviorCloning(hidden_dim=64), batch, 400, 3e-3)
    assert loss < 1e-4
    error = np.asarray(model.predict(batch["observations"])) - batch["actions"]
    assert np.mean(error**2) < 1e-4


@pytest.mark.slow
def test_language_decides_between_actions() -> None:
    texts = ["left", "right"] * 8
    image = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8)
    wanted = np.asarray([[-0.8], [0.8]] * 8, np.float32)
    model = VisionLanguageAction(
        8, 4, embed_dim=16, num_heads=2, num_layers=1, max_text_len=5, lang_num_layers=1, action_dim=1
    )
    batch = model.prepare_batch({"observations": {"image": image}, "actions": wanted, "language": texts})
    model, loss = fit(model, batch, 400, 1e-3)
    assert loss < 0.01
    swapped = {**batch, "language": np.roll(batch["language"], 1, axis=0)}
    assert float(jax.jit(lambda batch: model(batch)["loss"])(swapped)) > 1.0
    np.testing.assert_allclose(model.predict({"image": image[:1]}, "Right"), [0.8], atol=0.2)


@pytest.mark.wide
def test_a_full_size_model_trains_one_step() -> None:
    """Image 224, 1024 wide, 24 layers, 16 heads in bfloat16 with float32 parameters, batch 1."""
    kwargs = {"image_size": 224, "embed_dim": 1024, "num_heads": 16, "num_layers": 24, "max_text_len": 16}
    options = {"dtype": "bfloat16", "scan_layers": True, "remat": True, "lang_num_layers": 2}
    graphdef, params = nnx.split(nnx.jit(lambda: VisionLanguageAction(**kwargs, **options))())
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) > 450e6
    batch = {
        "observations": {"image": np.zeros((1, 224, 224, 3), np.uint8)},
        "actions": np.full((1, 4), 0.5, np.float32),
        "language": np.zeros((1, 16), np.int32),
    }

    def step(params: Any) -> tuple[Any, Any]:
        value, gradients = jax.value_and_grad(lambda p: nnx.merge(graphdef, p)(batch, key=jax.random.key(0))["loss"])(
            params
        )
        return jax.tree.map(lambda p, g: p - 1e-4 * g.astype(jnp.float32), params, gradients), value

    step = jax.jit(step, donate_argnums=0)
    params, first = step(params)
    params, second = step(params)
    assert np.isfinite(first)
    assert second < first
