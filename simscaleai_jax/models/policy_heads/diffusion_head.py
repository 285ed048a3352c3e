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

from simscaleai_jax.models.layers import make_rngs
from simscaleai_jax.models.losses import masked_mean
from simscaleai_jax.models.policy_heads.chunks import chunk_shape, draw_key, flatten_chunk
from simscaleai_jax.models.policy_heads.denoiser import Denoiser
from simscaleai_jax.models.policy_heads.schedule import alpha_bars, betas, sampling_steps


class _Documented(float):
    """A documented default that an explicit argument of the same value can be told from."""


class DiffusionActionHead(nnx.Module):
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
        self.input_dim = input_dim
        self.action_dim = action_dim
        self.hidden_dim = hidden_dim
        self.n_layers = n_layers
        self.num_diffusion_steps = num_diffusion_steps
        self.num_inference_steps = num_inference_steps
        self.beta_start = beta_start
        self.beta_end = beta_end
        self.schedule = schedule if is_documented else "linear"
        self.action_horizon = action_horizon
        self.dtype = dtype
        self.deterministic = False
        betas(self.schedule, num_diffusion_steps, beta_start, beta_end)
        sampling_steps(num_diffusion_steps, num_inference_steps)
        size = action_dim * action_horizon
        self.network = Denoiser(input_dim, size, hidden_dim, n_layers, dtype=dtype, rngs=make_rngs(rngs))

    @property
    def alpha_bar(self) -> np.ndarray:
        """Share of the signal's variance left at each diffusion step, (num_diffusion_steps,)."""
        return alpha_bars(self.schedule, self.num_diffusion_steps, float(self.beta_start), float(self.beta_end))

    def forward(
        self,
        features: Float[Array | np.ndarray, "B D"],
        target_actions: Float[Array | np.ndarray, "B ..."] | None = None,
        *,
        key: Array | None = None,
        valid: Bool[Array | np.ndarray, "B ..."] | None = None,
    ) -> dict[str, Array]:
        """Returns {"predicted_actions"} and, with targets, {"loss"}; the same key gives the same result (None: key 0).

        Predictions are samples, except in training mode with targets, where they are the estimate that one denoising
        step makes from the noised target: free, and good enough to watch.

        Args:
          features: (B, input_dim).
          target_actions: (B, A) or (B, h, A) in [-1, 1].
          valid: steps that count, (B,) or (B, h).
        """
        features = jnp.asarray(features)
        key_noise, key_time = jax.random.split(draw_key(key))
        if target_actions is None:
            return {"predicted_actions": self.sample(features, key=key_noise)}
        target_actions = jnp.asarray(target_actions, jnp.float32)
        mask = None if valid is None else jnp.asarray(valid)
        noise = jax.random.normal(key_noise, target_actions.shape)
        steps = jax.random.randint(key_time, (features.shape[0],), 0, self.num_diffusion_steps)
        loss, estimate = self.denoise(features, target_actions, steps, noise, mask)
        actions = estimate if not self.deterministic else self.sample(features, key=key_noise)
        return {"loss": loss, "predicted_actions": actions}

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """Same as `forward`."""
        return self.forward(*args, **kwargs)

    def predict_noise(
        self, features: Float[Array, "B D"], actions: Float[Array, "B ..."], steps: Int[Array, "B"]
    ) -> Float[Array, "B ..."]:
        """The noise in `actions`, in their shape, at diffusion `steps` (B,)."""
        direction = self.network(self.network.condition(features), flatten_chunk(actions), steps)
        return direction.reshape(actions.shape)

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

    def sample(
        self,
        features: Float[Array, "B D"],
        *,
        key: Array | None = None,
        noise: Float[Array, "B ..."] | None = None,
        num_steps: int | None = None,
    ) -> Float[Array, "B ..."]:
        """Actions (B, A) or (B, h, A) from `noise` (None: drawn from `key`) in exactly `num_steps` network calls."""
        shape = chunk_shape(features.shape[0], self.action_horizon, self.action_dim)
        start = jax.random.normal(draw_key(key), shape) if noise is None else noise
        steps = sampling_steps(self.num_diffusion_steps, self.num_inference_steps if num_steps is None else num_steps)
        here = self.alpha_bar[steps]
        there = np.append(here[1:], 1.0)
        condition = self.network.condition(features)

        def ddim(actions: Array, step: tuple[Array, Array, Array]) -> tuple[Array, None]:
            time, here, there = step
            noise = self.network(condition, actions, jnp.broadcast_to(time, actions.shape[:1]))
            clean = jnp.clip((actions - jnp.sqrt(1.0 - here) * noise) / jnp.sqrt(here), -1.0, 1.0)
            # The noise that belongs to the clipped estimate: with the raw one a clipped sample would drift outwards.
            noise = (actions - jnp.sqrt(here) * clean) / jnp.sqrt(1.0 - here)
            return jnp.sqrt(there) * clean + jnp.sqrt(1.0 - there) * noise, None

        path = (jnp.asarray(steps), jnp.asarray(here, jnp.float32), jnp.asarray(there, jnp.float32))
        actions, _ = jax.lax.scan(ddim, flatten_chunk(start), path)
        return actions.reshape(shape)
