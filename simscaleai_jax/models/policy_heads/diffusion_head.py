"""Denoising diffusion over actions and action chunks.

Training noises the target to a random step t and predicts the noise, https://arxiv.org/abs/2006.11239; sampling is
deterministic DDIM over any number of steps with the sample clipped to [-1, 1], https://arxiv.org/abs/2010.02502.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from simscaleai_jax.models.losses import masked_mean
from simscaleai_jax.models.policy_heads.denoiser import ResidualBlock, SinusoidalPosEmbed
from simscaleai_jax.models.policy_heads.generative import DirectionFn, GenerativeHead
from simscaleai_jax.models.policy_heads.schedule import alpha_bars, betas, sampling_steps

__all__ = ["DiffusionActionHead", "ResidualBlock", "SinusoidalPosEmbed"]


class _Documented(float):
    """A documented default that an explicit argument of the same value can be told from."""


class DiffusionActionHead(GenerativeHead):
    """Diffusion head with the squared-cosine schedule; `beta_start` or `beta_end`, when given, select the linear one.

    Actions lie in [-1, 1]. `action_horizon` h > 1 makes chunks (B, h, A) of the same network.
    """

    def __init__(
        self,
        input_dim: int = 256,
        action_dim: int = 4,
        hidden_dim: int = 256,
        n_layers: int = 4,
        num_diffusion_steps: int = 100,
        num_inference_steps: int = 10,
        beta_start: float = _Documented(1e-4),
        beta_end: float = _Documented(0.02),
        *,
        schedule: str = "cosine",
        action_horizon: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs | None = None,
    ) -> None:
        is_documented = isinstance(beta_start, _Documented) and isinstance(beta_end, _Documented)
        self.num_diffusion_steps = num_diffusion_steps
        self.beta_start = beta_start
        self.beta_end = beta_end
        self.schedule = schedule if is_documented else "linear"
        betas(self.schedule, num_diffusion_steps, beta_start, beta_end)
        sampling_steps(num_diffusion_steps, num_inference_steps)
        super().__init__(input_dim, action_dim, hidden_dim, n_layers, num_inference_steps, action_horizon, dtype, rngs)

    @property
    def alpha_bar(self) -> np.ndarray:
        """Share of the signal's variance left at each diffusion step, (num_diffusion_steps,)."""
        return alpha_bars(self.schedule, self.num_diffusion_steps, float(self.beta_start), float(self.beta_end))

    def draw_time(self, key: Array, batch: int) -> Int[Array, "B"]:
        """A diffusion step for each sample."""
        return jax.random.randint(key, (batch,), 0, self.num_diffusion_steps)

    def score(
        self, features: Array, actions: Array, time: Array, noise: Array, valid: Array | None = None
    ) -> tuple[Array, Array]:
        """Same as `denoise`."""
        return self.denoise(features, actions, time, noise, valid)

    def predict_noise(
        self, features: Float[Array, "B D"], actions: Float[Array, "B ..."], steps: Int[Array, "B"]
    ) -> Float[Array, "B ..."]:
        """The noise in `actions`, in their shape, at diffusion `steps` (B,)."""
        return self.direction(features, actions, steps)

    def denoise(
        self,
        features: Float[Array, "B D"],
        actions: Float[Array, "B ..."],
        steps: Int[Array, "B"],
        noise: Float[Array, "B ..."],
        valid: Bool[Array, "B ..."] | None = None,
    ) -> tuple[Float[Array, ""], Float[Array, "B ..."]]:
        """(noise-prediction loss, estimate of the clean actions) at given steps and noise."""
        alpha_bar = jnp.asarray(self.alpha_bar, jnp.float32)[steps].reshape(-1, *[1] * (actions.ndim - 1))
        signal, spread = jnp.sqrt(alpha_bar), jnp.sqrt(1.0 - alpha_bar)
        noisy = signal * actions + spread * noise
        predicted = self.predict_noise(features, noisy, steps)
        estimate = jnp.clip((noisy - spread * predicted) / signal, -1.0, 1.0)
        return masked_mean(jnp.square(predicted - noise), valid), estimate

    def sampling_path(self, num_steps: int) -> tuple[Array, Array, Array]:
        """Diffusion steps to visit, the signal's share at each and at the one after it, (num_steps,) each."""
        steps = sampling_steps(self.num_diffusion_steps, num_steps)
        here = self.alpha_bar[steps]
        there = np.append(here[1:], 1.0)
        return jnp.asarray(steps), jnp.asarray(here, jnp.float32), jnp.asarray(there, jnp.float32)

    def advance(self, direction_fn: DirectionFn, actions: Array, point: Any) -> Array:
        """One DDIM step."""
        step, here, there = point
        noise = direction_fn(actions, step)
        clean = jnp.clip((actions - jnp.sqrt(1.0 - here) * noise) / jnp.sqrt(here), -1.0, 1.0)
        # The noise that belongs to the clipped estimate: with the raw one a clipped sample would drift outwards.
        noise = (actions - jnp.sqrt(here) * clean) / jnp.sqrt(1.0 - here)
        return jnp.sqrt(there) * clean + jnp.sqrt(1.0 - there) * noise
