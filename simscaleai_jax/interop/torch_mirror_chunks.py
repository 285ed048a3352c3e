"""Torch twins of the policies that plan chunks (diffusion, flow, ACT); see `torch_mirror`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from simscaleai_jax.interop.torch_mirror_grounding import grid
from simscaleai_jax.interop.torch_mirror_heads import DiffusionActionHead, FlowActionHead
from simscaleai_jax.interop.torch_mirror_vla import state_vector, to_channels_first, transformer_encoder


def perceptron(in_dim: int, hidden_dim: int, out_dim: int, n_layers: int, dropout: float) -> nn.Sequential:
    """`n_layers` x [linear, ReLU, dropout] and a linear layer."""
    layers: list[nn.Module] = []
    for i in range(n_layers):
        layers += [nn.Linear(hidden_dim if i else in_dim, hidden_dim), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(hidden_dim, out_dim))


def image_encoder(channels: int, embed_dim: int, pooling: str = "average") -> nn.Module:
    """Three convolutions, a 4x4 average pool and a linear layer, ReLU after each; or keypoints."""
    if pooling == "keypoints":
        return KeypointEncoder(channels, embed_dim)
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 8, stride=4, padding=2), nn.ReLU()),
        *(nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, stride=1, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(4), nn.Flatten()),
        *(nn.Linear(1024, embed_dim), nn.ReLU()),
    )


class KeypointEncoder(nn.Module):
    """A convolution, 16 maps of a softmax over places, the mean place of each, and a linear layer with ReLU."""

    def __init__(self, channels: int, embed_dim: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 32, 8, stride=4, padding=2)
        self.maps = nn.Linear(32, 16, bias=False)
        self.out = nn.Linear(32, embed_dim)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) in [0, 1] to (B, embed_dim)."""
        hidden = F.relu(self.first(image - 0.5))
        weights = torch.softmax(10.0 * self.maps(hidden.flatten(2).transpose(1, 2)), dim=1)
        places = torch.einsum("bnk,nd->bdk", weights, grid(hidden))
        return F.relu(self.out(places.flatten(1)))


