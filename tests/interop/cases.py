"""Modules that have a torch layout, with inputs for each; small, and no width twice, so that a wrong layout shows."""

import functools
from typing import Any

import jax
import numpy as np
from flax import nnx

from simscaleai_jax.models import (
    ActionChunkingTransformer,
    BehaviorCloning,
    DiffusionActionHead,
    DiffusionPolicy,
    FlowActionHead,
    FlowPolicy,
    MLPActionHead,
    VisionLanguageAction,
)
from simscaleai_jax.models.record import all_kwargs
from simscaleai_jax.rl.agents.ppo import ActorCritic

POLICIES = (ActionChunkingTransformer, BehaviorCloning, DiffusionPolicy, FlowPolicy, VisionLanguageAction)

VLA = {
    "image_size": 12, "patch_size": 4, "in_channels": 3, "embed_dim": 16, "num_heads": 2, "num_layers": 3,
    "mlp_ratio": 1.5, "max_text_len": 7, "vocab_size": 50, "lang_num_layers": 2, "action_dim": 5, "state_dim": 6,
}  # fmt: skip
CAMERAS = {"cameras": ["front_image", "image"], "image_size": 12}
ACT = {
    "state_dim": 6, "action_dim": 5, "embed_dim": 16, "num_heads": 2, "num_layers": 3, "posterior_layers": 1,
    "mlp_ratio": 1.5, "latent_dim": 3,
}  # fmt: skip
CHUNKS = {"state_dim": 6, "action_dim": 5, "hidden_dim": 16, "n_layers": 2}
CASES: dict[str, tuple[type, dict[str, Any]]] = {
    "act": (ActionChunkingTransformer, {**ACT, "action_horizon": 4}),
    "act-images": (ActionChunkingTransformer, {**ACT, **CAMERAS, "action_horizon": 3, "obs_horizon": 2}),
    "bc": (BehaviorCloning, {"state_dim": 6, "action_dim": 5, "hidden_dim": 16, "n_layers": 2}),
    "bc-image": (
        BehaviorCloning,
        {"state_dim": 6, "action_dim": 5, "hidden_dim": 16, "use_image": True, "image_size": 44, "image_embed_dim": 9},
    ),
    "bc-keypoints": (
        BehaviorCloning,
        {
            "state_dim": 6,
            "action_dim": 5,
            "use_image": True,
            **CAMERAS,
            "image_pooling": "keypoints",
            "auxiliary_size": 2,
        },
    ),
    "act-keypoints": (ActionChunkingTransformer, {**ACT, **CAMERAS, "image_size": 16, "image_pooling": "keypoints"}),
    "bc-chunk": (BehaviorCloning, {**CHUNKS, "action_horizon": 3, "obs_horizon": 2}),
    "diffusion": (DiffusionPolicy, {**CHUNKS, "action_horizon": 4, "obs_horizon": 3}),
    "flow-images": (
        FlowPolicy,
        {**CHUNKS, **CAMERAS, "state_dim": 0, "action_horizon": 3, "obs_horizon": 2, "image_embed_dim": 7},
    ),
    "vla-mlp": (VisionLanguageAction, VLA),
    "vla-chunk": (VisionLanguageAction, {**VLA, "action_horizon": 2, "use_language": False, "state_dim": 0}),
    "vla-diffusion": (
        VisionLanguageAction,
        {**VLA, "action_head_type": "diffusion", "action_horizon": 3, "head_layers": 2},
    ),
    "vla-masked": (VisionLanguageAction, {**VLA, **CAMERAS, "mask_padding": True, "loss_type": "l1"}),
    "vla-keypoints": (
        VisionLanguageAction,
        {**VLA, **CAMERAS, "image_size": 16, "grounding": "keypoints", "auxiliary_size": 2},
    ),
    "vla-flow": (VisionLanguageAction, {**VLA, "action_head_type": "flow"}),
    "mlp_head": (MLPActionHead, {"input_dim": 7, "action_dim": 5, "hidden_dim": 16, "n_layers": 3}),
    "diffusion_head": (DiffusionActionHead, {"input_dim": 7, "action_dim": 5, "hidden_dim": 16, "n_layers": 3}),
    "diffusion_head-linear": (
        DiffusionActionHead,
        {"input_dim": 7, "action_dim": 5, "hidden_dim": 16, "n_layers": 1, "beta_start": 1e-3, "beta_end": 0.03},
    ),
    "flow_head": (FlowActionHead, {"input_dim": 7, "action_dim": 5, "hidden_dim": 16, "action_horizon": 2}),
    "actor_critic": (ActorCritic, {"obs_dim": 6, "action_dim": 5, "hidden_dim": 16}),
}
BATCH = 3
GENERATIVE = ("vla-diffusion", "vla-flow", "diffusion", "flow-images")


