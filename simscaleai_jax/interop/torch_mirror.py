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
    "ActorCritic",
    "BehaviorCloning",
    "DiffusionActionHead",
    "FlowActionHead",
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
    """Behaviour cloning on the state and, with `use_image`, an image."""

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
    ) -> None:
        super().__init__()
        self.use_image = use_image
        self.loss = LOSSES[loss_type]
        self.state_encoder = _perceptron(state_dim, hidden_dim, hidden_dim, 2, dropout)
        if use_image:
            self.image_encoder = nn.Sequential(
                *(nn.Conv2d(image_channels, 32, 8, stride=4, padding=2), nn.ReLU()),
                *(nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.ReLU()),
                *(nn.Conv2d(64, 64, 3, stride=1, padding=1), nn.ReLU()),
                *(nn.AdaptiveAvgPool2d(4), nn.Flatten()),
                *(nn.Linear(1024, image_embed_dim), nn.ReLU()),
            )
        width = hidden_dim + (image_embed_dim if use_image else 0)
        self.action_head = _perceptron(width, hidden_dim, action_dim, n_layers, dropout)

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """{"predicted_actions"} and, with batch["actions"], {"loss", "action_mse", "action_mae"}."""
        observations = batch["observations"]
        features = self.state_encoder(state_vector(observations))
        if self.use_image:
            image = self.image_encoder(to_channels_first(observations["image"]))
            features = torch.cat([features, image], dim=-1)
        actions = self.action_head(features)
        out = {"predicted_actions": actions}
        if "actions" in batch:
            target = batch["actions"]
            out["loss"] = self.loss(actions, target)
            out["action_mse"] = F.mse_loss(actions, target).detach()
            out["action_mae"] = F.l1_loss(actions, target).detach()
        return out

    @torch.no_grad()
    def predict(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Actions (B, A), in eval mode."""
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
    "bc": BehaviorCloning,
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


def load(path: str | Path, *, execute_steps: int | None = None) -> TorchPolicy:
    """The policy of an exported checkpoint, which acts as `simscaleai_jax.policy.load_policy` does.

    Args:
      path: .safetensors or .pt file.
      execute_steps: actions executed per plan; None: the whole plan.
    Raises:
      ValueError: a file of a bare module, which says nothing about acting; or `execute_steps` out of range.
    """
    record = read(path)
    if "policy" not in record:
        raise ValueError(
            f"{path} holds a bare {record['model_name']!r} and no policy; load_model({str(path)!r}) reads it."
        )
    return TorchPolicy(_build(record), record["policy"], execute_steps)


def load_model(path: str | Path) -> nn.Module:
    """The bare network of an export, its weights loaded strictly; in eval mode. It takes normalised inputs."""
    return _build(read(path))


def _build(record: dict[str, Any]) -> nn.Module:
    model = MODELS[record["model_name"]](**record["model_kwargs"])
    model.load_state_dict(record["model_state_dict"], strict=True)
    return model.eval()


def _perceptron(in_dim: int, hidden_dim: int, out_dim: int, n_layers: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(n_layers):
        layers += [nn.Linear(hidden_dim if i else in_dim, hidden_dim), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(hidden_dim, out_dim))
