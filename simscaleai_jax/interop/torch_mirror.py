"""Torch twins of the models, for people who deploy or fine-tune with torch; needs torch and NumPy, no JAX.

    from simscaleai_jax.interop.torch_mirror import load, load_model
    policy = load("policy.safetensors")         # raw observations in, actions out: see TorchPolicy
    action = policy({"joint_pos": joint_pos, ...})
    model = load_model("policy.safetensors")    # the bare network, loaded strictly, in eval mode

Class names, constructors and state_dict names are the documented ones. Inputs follow the same contract as the JAX
models: images uint8 (B, H, W, C) or float (B, C, H, W) in [0, 1]; the state is obs["state"] or the other keys in sorted
order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributions import Normal
from torch.nn import functional as F

from simscaleai_jax.interop.torch_mirror_chunks import (
    ActionChunkingTransformer,
    DiffusionPolicy,
    FlowPolicy,
    image_encoder,
    perceptron,
)
from simscaleai_jax.interop.torch_mirror_heads import (
    DiffusionActionHead,
    FlowActionHead,
    MLPActionHead,
    ResidualBlock,
    SinusoidalPosEmbed,
)
from simscaleai_jax.interop.torch_mirror_policy import TorchCarry, TorchPolicy
from simscaleai_jax.interop.torch_mirror_vla import (
    PatchEmbedding,
    SimpleLanguageEncoder,
    VisionEncoder,
    VisionLanguageAction,
    state_vector,
    to_channels_first,
)

__all__ = [
    "MODELS",
    "ActionChunkingTransformer",
    "ActorCritic",
    "BehaviorCloning",
    "DiffusionActionHead",
    "DiffusionPolicy",
    "FlowActionHead",
    "FlowPolicy",
    "MLPActionHead",
    "PatchEmbedding",
    "ResidualBlock",
    "SimpleLanguageEncoder",
    "SinusoidalPosEmbed",
    "TorchCarry",
    "TorchPolicy",
    "VisionEncoder",
    "VisionLanguageAction",
    "load",
    "load_model",
    "read",
]

JSON_ENTRIES = ("model_kwargs", "step", "statistics", "policy", "manifest")
LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}


class BehaviorCloning(nn.Module):
    """Behaviour cloning on the latest states and, with `use_image`, an image; one action or a chunk."""

    def __init__(
        self,
        state_dim: int = 20,
        action_dim: int = 4,
        hidden_dim: int = 256,
        n_layers: int = 3,
        use_image: bool = False,
        image_channels: int = 3,
        image_size: int = 128,
        image_embed_dim: int = 128,
        dropout: float = 0.1,
        loss_type: str = "mse",
        *,
        action_horizon: int = 1,
        obs_horizon: int = 1,
        image_key: str = "image",
        image_pooling: str = "average",
        cameras: Any = (),
        auxiliary_size: int = 0,
    ) -> None:
        super().__init__()
        self.use_image, self.pictures, self.has_several = use_image, tuple(cameras) or (image_key,), bool(cameras)
        self.obs_horizon = obs_horizon
        self.shape = (action_dim,) if action_horizon == 1 else (action_horizon, action_dim)
        self.loss = LOSSES[loss_type]
        self.state_encoder = perceptron(obs_horizon * state_dim, hidden_dim, hidden_dim, 2, dropout)
        seen = image_embed_dim * len(self.pictures) if use_image else 0
        if use_image:
            encoders = [image_encoder(image_channels, image_embed_dim, image_pooling) for _ in self.pictures]
            if cameras:
                self.image_encoders = nn.ModuleList(encoders)
            else:
                self.image_encoder = encoders[0]
        if auxiliary_size:
            self.auxiliary = nn.Linear(seen, auxiliary_size)
        width = hidden_dim + seen
        self.action_head = perceptron(width, hidden_dim, action_horizon * action_dim, n_layers, dropout)

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """{"predicted_actions"} and, with batch["actions"], {"loss", "action_mse", "action_mae"}."""
        observations = batch["observations"]
        state = state_vector(observations)
        features = self.state_encoder(state if self.obs_horizon == 1 else state.flatten(1))
        if self.use_image:
            images = [observations[key] for key in self.pictures]
            images = [to_channels_first(image if self.obs_horizon == 1 else image[:, -1]) for image in images]
            encoders = self.image_encoders if self.has_several else [self.image_encoder]
            seen = [encoder(image) for encoder, image in zip(encoders, images, strict=True)]
            features = torch.cat([features, *seen], dim=-1)
        actions = self.action_head(features)
        actions = actions if len(self.shape) == 1 else actions.reshape(-1, *self.shape)
        out = {"predicted_actions": actions}
        if "actions" in batch:
            target = batch["actions"]
            out["loss"] = self.loss(actions, target)
            out["action_mse"] = F.mse_loss(actions, target).detach()
            out["action_mae"] = F.l1_loss(actions, target).detach()
        return out

    @torch.no_grad()
    def predict(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Actions (B, A) or (B, h, A), in eval mode."""
        self.eval()
        return self({"observations": obs})["predicted_actions"]