class _Windows(nn.Module):
    """What these policies share: windows of the latest observations."""

    cameras: tuple[str, ...]
    obs_horizon: int
    image_encoders: nn.ModuleList

    def states(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, k, S)."""
        state = state_vector(observations)
        return state[:, None] if state.ndim == 2 else state

    def pictures(self, observations: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """(B, k, D) of each camera."""
        encoded = []
        for camera, encoder in zip(self.cameras, self.image_encoders, strict=True):
            frames = observations[camera]
            frames = frames[:, None] if frames.ndim == 4 else frames
            features = encoder(to_channels_first(frames.flatten(0, 1)))
            encoded.append(features.reshape(*frames.shape[:2], -1))
        return encoded


class _GenerativePolicy(_Windows):
    """State encoder, an encoder for each camera, and a head that turns noise into a chunk."""

    action_head: DiffusionActionHead | FlowActionHead

    def __init__(
        self,
        state_dim: int,
        obs_horizon: int,
        cameras: Any,
        image: tuple[int, int, str],
        hidden_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.state_dim, self.obs_horizon, self.cameras = state_dim, obs_horizon, tuple(cameras)
        channels, embed_dim, pooling = image
        if state_dim > 0:
            self.state_encoder = perceptron(obs_horizon * state_dim, hidden_dim, hidden_dim, 2, dropout)
        self.image_encoders = nn.ModuleList([image_encoder(channels, embed_dim, pooling) for _ in self.cameras])
        self.num_features = hidden_dim * (state_dim > 0) + len(self.cameras) * obs_horizon * embed_dim

    def features(self, batch: dict[str, Any]) -> torch.Tensor:
        """What the head reads, (B, D)."""
        observations = batch["observations"]
        parts = [self.state_encoder(self.states(observations).flatten(1))] if self.state_dim > 0 else []
        return torch.cat([*parts, *(part.flatten(1) for part in self.pictures(observations))], dim=-1)

    def forward(self, batch: dict[str, Any], **draws: torch.Tensor) -> dict[str, torch.Tensor]:
        """{"predicted_actions"} and, with batch["actions"], {"loss", "action_mse"}; `draws` go to the head."""
        target = batch.get("actions")
        out = self.action_head(self.features(batch), target, **draws)
        if target is not None:
            out["action_mse"] = F.mse_loss(out["predicted_actions"], target).detach()
        return out


class DiffusionPolicy(_GenerativePolicy):
    """Denoises a chunk of actions."""

    def __init__(
        self,
        state_dim: int = 20,
        action_dim: int = 4,
        action_horizon: int = 16,
        obs_horizon: int = 2,
        *,
        cameras: Any = (),
        image_channels: int = 3,
        image_size: int = 64,
        image_embed_dim: int = 128,
        image_pooling: str = "average",
        hidden_dim: int = 256,
        n_layers: int = 4,
        num_diffusion_steps: int = 100,
        num_inference_steps: int = 10,
        schedule: str = "cosine",
        dropout: float = 0.0,
    ) -> None:
        image = (image_channels, image_embed_dim, image_pooling)
        super().__init__(state_dim, obs_horizon, cameras, image, hidden_dim, dropout)
        self.action_head = DiffusionActionHead(
            self.num_features,
            action_dim,
            hidden_dim,
            n_layers,
            num_diffusion_steps,
            num_inference_steps,
            schedule=schedule,
            action_horizon=action_horizon,
        )


class FlowPolicy(_GenerativePolicy):
    """Follows a learned flow from noise to a chunk of actions."""

    def __init__(
        self,
        state_dim: int = 20,
        action_dim: int = 4,
        action_horizon: int = 16,
        obs_horizon: int = 2,
        *,
        cameras: Any = (),
        image_channels: int = 3,
        image_size: int = 64,
        image_embed_dim: int = 128,
        image_pooling: str = "average",
        hidden_dim: int = 256,
        n_layers: int = 4,
        num_inference_steps: int = 10,
        dropout: float = 0.0,
    ) -> None:
        image = (image_channels, image_embed_dim, image_pooling)
        super().__init__(state_dim, obs_horizon, cameras, image, hidden_dim, dropout)
        self.action_head = FlowActionHead(
            self.num_features, action_dim, hidden_dim, n_layers, num_inference_steps, action_horizon=action_horizon
        )


class ActionChunkingTransformer(_Windows):
    """Queries attend to a latent, states and pictures; in training the latent comes from a posterior."""

    def __init__(
        self,
        state_dim: int = 20,
        action_dim: int = 4,
        action_horizon: int = 16,
        obs_horizon: int = 1,
        *,
        cameras: Any = (),
        image_channels: int = 3,
        image_size: int = 64,
        image_pooling: str = "average",
        embed_dim: int = 128,
        num_heads: int = 4,
        num_layers: int = 3,
        posterior_layers: int = 2,
        mlp_ratio: float = 2.0,
        latent_dim: int = 16,
        kl_weight: float = 10.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.state_dim, self.obs_horizon, self.cameras = state_dim, obs_horizon, tuple(cameras)
        self.latent_dim, self.kl_weight = latent_dim, kl_weight
        self.shape = (action_dim,) if action_horizon == 1 else (action_horizon, action_dim)
        if state_dim > 0:
            self.state_proj = nn.Linear(state_dim, embed_dim)
        encoders = [image_encoder(image_channels, embed_dim, image_pooling) for _ in self.cameras]
        self.image_encoders = nn.ModuleList(encoders)
        count = obs_horizon * ((state_dim > 0) + len(self.cameras))
        self.queries = nn.Parameter(0.02 * torch.randn(1, action_horizon, embed_dim))
        self.places = nn.Parameter(0.02 * torch.randn(1, 1 + count, embed_dim))
        self.latent_proj = nn.Linear(latent_dim, embed_dim)
        sizes = (num_heads, int(mlp_ratio * embed_dim), dropout)
        self.transformer = transformer_encoder(embed_dim, num_heads, num_layers, sizes[1], dropout)
        self.norm = nn.LayerNorm(embed_dim)
        self.action_head = nn.Linear(embed_dim, action_dim)
        self.posterior = _Posterior(action_dim, action_horizon, latent_dim, posterior_layers, embed_dim, *sizes)

    def forward(self, batch: dict[str, Any], noise: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """{"predicted_actions"} and, with batch["actions"], {"loss", "action_mse"}; `noise` (B, latent_dim) draws the
        latent in training mode.
        """
        observations, target = batch["observations"], batch.get("actions")
        parts = [self.state_proj(self.states(observations))] if self.state_dim > 0 else []
        tokens = torch.cat([*parts, *self.pictures(observations)], dim=1)
        latent = torch.zeros(tokens.shape[0], self.latent_dim, device=tokens.device)
        divergence = latent.sum()
        if target is not None and self.training:
            mean, log_variance = self.posterior(tokens, target.reshape(tokens.shape[0], -1, target.shape[-1]))
            draw = torch.randn_like(mean) if noise is None else noise
            latent = mean + torch.exp(0.5 * log_variance) * draw
            divergence = 0.5 * torch.sum(mean**2 + log_variance.exp() - 1.0 - log_variance, dim=-1).mean()
        context = torch.cat([self.latent_proj(latent)[:, None], tokens], dim=1) + self.places
        queries = self.queries.expand(tokens.shape[0], -1, -1)
        hidden = self.transformer(torch.cat([queries, context], dim=1))[:, : queries.shape[1]]
        actions = self.action_head(self.norm(hidden)).reshape(-1, *self.shape)
        if target is None:
            return {"predicted_actions": actions}
        mse = F.mse_loss(actions, target).detach()
        loss = F.l1_loss(actions, target) + self.kl_weight * divergence
        return {"predicted_actions": actions, "loss": loss, "action_mse": mse}


class _Posterior(nn.Module):
    def __init__(
        self,
        action_dim: int,
        action_horizon: int,
        latent_dim: int,
        num_layers: int,
        dim: int,
        heads: int,
        mlp_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.first = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.places = nn.Parameter(0.02 * torch.randn(1, action_horizon, dim))
        self.action_proj = nn.Linear(action_dim, dim)
        self.transformer = transformer_encoder(dim, heads, num_layers, mlp_dim, dropout)
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, 2 * latent_dim)

    def forward(self, tokens: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(mean, log-variance) of the latent, (B, latent_dim) each."""
        first = self.first.expand(tokens.shape[0], -1, -1)
        hidden = self.transformer(torch.cat([first, tokens, self.action_proj(actions) + self.places], dim=1))
        return self.out(self.norm(hidden[:, 0])).chunk(2, dim=-1)
