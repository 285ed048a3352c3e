"""Policies that draw chunks of actions from a learned distribution: diffusion, and flow matching.

Both encode the latest observations (`observation_encoder`) and differ in their head: https://arxiv.org/abs/2303.04137
for diffusion, https://arxiv.org/abs/2210.02747 for flow.
"""

import abc
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from simscaleai_jax.models.layers import make_rngs
from simscaleai_jax.models.losses import masked_mean, target_actions, valid_steps
from simscaleai_jax.models.normalization import CAREFUL
from simscaleai_jax.models.observation_encoder import ObservationEncoder, observation_arguments, observation_spec
from simscaleai_jax.models.planning import Execution
from simscaleai_jax.models.policy_heads import DiffusionActionHead, FlowActionHead
from simscaleai_jax.models.policy_heads.chunks import chunk_shape
from simscaleai_jax.models.policy_heads.generative import GenerativeHead
from simscaleai_jax.models.registry import register_model
from simscaleai_jax.models.specs import DataSpec, shape


class GenerativePolicy(nnx.Module):
    """A chunk of actions (B, h, A) in [-1, 1] from the latest `obs_horizon` states and pictures of `cameras`.

    `hidden_dim` is the width of the state encoder and of the head, `n_layers` its residual blocks; `image_pooling`
    ("average" or "keypoints") is how the pictures' encoders pool. Every constructor
    argument is an attribute of the same name.
    """

    scaling = CAREFUL
    execution = Execution(execute_steps=8)
    draws_noise = True

    state_dim: int
    action_dim: int
    action_horizon: int
    obs_horizon: int
    cameras: tuple[str, ...]
    image_channels: int
    image_size: int
    image_embed_dim: int
    image_pooling: str
    hidden_dim: int
    n_layers: int
    num_inference_steps: int
    dropout: float
    dtype: str

    def __init__(self, names: Mapping[str, Any], rngs: nnx.Rngs | None) -> None:
        """`names` are the `locals()` of the subclass's constructor: its arguments become attributes."""
        for name in inspect.signature(type(self).__init__).parameters.keys() - {"self", "rngs"}:
            setattr(self, name, names[name])
        self.cameras = tuple(self.cameras)
        self.deterministic = False
        rngs = make_rngs(rngs)
        self.encoder = ObservationEncoder(
            self.state_dim,
            self.obs_horizon,
            self.cameras,
            (self.image_pooling, self.image_channels, self.image_size, self.image_embed_dim),
            self.hidden_dim,
            self.dropout,
            dtype=self.dtype,
            rngs=rngs,
        )
        self.action_head = self.make_head(self.encoder.num_features, rngs)

    @abc.abstractmethod
    def make_head(self, num_features: int, rngs: nnx.Rngs) -> GenerativeHead:
        """The head that reads the features."""

    @classmethod
    def arguments_for(cls, data: DataSpec) -> dict[str, Any]:
        """The constructor arguments that follow from a data set."""
        return observation_arguments(data)

    @property
    def picture_keys(self) -> tuple[str, ...]:
        """Pictures that are read."""
        return self.cameras

    def forward(self, batch: Mapping[str, Any], *, key: Array | None = None) -> dict[str, Array]:
        """Draws actions and, when the batch holds some, scores.

        Args:
          batch: "observations" (see `models.inputs`), the latest k steps each where obs_horizon k > 1; optional
            "actions" (B, h, A), "is_pad" or "mask" (B, h).
          key: noise (None: key 0) and, in training mode, dropout.
        Returns:
          {"predicted_actions"} and with actions {"loss", "action_mse"}.
        Raises:
          ValueError: an input is missing or has the wrong shape.
        """
        key_encoder, key_head = (None, None) if key is None else jax.random.split(key)
        features = self.features(batch, key=key_encoder)
        actions_shape = chunk_shape(features.shape[0], self.action_horizon, self.action_dim)
        target = target_actions(batch, actions_shape) if "actions" in batch else None
        valid = None if target is None else valid_steps(batch, actions_shape)
        out = self.action_head(features, target, key=key_head, valid=valid)
        if target is not None:
            out["action_mse"] = masked_mean(jnp.square(out["predicted_actions"] - target), valid)
        return out

    def __call__(self, batch: Mapping[str, Any], *, key: Array | None = None) -> dict[str, Array]:
        """Same as `forward`."""
        return self.forward(batch, key=key)

    def features(self, batch: Mapping[str, Any], *, key: Array | None = None) -> Float[Array, "B D"]:
        """What the head reads of a batch."""
        return self.encoder(batch["observations"], key=None if self.deterministic else key)

    def predict(self, obs: Mapping[str, Any], *, key: Array | None = None) -> Float[Array, "B h A"]:
        """Chunks for observations (B, ...) or (B, k, ...), without dropout."""
        return self.forward({"observations": obs}, key=key)["predicted_actions"]

    def prepare_batch(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What jit can take: the batch without its instructions, which this model does not read."""
        return {name: value for name, value in batch.items() if name != "language"}

    def input_spec(self, batch_size: int) -> dict[str, Any]:
        """Shapes of a prepared training batch."""
        sizes = (self.state_dim, self.obs_horizon, self.cameras, self.image_channels, self.image_size)
        actions = shape(*chunk_shape(batch_size, self.action_horizon, self.action_dim))
        return {"observations": observation_spec(batch_size, *sizes), "actions": actions}


@register_model("diffusion")
class DiffusionPolicy(GenerativePolicy):
    """Denoises a chunk of actions from the latest states and camera pictures."""

    num_diffusion_steps: int
    schedule: str

    def __init__(
        self,
        state_dim: int = 20,
        action_dim: int = 4,
        action_horizon: int = 16,
        obs_horizon: int = 2,
        *,
        cameras: Sequence[str] = (),
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
        dtype: str = "float32",
        rngs: nnx.Rngs | None = None,
    ) -> None:
        super().__init__(locals(), rngs)

    def make_head(self, num_features: int, rngs: nnx.Rngs) -> GenerativeHead:
        """The diffusion head."""
        return DiffusionActionHead(
            num_features,
            self.action_dim,
            self.hidden_dim,
            self.n_layers,
            self.num_diffusion_steps,
            self.num_inference_steps,
            schedule=self.schedule,
            action_horizon=self.action_horizon,
            dtype=self.dtype,
            rngs=rngs,
        )


@register_model("flow")
class FlowPolicy(GenerativePolicy):
    """Follows a learned flow from noise to a chunk of actions, from the latest states and camera pictures."""

    def __init__(
        self,
        state_dim: int = 20,
        action_dim: int = 4,
        action_horizon: int = 16,
        obs_horizon: int = 2,
        *,
        cameras: Sequence[str] = (),
        image_channels: int = 3,
        image_size: int = 64,
        image_embed_dim: int = 128,
        image_pooling: str = "average",
        hidden_dim: int = 256,
        n_layers: int = 4,
        num_inference_steps: int = 10,
        dropout: float = 0.0,
        dtype: str = "float32",
        rngs: nnx.Rngs | None = None,
    ) -> None:
        super().__init__(locals(), rngs)

    def make_head(self, num_features: int, rngs: nnx.Rngs) -> GenerativeHead:
        """The flow head."""
        return FlowActionHead(
            num_features,
            self.action_dim,
            self.hidden_dim,
            self.n_layers,
            self.num_inference_steps,
            action_horizon=self.action_horizon,
            dtype=self.dtype,
            rngs=rngs,
        )
