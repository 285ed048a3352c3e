"""Behaviour cloning: a state encoder, an optional image encoder, and a perceptron to one action or a chunk of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from simscaleai_jax.models.dropout import dropout_seeds
from simscaleai_jax.models.image_encoders import make_image_encoder
from simscaleai_jax.models.inputs import model_image, model_state, window_state
from simscaleai_jax.models.layers import MLP, linear, make_rngs
from simscaleai_jax.models.losses import AUXILIARY_WEIGHT, error_fn, masked_mean, target_actions, valid_steps
from simscaleai_jax.models.policy_heads.chunks import chunk_shape
from simscaleai_jax.models.registry import register_model
from simscaleai_jax.models.specs import DataSpec, shape

STATE_HIDDEN_LAYERS = 2


@register_model("bc")
class BehaviorCloning(nnx.Module):
    """Predicts one action from the state and, with `use_image`, camera images; with `action_horizon` a chunk.

    State (B, state_dim), or with `obs_horizon` k > 1 the latest k states (B, k, state_dim), is encoded by three linear
    layers; `n_layers` hidden layers follow. Actions (B, A) or (B, h, A) are not squashed. `image_key` is the picture,
    of which the latest is seen; `cameras` are several in its place, and `image_pooling` is how their encoders pool:
    "average" or "keypoints". With `auxiliary_size` the pictures' features also learn to tell batch["auxiliary"]
    (B, auxiliary_size), what is known only in training.
    """

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
        cameras: Sequence[str] = (),
        auxiliary_size: int = 0,
        dtype: str = "float32",
        rngs: nnx.Rngs | None = None,
    ) -> None:
        error_fn(loss_type)
        if (cameras or auxiliary_size) and not use_image:
            name = "cameras" if cameras else "auxiliary_size"
            raise ValueError(f"{name} is set, and no picture is seen; wanted use_image=True and pictures in the data.")
        rngs = make_rngs(rngs)
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.hidden_dim = hidden_dim
        self.n_layers = n_layers
        self.use_image = use_image
        self.image_channels = image_channels
        self.image_size = image_size
        self.image_embed_dim = image_embed_dim
        self.dropout = dropout
        self.loss_type = loss_type
        self.action_horizon = action_horizon
        self.obs_horizon = obs_horizon
        self.image_key = image_key
        self.image_pooling = image_pooling
        self.cameras = tuple(cameras)
        self.auxiliary_size = auxiliary_size
        self.dtype = dtype
        self.deterministic = False
        shared: dict[str, Any] = {"activation": jax.nn.relu, "dropout": dropout, "dtype": dtype, "rngs": rngs}
        self.state_encoder = MLP(obs_horizon * state_dim, hidden_dim, hidden_dim, STATE_HIDDEN_LAYERS, **shared)
        if use_image:
            sizes = (image_pooling, image_channels, image_size, image_embed_dim)
            encoders = [make_image_encoder(*sizes, dtype=dtype, rngs=rngs) for _ in self.picture_keys]
            if cameras:
                self.image_encoders = nnx.List(encoders)
            else:
                self.image_encoder = encoders[0]
        seen = image_embed_dim * len(self.picture_keys)
        if auxiliary_size:
            self.auxiliary = linear(seen, auxiliary_size, dtype=dtype, rngs=rngs)
        width = hidden_dim + seen
        self.action_head = MLP(width, hidden_dim, action_horizon * action_dim, n_layers, **shared)

    @classmethod
    def arguments_for(cls, data: DataSpec) -> dict[str, Any]:
        """The constructor arguments that follow from a data set; it sees one picture where there are some."""
        found: dict[str, Any] = {"state_dim": data.state_dim, "action_dim": data.action_dim}
        found |= {"action_horizon": data.action_horizon}
        picture = data.picture()
        if picture is None:
            return found | {"use_image": False}
        key, (channels, height, _) = picture
        return found | {"use_image": True, "image_key": key, "image_channels": channels, "image_size": height}

    @property
    def picture_keys(self) -> tuple[str, ...]:
        """Pictures that are read."""
        return (self.cameras or (self.image_key,)) if self.use_image else ()

    def forward(self, batch: Mapping[str, Any], *, key: Array | None = None) -> dict[str, Array]:
        """Predicts and, when the batch holds actions, scores.

        Args:
          batch: "observations" (see `models.inputs`), optional "actions" (B, A) or (B, h, A), "is_pad" or "mask" (B,)
            or (B, h). State-only models of single actions and states also take windows: states (B, T, S), actions
            (B, T, A), masks (B, T).
          key: in training mode, turns dropout on.
        Returns:
          {"predicted_actions"} and with actions {"loss", "action_mse", "action_mae"}; "auxiliary_mae" where the batch
          holds what the pictures are to tell.
        Raises:
          ValueError: an input is missing or has the wrong shape.
        """
        observations = batch["observations"]
        seeds = None if self.deterministic else dropout_seeds(key, STATE_HIDDEN_LAYERS + self.n_layers)
        first, second = (None, None) if seeds is None else (seeds[:STATE_HIDDEN_LAYERS], seeds[STATE_HIDDEN_LAYERS:])
        if self.obs_horizon > 1:
            state = window_state(observations, self.state_dim, self.obs_horizon)
            state = state.reshape(state.shape[0], -1)
        else:
            state = model_state(observations, self.state_dim)
        if self.use_image:
            state = state[:, 0] if state.ndim == 3 else state
            seen = self._seen(observations)
            features = jnp.concatenate([self.state_encoder(state, first), seen], axis=-1)
        else:
            seen, features = None, self.state_encoder(state, first)
        actions = self.action_head(features, second).astype(jnp.float32)
        if self.action_horizon > 1:
            actions = actions.reshape(chunk_shape(actions.shape[0], self.action_horizon, self.action_dim))
        return {"predicted_actions": actions, **self._scores(batch, actions, seen)}

    def __call__(self, batch: Mapping[str, Any], *, key: Array | None = None) -> dict[str, Array]:
        """Same as `forward`."""
        return self.forward(batch, key=key)

    def predict(self, obs: Mapping[str, Any]) -> Float[Array, "*B A"]:
        """Actions (B, A) or (B, h, A) for observations (B, ...), without dropout."""
        return self.forward({"observations": obs})["predicted_actions"]

    def prepare_batch(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What jit can take: the batch without its instructions, which this model does not read."""
        return {name: value for name, value in batch.items() if name != "language"}

    def input_spec(self, batch_size: int) -> dict[str, Any]:
        """Shapes of a prepared training batch."""
        steps = (self.obs_horizon,) if self.obs_horizon > 1 else ()
        observations = {"state": shape(batch_size, *steps, self.state_dim)}
        if self.use_image:
            size = self.image_size
            picture = shape(batch_size, *steps, size, size, self.image_channels, dtype=jnp.uint8)
            observations |= dict.fromkeys(self.picture_keys, picture)
        actions = shape(*chunk_shape(batch_size, self.action_horizon, self.action_dim))
        told = {"auxiliary": shape(batch_size, self.auxiliary_size)} if self.auxiliary_size else {}
        return {"observations": observations, "actions": actions, **told}

    def _seen(self, observations: Mapping[str, Any]) -> Float[Array, "B E"]:
        """Features of the latest pictures."""
        frame = 0 if self.obs_horizon == 1 else -1
        encoders = self.image_encoders if self.cameras else [self.image_encoder]
        images = [
            model_image(observations, self.image_channels, self.image_size, key, frame) for key in self.picture_keys
        ]
        return jnp.concatenate([encoder(image) for encoder, image in zip(encoders, images, strict=True)], axis=-1)

    def _scores(self, batch: Mapping[str, Any], actions: Array, seen: Array | None) -> dict[str, Array]:
        if "actions" not in batch:
            return {}
        error = actions - target_actions(batch, actions.shape)
        valid = valid_steps(batch, actions.shape)
        scores = {
            "loss": masked_mean(error_fn(self.loss_type)(error), valid),
            "action_mse": masked_mean(jnp.square(error), valid),
            "action_mae": masked_mean(jnp.abs(error), valid),
        }
        if seen is None or "auxiliary" not in batch or not self.auxiliary_size:
            return scores
        told = self.auxiliary(seen).astype(jnp.float32)
        scores["auxiliary_mae"] = jnp.mean(jnp.abs(told - batch["auxiliary"]))
        return scores | {"loss": scores["loss"] + AUXILIARY_WEIGHT * scores["auxiliary_mae"]}
