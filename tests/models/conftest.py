"""Small models that the tests share, and strict rank promotion around every test here."""

import copy
from collections.abc import Iterator
from typing import Any

import jax
import pytest
from flax import nnx

from simscaleai_jax.models import (
    ActionChunkingTransformer,
    BehaviorCloning,
    DiffusionPolicy,
    FlowPolicy,
    VisionLanguageAction,
)
from simscaleai_jax.models.specs import fake_batch
from tests.params import others_wide

TINY_VLA = {
    "image_size": 16, "patch_size": 8, "embed_dim": 16, "num_heads": 2, "num_layers": 1, "mlp_ratio": 2.0,
    "max_text_len": 6, "lang_num_layers": 1, "state_dim": 5, "head_layers": 2,
}  # fmt: skip
SEEING = {"cameras": ("front_image", "wrist_image"), "image_size": 36}
CASES: dict[str, tuple[type, dict[str, Any]]] = {
    "act": (
        ActionChunkingTransformer,
        {
            "state_dim": 5,
            "action_horizon": 3,
            "embed_dim": 16,
            "num_heads": 2,
            "num_layers": 1,
            "posterior_layers": 1,
            "latent_dim": 4,
        },
    ),
    "act-images": (
        ActionChunkingTransformer,
        {
            "state_dim": 5,
            "action_horizon": 3,
            "obs_horizon": 2,
            "embed_dim": 16,
            "num_heads": 2,
            "num_layers": 1,
            "posterior_layers": 1,
            "latent_dim": 4,
            **SEEING,
        },
    ),
    "bc": (BehaviorCloning, {"state_dim": 5, "hidden_dim": 16, "n_layers": 2}),
    "bc-image": (
        BehaviorCloning,
        {"state_dim": 5, "hidden_dim": 16, "use_image": True, "image_size": 36, "image_embed_dim": 8},
    ),
    "bc-keypoints": (
        BehaviorCloning,
        {
            "state_dim": 5,
            "hidden_dim": 16,
            "use_image": True,
            "image_size": 20,
            "image_embed_dim": 8,
            "image_pooling": "keypoints",
            "cameras": ("front_image", "image"),
            "auxiliary_size": 2,
        },
    ),
    "bc-chunk": (
        BehaviorCloning,
        {"state_dim": 5, "hidden_dim": 16, "n_layers": 2, "action_horizon": 3, "obs_horizon": 2, "loss_type": "l1"},
    ),
    "diffusion": (DiffusionPolicy, {"state_dim": 5, "action_horizon": 3, "hidden_dim": 16, "n_layers": 2}),
    "flow-images": (
        FlowPolicy,
        {"state_dim": 0, "action_horizon": 3, "hidden_dim": 16, "n_layers": 2, "image_embed_dim": 8, **SEEING},
    ),
    "vla-mlp": (VisionLanguageAction, {**TINY_VLA, "action_horizon": 3}),
    "vla-mlp-keypoints": (
        VisionLanguageAction,
        {**TINY_VLA, "grounding": "keypoints", "auxiliary_size": 5, "cameras": ("front_image", "image")},
    ),
    "vla-diffusion": (VisionLanguageAction, {**TINY_VLA, "action_head_type": "diffusion"}),
    "vla-flow": (
        VisionLanguageAction,
        {**TINY_VLA, "action_head_type": "flow", "action_horizon": 3, "cameras": ("front_image", "image")},
    ),
}
BATCH = 2


@pytest.fixture(autouse=True)
def strict_ranks() -> Iterator[None]:
    with jax.numpy_rank_promotion("raise"):
        yield


class Compiled:
    """A model of `CASES` with its jitted loss, gradient and evaluation, compiled once a session."""

    def __init__(self, name: str) -> None:
        cls, kwargs = CASES[name]
        self.name = name
        self.model = cls(**kwargs)
        self.batch = fake_batch(self.model.input_spec(BATCH))
        graphdef, self.params = nnx.split(self.model)

        def loss(params: Any, batch: Any, key: Any) -> tuple[Any, Any]:
            out = nnx.merge(graphdef, params)(batch, key=key)
            return out["loss"], out

        self.train = jax.jit(jax.value_and_grad(loss, has_aux=True))
        evaluated = copy.deepcopy(self.model)
        evaluated.eval()
        eval_graphdef = nnx.graphdef(evaluated)
        self.evaluate = jax.jit(lambda params, batch, key: nnx.merge(eval_graphdef, params)(batch, key=key))


@pytest.fixture(scope="session")
def compiled_cache() -> dict[str, Compiled]:
    return {}


WIDE = ("act-images", "vla-diffusion", "vla-flow", "vla-mlp")  # to compile; parts of them are in the others


@pytest.fixture(params=others_wide(sorted(CASES), *(name for name in CASES if name not in WIDE)))
def compiled(request: pytest.FixtureRequest, compiled_cache: dict[str, Compiled]) -> Compiled:
    name = request.param
    if name not in compiled_cache:
        compiled_cache[name] = Compiled(name)
    return compiled_cache[name]
