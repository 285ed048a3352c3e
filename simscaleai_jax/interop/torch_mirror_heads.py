"""Torch twins of the action heads; see `torch_mirror`."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

TIME_SCALE = 100.0


class MLPActionHead(nn.Module):
    """Perceptron with GELU and dropout; tanh at the end unless `tanh_output` is False."""

    def __init__(
        self,
        input_dim: int = 256,
        action_dim: int = 4,
        hidden_dim: int = 256,
        n_layers: int = 2,
        dropout: float = 0.1,
        tanh_output: bool = True,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(n_layers):
            layers += [nn.Linear(hidden_dim if i else input_dim, hidden_dim), nn.GELU(), nn.Dropout(dropout)]
        layers.append(nn.Linear(hidden_dim, action_dim))
        self.net = nn.Sequential(*layers, nn.Tanh()) if tanh_output else nn.Sequential(*layers)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, input_dim) to (B, action_dim)."""
        return self.net(features)


class SinusoidalPosEmbed(nn.Module):
    """Sines, then cosines of `dim // 2` frequencies from 1 down to 1/10000."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        """(B,) to (B, dim)."""
        half = self.dim // 2
        frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(10000.0) / (half - 1)))
        angles = t.float()[..., None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class ResidualBlock(nn.Module):
    """[linear, GELU] x2 plus a skip, which is linear where the widths differ."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(input_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, output_dim), nn.GELU()
        )
        self.skip = nn.Identity() if input_dim == output_dim else nn.Linear(input_dim, output_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, input_dim) to (B, output_dim)."""
        return self.net(x) + self.skip(x)


class _Denoiser(nn.Module):
    """What both generative heads share; its parameters lie directly under the head's name."""

    def __init__(self, input_dim: int, action_dim: int, hidden_dim: int, n_layers: int, action_horizon: int) -> None:
        super().__init__()
        self.shape = (action_dim,) if action_horizon == 1 else (action_horizon, action_dim)
        size = action_dim * action_horizon
        self.time_embed = nn.Sequential(SinusoidalPosEmbed(hidden_dim), nn.Linear(hidden_dim, hidden_dim), nn.GELU())
        self.condition_proj = nn.Linear(input_dim, hidden_dim)
        widths = [2 * hidden_dim + size] + [hidden_dim] * (n_layers - 1)
        self.noise_net = nn.ModuleList([ResidualBlock(width, hidden_dim, hidden_dim) for width in widths])
        self.final = nn.Linear(hidden_dim, size)

    def direction(self, features: torch.Tensor, actions: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Direction in the shape of `actions`, (B, A) or (B, h, A), at `time` (B,)."""
        parts = [self.condition_proj(features), self.time_embed(time), actions.flatten(1)]
        hidden = torch.cat(parts, dim=-1)
        for block in self.noise_net:
            hidden = block(hidden)
        return self.final(hidden).reshape(actions.shape)

    def start(self, features: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """`noise`, or fresh noise of the actions' shape."""
        if noise is not None:
            return noise
        return torch.randn(features.shape[0], *self.shape, device=features.device)


class DiffusionActionHead(_Denoiser):
    """Noise prediction with a squared-cosine or linear schedule, DDIM sampling."""

    def __init__(
        self,
        input_dim: int = 256,
        action_dim: int = 4,
        hidden_dim: int = 256,
        n_layers: int = 4,
        num_diffusion_steps: int = 100,
        num_inference_steps: int = 10,
        beta_start: float | None = None,
        beta_end: float | None = None,
        *,
        schedule: str = "cosine",
        action_horizon: int = 1,
    ) -> None:
        super().__init__(input_dim, action_dim, hidden_dim, n_layers, action_horizon)
        self.num_diffusion_steps = num_diffusion_steps
        self.num_inference_steps = num_inference_steps
        if beta_start is not None or beta_end is not None:
            schedule = "linear"
        first = 1e-4 if beta_start is None else beta_start
        last = 0.02 if beta_end is None else beta_end
        betas = _betas(schedule, num_diffusion_steps, first, last)
        self._register("betas", betas)
        self._register("alphas", 1.0 - betas)
        alpha_bar = np.cumprod(1.0 - betas)
        self._register("alphas_cumprod", alpha_bar)
        self._register("sqrt_alphas_cumprod", np.sqrt(alpha_bar))
        self._register("sqrt_one_minus_alphas_cumprod", np.sqrt(1.0 - alpha_bar))

    def _register(self, name: str, values: np.ndarray) -> None:
        self.register_buffer(name, torch.from_numpy(values.astype(np.float32)))

    def forward(
        self,
        features: torch.Tensor,
        target_actions: torch.Tensor | None = None,
        *,
        noise: torch.Tensor | None = None,
        steps: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """{"predicted_actions"} and, with targets, {"loss"}; `noise` and `steps` are drawn when not given."""
        if target_actions is None:
            return {"predicted_actions": self.sample(features, noise)}
        if steps is None:
            steps = torch.randint(0, self.num_diffusion_steps, features.shape[:1], device=features.device)
        noise = torch.randn_like(target_actions) if noise is None else noise
        shape = (-1, *[1] * (target_actions.ndim - 1))
        signal = self.sqrt_alphas_cumprod[steps].reshape(shape)
        spread = self.sqrt_one_minus_alphas_cumprod[steps].reshape(shape)
        noisy = signal * target_actions + spread * noise
        predicted = self.direction(features, noisy, steps)
        estimate = ((noisy - spread * predicted) / signal).clamp(-1.0, 1.0).detach()
        return {"loss": F.mse_loss(predicted, noise), "predicted_actions": estimate}

    @torch.no_grad()
    def sample(
        self, features: torch.Tensor, noise: torch.Tensor | None = None, num_steps: int | None = None
    ) -> torch.Tensor:
        """DDIM from `noise` in exactly `num_steps` network calls."""
        count = self.num_inference_steps if num_steps is None else num_steps
        total = self.num_diffusion_steps
        visited = np.linspace(total * (1.0 - 0.5 / max(count, 10)), total * 0.5 / count, count).astype(np.int64)
        actions = self.start(features, noise)
        for i, step in enumerate(visited):
            time = torch.full((features.shape[0],), int(step), device=features.device)
            here = self.alphas_cumprod[int(step)]
            there = self.alphas_cumprod[int(visited[i + 1])] if i + 1 < count else torch.ones_like(here)
            predicted = self.direction(features, actions, time)
            clean = ((actions - (1.0 - here).sqrt() * predicted) / here.sqrt()).clamp(-1.0, 1.0)
            predicted = (actions - here.sqrt() * clean) / (1.0 - here).sqrt()
            actions = there.sqrt() * clean + (1.0 - there).sqrt() * predicted
        return actions


class FlowActionHead(_Denoiser):
    """Velocity prediction on the straight path from noise to action, Euler sampling."""

    def __init__(
        self,
        input_dim: int = 256,
        action_dim: int = 4,
        hidden_dim: int = 256,
        n_layers: int = 4,
        num_inference_steps: int = 10,
        *,
        action_horizon: int = 1,
    ) -> None:
        super().__init__(input_dim, action_dim, hidden_dim, n_layers, action_horizon)
        self.num_inference_steps = num_inference_steps

    def forward(
        self,
        features: torch.Tensor,
        target_actions: torch.Tensor | None = None,
        *,
        noise: torch.Tensor | None = None,
        time: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """{"predicted_actions"} and, with targets, {"loss"}; `noise` and `time` are drawn when not given."""
        if target_actions is None:
            return {"predicted_actions": self.sample(features, noise)}
        at = torch.rand(features.shape[0], device=features.device) if time is None else time
        start = torch.randn_like(target_actions) if noise is None else noise
        fraction = at.reshape(-1, *[1] * (target_actions.ndim - 1))
        here = (1.0 - fraction) * start + fraction * target_actions
        velocity = self.direction(features, here, TIME_SCALE * at)
        estimate = (here + (1.0 - fraction) * velocity).clamp(-1.0, 1.0).detach()
        return {"loss": F.mse_loss(velocity, target_actions - start), "predicted_actions": estimate}

    @torch.no_grad()
    def sample(
        self, features: torch.Tensor, noise: torch.Tensor | None = None, num_steps: int | None = None
    ) -> torch.Tensor:
        """Euler from `noise` in exactly `num_steps` network calls."""
        count = self.num_inference_steps if num_steps is None else num_steps
        actions = self.start(features, noise)
        for i in range(count):
            time = torch.full((features.shape[0],), TIME_SCALE * i / count, device=features.device)
            actions = actions + self.direction(features, actions, time) / count
        return actions.clamp(-1.0, 1.0)


def _betas(schedule: str, num_steps: int, beta_start: float, beta_end: float) -> np.ndarray:
    if schedule == "linear":
        return np.linspace(beta_start, beta_end, num_steps)
    if schedule != "cosine":
        raise ValueError(f"Unknown schedule {schedule!r}. Available: cosine, linear.")
    signal = np.cos((np.arange(num_steps + 1) / num_steps + 0.008) / 1.008 * np.pi / 2.0) ** 2
    return np.minimum(1.0 - signal[1:] / signal[:-1], 0.999)
