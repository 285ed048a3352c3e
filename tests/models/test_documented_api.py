"""Constructors take the documented arguments in the documented order with the documented defaults."""

import importlib
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from simscaleai_jax import models
from simscaleai_jax.models.specs import fake_batch
from tests.models.conftest import CASES, TINY_VLA

REQUIRED = inspect.Parameter.empty
VISION = {
    "image_size": 128, "patch_size": 16, "in_channels": 3, "embed_dim": 256, "num_heads": 4, "num_layers": 4,
    "mlp_ratio": 4.0, "dropout": 0.1,
}  # fmt: skip
DOCUMENTED: dict[str, dict[str, Any]] = {
    "BehaviorCloning": {
        "state_dim": 20, "action_dim": 4, "hidden_dim": 256, "n_layers": 3, "use_image": False, "image_channels": 3,
        "image_size": 128, "image_embed_dim": 128, "dropout": 0.1, "loss_type": "mse",
    },
    "PatchEmbedding": {"image_size": 128, "patch_size": 16, "in_channels": 3, "embed_dim": 256},
    "VisionEncoder": VISION,
    "SimpleLanguageEncoder": {
        "vocab_size": 1000, "max_len": 64, "embed_dim": 256, "num_heads": 4, "num_layers": 2, "dropout": 0.1,
    },
    "VisionLanguageAction": {
        **VISION, "use_language": True, "vocab_size": 1000, "max_text_len": 64, "lang_num_layers": 2, "action_dim": 4,
        "action_head_type": "mlp", "action_horizon": 1, "state_dim": 0,
    },
    "MLPActionHead": {
        "input_dim": 256, "action_dim": 4, "hidden_dim": 256, "n_layers": 2, "dropout": 0.1, "tanh_output": True,
    },
    "SinusoidalPosEmbed": {"dim": REQUIRED},
    "ResidualBlock": {"input_dim": REQUIRED, "hidden_dim": REQUIRED, "output_dim": REQUIRED},
    "DiffusionActionHead": {
        "input_dim": 256, "action_dim": 4, "hidden_dim": 256, "n_layers": 4, "num_diffusion_steps": 100,
        "num_inference_steps": 10, "beta_start": 1e-4, "beta_end": 0.02,
    },
}  # fmt: skip

MODULES = {
    "registry": ("register_model", "create_model", "list_models", "ModelRegistry"),
    "bc": ("BehaviorCloning",),
    "vla": ("PatchEmbedding", "VisionEncoder", "SimpleLanguageEncoder", "VisionLanguageAction"),
    "policy_heads.mlp_head": ("MLPActionHead",),
    "policy_heads.diffusion_head": ("SinusoidalPosEmbed", "ResidualBlock", "DiffusionActionHead"),
}


@pytest.mark.parametrize("path", sorted(MODULES))
def test_names_come_from_the_documented_modules(path: str) -> None:
    module = importlib.import_module(f"simscaleai_jax.models.{path}")
    for name in MODULES[path]:
        assert getattr(module, name) is getattr(models, name)


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_constructors_are_the_documented_ones(name: str) -> None:
    parameters = list(inspect.signature(getattr(models, name).__init__).parameters.values())[1:]
    positional = {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
    assert positional == DOCUMENTED[name]
    assert list(positional) == list(DOCUMENTED[name])
    assert all(p.default is not REQUIRED for p in parameters if p.kind is p.KEYWORD_ONLY), "additions need defaults"
    assert callable(getattr(models, name).forward)


def test_parts_have_the_documented_shapes() -> None:
    image = np.zeros((2, 3, 16, 16), np.float32)
    assert models.PatchEmbedding(16, 8, 3, 12)(image).shape == (2, 4, 12)
    assert models.VisionEncoder(16, 8, 3, 12, 2, 1)(image).shape == (2, 5, 12)
    encoder = models.SimpleLanguageEncoder(max_len=6, embed_dim=12, num_heads=2, num_layers=1)
    assert encoder(encoder.tokenize(["go", "left"])).shape == (2, 6, 12)
    assert models.MLPActionHead(12, 3, 8)(np.zeros((2, 12), np.float32)).shape == (2, 3)


def test_an_unknown_head_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"Unknown action_head_type 'difusion'.*diffusion.*flow.*mlp|mlp.*diffusion"):
        models.VisionLanguageAction(**{**TINY_VLA, "action_head_type": "difusion"})


@pytest.mark.parametrize("head_type", ["diffusion", "flow"])
def test_the_head_that_was_asked_for_is_used(head_type: str) -> None:
    wanted = {"diffusion": models.DiffusionActionHead, "flow": models.FlowActionHead}[head_type]
    model = models.VisionLanguageAction(**{**TINY_VLA, "action_head_type": head_type, "action_horizon": 3})
    assert type(model.action_head) is wanted
    assert model.action_head.action_horizon == 3


@pytest.mark.wide
@pytest.mark.parametrize("name", ["bc", "vla-mlp"])
def test_bfloat16_computes_with_float32_parameters_and_losses(name: str) -> None:
    cls, kwargs = CASES[name]
    batch = fake_batch(cls(**kwargs).input_spec(2))
    results = {}
    for dtype in ("float32", "bfloat16"):
        graphdef, params = nnx.split(cls(**kwargs, dtype=dtype))
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}

        def loss(params: Any, graphdef: Any = graphdef) -> tuple[Any, Any]:
            out = nnx.merge(graphdef, params)(batch)
            return out["loss"], out

        (_, out), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        assert {value.dtype for value in jax.tree.leaves((out, gradients))} == {jnp.dtype("float32")}
        jaxpr = str(jax.make_jaxpr(loss)(params))
        assert ("bf16" in jaxpr) is (dtype == "bfloat16"), "matrix products run in the computing dtype"
        results[dtype] = out
    np.testing.assert_allclose(results["bfloat16"]["loss"], results["float32"]["loss"], rtol=0.05)
