"""Noise on executed actions, with clean labels: demonstrations then show how the expert recovers (after DART,
https://arxiv.org/abs/1703.09327)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from simscaleai_jax.core.config import settle


@dataclass(frozen=True)
class NoiseConfig:
    """Gaussian noise on the executed action.

    Attributes:
      std: in action units (1 is 5 cm per step).
      probability: share of the steps that are disturbed.
      num_components: how many leading components are disturbed; the gripper, the last one, is left alone by default,
        because a dropped object is another task rather than a disturbance.
    """

    std: float = 0.3
    probability: float = 1.0
    num_components: int = 3

    def __post_init__(self) -> None:
        settle(self)
        if self.std < 0 or not 0.0 <= self.probability <= 1.0 or self.num_components < 0:
            raise ValueError(f"Wanted std >= 0, 0 <= probability <= 1 and num_components >= 0, got {self}.")


def add_noise(key: PRNGKeyArray, action: Float[Array, "A"], config: NoiseConfig) -> Float[Array, "A"]:
    """The action to execute instead of the label, in [-1, 1]."""
    key_noise, key_choice = jax.random.split(key)
    noise = config.std * jax.random.normal(key_noise, action.shape)
    is_disturbed = jax.random.bernoulli(key_choice, config.probability) & (
        jnp.arange(action.shape[0]) < config.num_components
    )
    return jnp.where(is_disturbed, jnp.clip(action + noise, -1.0, 1.0), action)