class ActorCritic(nn.Module):
    """PPO's Gaussian policy and value function over shared features."""

    def __init__(self, obs_dim: int, action_dim: int, hidden_dim: int = 256, n_layers: int = 2) -> None:
        super().__init__()
        sizes = [obs_dim] + [hidden_dim] * n_layers
        layers = [layer for i in range(n_layers) for layer in (nn.Linear(sizes[i], sizes[i + 1]), nn.Tanh())]
        self.feature_net = nn.Sequential(*layers)
        self.actor_mean = nn.Linear(hidden_dim, action_dim)
        self.actor_log_std = nn.Parameter(torch.zeros(action_dim))
        self.critic = nn.Linear(hidden_dim, 1)
        self.log_std_min, self.log_std_max = -5.0, 1.0

    def forward(self, obs: torch.Tensor) -> tuple[Normal, torch.Tensor]:
        """Action distribution and value (B,) of normalised observations (B, obs_dim)."""
        features = self.feature_net(obs)
        std = self.actor_log_std.clamp(self.log_std_min, self.log_std_max).exp()
        return Normal(self.actor_mean(features), std), self.critic(features).squeeze(-1)

    def get_action(self, obs: torch.Tensor, deterministic: bool = False) -> tuple[torch.Tensor, ...]:
        """(action (B, A), log probability (B,), value (B,))."""
        distribution, value = self(obs)
        action = distribution.mean if deterministic else distribution.sample()
        return action, distribution.log_prob(action).sum(-1), value

    def evaluate_actions(self, obs: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(log probability (B,), value (B,), entropy (B,)) of given actions."""
        distribution, value = self(obs)
        return distribution.log_prob(actions).sum(-1), value, distribution.entropy().sum(-1)


MODELS = {
    "act": ActionChunkingTransformer,
    "bc": BehaviorCloning,
    "diffusion": DiffusionPolicy,
    "flow": FlowPolicy,
    "vla": VisionLanguageAction,
    "mlp_head": MLPActionHead,
    "diffusion_head": DiffusionActionHead,
    "flow_head": FlowActionHead,
    "actor_critic": ActorCritic,
}


def read(path: str | Path) -> dict[str, Any]:
    """Reads an export: {"model_state_dict", "model_name", "model_kwargs", "step"} and, of a policy, "statistics",
    "policy" (see `interop.acting`) and "manifest".
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        return torch.load(path, map_location="cpu", weights_only=True)
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    record: dict[str, Any] = {"model_state_dict": tensors, "model_name": metadata["model_name"]}
    record |= {name: json.loads(metadata[name]) for name in JSON_ENTRIES if name in metadata}
    return record


def load(path: str | Path, *, execute_steps: int | None = None, ensemble: float | None = None) -> TorchPolicy:
    """The policy of an exported checkpoint, which acts as `simscaleai_jax.policy.load_policy` does.

    Args:
      path: .safetensors or .pt file.
      execute_steps: actions executed per plan.
      ensemble: weight decay of temporal ensembling, instead of `execute_steps`. None for both: as recorded.
    Raises:
      ValueError: a file of a bare module, which says nothing about acting; or `execute_steps` out of range.
    """
    record = read(path)
    if "policy" not in record:
        raise ValueError(
            f"{path} holds a bare {record['model_name']!r} and no policy; load_model({str(path)!r}) reads it."
        )
    return TorchPolicy(_build(record), record["policy"], execute_steps, ensemble)


def load_model(path: str | Path) -> nn.Module:
    """The bare network of an export, its weights loaded strictly; in eval mode. It takes normalised inputs."""
    return _build(read(path))


def _build(record: dict[str, Any]) -> nn.Module:
    model = MODELS[record["model_name"]](**record["model_kwargs"])
    model.load_state_dict(record["model_state_dict"], strict=True)
    return model.eval()
