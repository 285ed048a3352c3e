"""The latest k observations as one vector of features: a perceptron for the states, a small CNN for each camera."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from simscaleai_jax.models.bc import STATE_HIDDEN_LAYERS
from simscaleai_jax.models.dropout import dropout_seeds
from simscaleai_jax.models.image_encoders import make_image_encoder
from simscaleai_jax.models.inputs import window_pictures, window_state
from simscaleai_jax.models.layers import MLP
from simscaleai_jax.models.specs import DataSpec, shape


class ObservationEncoder(nnx.Module):
    """States (B, k, S) and the pictures of `cameras`, each (B, k, H, W, C), to features (B, D).

    Attributes:
      num_features: D, hidden_dim where there are states and k * image_embed_dim for each camera.
    """

    def __init__(
        self,
        state_dim: int,
        obs_horizon: int,
        cameras: Sequence[str],
        image: tuple[str, int, int, int],
        hidden_dim: int,
        dropout: float,
        *,
        dtype: str,
        rngs: nnx.Rngs,
    ) -> None:
        """`image` is (pooling, channels, size, embed_dim) of every picture.

        Raises:
          ValueError: nothing is observed, or `make_image_encoder` does.
        """
        if state_dim < 1 and not cameras:
            raise ValueError("A policy needs states (state_dim) or pictures (cameras); it has neither.")
        self.state_dim, self.obs_horizon, self.cameras = state_dim, obs_horizon, tuple(cameras)
        pooling, self.channels, self.size, embed_dim = image
        if state_dim > 0:
            self.state_encoder = MLP(
                obs_horizon * state_dim,
                hidden_dim,
                hidden_dim,
                STATE_HIDDEN_LAYERS,
                activation=jax.nn.relu,
                dropout=dropout,
                dtype=dtype,
                rngs=rngs,
            )
        self.image_encoders = nnx.List(
            [
                make_image_encoder(pooling, self.channels, self.size, embed_dim, dtype=dtype, rngs=rngs)
                for _ in self.cameras
            ]
        )
        self.num_features = hidden_dim * (state_dim > 0) + len(self.cameras) * obs_horizon * embed_dim

    def __call__(self, observations: Mapping[str, Any], *, key: Array | None = None) -> Float[Array, "B D"]:
        """Features of an observation dict (see `models.inputs`); with `key` dropout is on."""
        parts = []
        if self.state_dim > 0:
            state = window_state(observations, self.state_dim, self.obs_horizon)
            parts.append(self.state_encoder(state.reshape(state.shape[0], -1), dropout_seeds(key, STATE_HIDDEN_LAYERS)))
        for camera, encoder in zip(self.cameras, self.image_encoders, strict=True):
            frames = window_pictures(observations, camera, self.channels, self.size, self.obs_horizon)
            encoded = encoder(frames.reshape(-1, *frames.shape[2:]))
            parts.append(encoded.reshape(frames.shape[0], -1))
        return jnp.concatenate(parts, axis=-1)


def observation_spec(
    batch_size: int, state_dim: int, obs_horizon: int, cameras: Sequence[str], channels: int, size: int
) -> dict[str, Any]:
    """Shapes of the observations of a prepared batch."""
    steps = (obs_horizon,) if obs_horizon > 1 else ()
    spec = {"state": shape(batch_size, *steps, state_dim)} if state_dim > 0 else {}
    picture = shape(batch_size, *steps, size, size, channels, dtype=jnp.uint8)
    return spec | dict.fromkeys(cameras, picture)


def observation_arguments(data: DataSpec) -> dict[str, Any]:
    """The constructor arguments about observations and actions that follow from a data set: all that it has.

    Raises:
      ValueError: pictures of several sizes.
    """
    sizes = set(data.pictures.values())
    if len(sizes) > 1:
        raise ValueError(f"The cameras have several sizes, {data.pictures}; choose among them (--data.cameras).")
    found: dict[str, Any] = {"state_dim": data.state_dim, "action_dim": data.action_dim}
    found |= {"action_horizon": data.action_horizon, "cameras": tuple(data.pictures)}
    for channels, height, _ in sizes:
        found |= {"image_channels": channels, "image_size": height}
    return found
