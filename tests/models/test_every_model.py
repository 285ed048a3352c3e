"""What every registered model keeps, tested on fake batches made from its own input spec."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from simscaleai_jax.models import list_models
from simscaleai_jax.models.record import changed_kwargs, describe, flat_parameters, rebuild_model
from tests.models.conftest import BATCH, CASES, Compiled


def test_every_registered_model_has_a_case() -> None:
    assert {name.split("-")[0] for name in CASES} == set(list_models())


def test_forward_returns_the_documented_dict(compiled: Compiled) -> None:
    out = compiled.evaluate(compiled.params, compiled.batch, jax.random.key(0))
    wanted = {"predicted_actions", "loss", "action_mse"} | ({"action_mae"} if compiled.name.startswith("bc") else set())
    wanted |= {"auxiliary_mae"} if "auxiliary" in compiled.batch else set()
    assert set(out) == wanted
    assert out["predicted_actions"].shape == compiled.batch["actions"].shape
    assert all(value.dtype == jnp.float32 for value in out.values())
    error = np.asarray(out["predicted_actions"]) - compiled.batch["actions"]
    np.testing.assert_allclose(out["action_mse"], np.mean(error**2), rtol=1e-5)
    if "action_mae" in out:
        np.testing.assert_allclose(out["action_mae"], np.mean(np.abs(error)), rtol=1e-5)


def test_every_parameter_gets_a_finite_gradient(compiled: Compiled) -> None:
    (_, out), gradients = compiled.train(compiled.params, compiled.batch, jax.random.key(1))
    assert np.isfinite(out["loss"])
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradients)[0]:
        values = np.asarray(leaf)
        assert np.isfinite(values).all(), path
        assert np.abs(values).max() > 0, path


def test_dropout_needs_a_key_and_training_mode(compiled: Compiled) -> None:
    batch = compiled.batch
    one, two = (compiled.train(compiled.params, batch, jax.random.key(i))[0][1] for i in (1, 2))
    assert not np.allclose(one["predicted_actions"], two["predicted_actions"], atol=0.0)
    again = compiled.train(compiled.params, batch, jax.random.key(1))[0][1]
    np.testing.assert_array_equal(one["loss"], again["loss"])
    if compiled.name.startswith(("act", "bc", "vla-mlp")):  # the other heads draw noise from the key in every mode
        actions = [compiled.evaluate(compiled.params, batch, jax.random.key(i))["predicted_actions"] for i in (1, 2)]
        np.testing.assert_array_equal(*actions)


def test_padding_does_not_reach_the_loss(compiled: Compiled) -> None:
    actions = compiled.batch["actions"].copy()
    is_pad = np.zeros(actions.shape[:-1], bool)
    is_pad[-1] = True
    key = jax.random.key(3)
    actions[-1] = 0.9
    first = compiled.evaluate(compiled.params, {**compiled.batch, "actions": actions, "is_pad": is_pad}, key)
    actions[-1] = -0.9
    second = compiled.evaluate(compiled.params, {**compiled.batch, "actions": actions, "is_pad": is_pad}, key)
    np.testing.assert_array_equal(first["loss"], second["loss"])
    if compiled.name.startswith(("act", "bc")):
        as_mask = compiled.evaluate(compiled.params, {**compiled.batch, "actions": actions, "mask": ~is_pad}, key)
        np.testing.assert_array_equal(first["loss"], as_mask["loss"])
    shown = compiled.evaluate(
        compiled.params, {**compiled.batch, "actions": actions, "is_pad": np.zeros_like(is_pad)}, key
    )
    assert not np.allclose(shown["action_mse"], second["action_mse"])


def test_a_missing_input_is_named(compiled: Compiled) -> None:
    batch = compiled.batch
    for name in batch["observations"]:
        rest = {key: value for key, value in batch["observations"].items() if key != name}
        with pytest.raises(ValueError, match=f"observations\\['{name}'\\]"):
            compiled.model({**batch, "observations": rest})
    if "language" in batch:
        with pytest.raises(ValueError, match=r"batch\['language'\]"):
            compiled.model({name: value for name, value in batch.items() if name != "language"})


def test_wrong_actions_are_named(compiled: Compiled) -> None:
    with pytest.raises(ValueError, match="'actions' has shape"):
        compiled.model({**compiled.batch, "actions": np.zeros((BATCH, 9), np.float32)})


def test_prepared_batches_stay_as_they_are(compiled: Compiled) -> None:
    prepared = compiled.model.prepare_batch(compiled.batch)
    assert jax.tree.structure(prepared) == jax.tree.structure(compiled.batch)
    assert all(a is b for a, b in zip(jax.tree.leaves(prepared), jax.tree.leaves(compiled.batch), strict=True))


def test_a_model_is_rebuilt_from_its_description(compiled: Compiled) -> None:
    name, kwargs = describe(compiled.model)
    params = flat_parameters(compiled.model)
    rebuilt = rebuild_model(name, kwargs, params)
    assert changed_kwargs(rebuilt) == kwargs == CASES[compiled.name][1]
    assert all(np.array_equal(params[path], value) for path, value in flat_parameters(rebuilt).items())
    first = next(iter(params))
    with pytest.raises(ValueError, match=first):
        rebuild_model(name, kwargs, {path: value for path, value in params.items() if path != first})


def test_split_holds_nothing_but_parameters(compiled: Compiled) -> None:
    _, params, rest = nnx.split(compiled.model, nnx.Param, ...)
    assert jax.tree.leaves(rest) == []
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