@functools.cache
def make(name: str) -> Any:
    """The case's module in eval mode, not to be changed.

    Every parameter is random: fresh norms and biases are ones and zeros and would hide a mistake.
    """
    from simscaleai_jax.models.record import flat_parameters, set_parameters

    cls, kwargs = CASES[name]
    module = cls(**kwargs)
    rng = np.random.default_rng(sum(map(ord, name)))
    params = flat_parameters(module)
    fresh = {path: (0.15 * rng.normal(size=value.shape)).astype(np.float32) for path, value in params.items()}
    set_parameters(module, fresh)
    module.eval()
    return module


def inputs(name: str) -> dict[str, np.ndarray]:
    """Flat arrays: what the module reads, and the noise that its head draws."""
    cls, kwargs = CASES[name]
    rng = np.random.default_rng(1)

    def floats(*shape: int) -> np.ndarray:
        return rng.uniform(-1, 1, shape).astype(np.float32)

    horizon, action_dim = all_kwargs(cls, kwargs).get("action_horizon", 1), kwargs["action_dim"]
    actions = (BATCH, action_dim) if horizon == 1 else (BATCH, horizon, action_dim)
    out = {"actions": floats(*actions), "noise": rng.normal(size=actions).astype(np.float32)}
    out |= {"steps": rng.integers(0, 100, BATCH), "time": rng.uniform(0, 1, BATCH).astype(np.float32)}
    out |= {"features": floats(BATCH, kwargs.get("input_dim", kwargs.get("obs_dim", 1)))}
    if cls in POLICIES:
        size, steps = kwargs.get("image_size", 4), all_kwargs(cls, kwargs).get("obs_horizon", 1)
        window = (BATCH, steps) if steps > 1 else (BATCH,)
        out |= {"state": floats(*window, 6), "image": rng.integers(0, 256, (*window, size, size, 3), np.uint8)}
        out |= {"front_image": rng.integers(0, 256, (*window, size, size, 3), np.uint8)}
        language = rng.integers(1, 44, (BATCH, 7))
        language[1, 4:], language[2] = 0, 0  # padding, and a text of nothing else
        out |= {"language": language}
    return out


def outputs(name: str, module: Any, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What our module computes from `inputs`, under the names that `torch_reference.py` uses."""
    return {key: np.asarray(value) for key, value in _compiled(name)(nnx.state(module), data).items()}


@functools.cache
def _compiled(name: str) -> Any:
    graphdef = nnx.graphdef(make(name))
    return jax.jit(lambda params, data: _outputs(name, nnx.merge(graphdef, params), data))


def _outputs(name: str, module: Any, data: dict[str, Any]) -> dict[str, Any]:
    kind = name.split("-")[0]
    if kind == "actor_critic":
        log_prob, value, entropy = module.evaluate_actions(data["features"], data["actions"])
        distribution, _ = module(data["features"])
        return {"mean": distribution.mean, "log_prob": log_prob, "value": value, "entropy": entropy}
    if kind == "mlp_head":
        return {"actions": module(data["features"])}
    if kind in ("diffusion_head", "flow_head"):
        return _generative(module, data["features"], data)
    observations = {name: data[name] for name in ("state", "image", "front_image")}
    batch = {"observations": observations, "actions": data["actions"], "language": data["language"]}
    if name in GENERATIVE:
        features = module.features(batch)
        return {"features": features, **_generative(module.action_head, features, data)}
    return dict(module(module.prepare_batch(batch)))


def _generative(head: Any, features: Any, data: dict[str, Any]) -> dict[str, Any]:
    noise = data["noise"]
    sample = {f"sample{count}": head.sample(features, noise=noise, num_steps=count) for count in (1, 4, 10)}
    if isinstance(head, DiffusionActionHead):
        loss, estimate = head.denoise(features, data["actions"], data["steps"], noise)
    else:
        loss, estimate = head.match(features, data["actions"], data["time"], noise)
    return {"loss": loss, "estimate": estimate, **sample}
