"""Action chunking with a transformer and a latent, after https://arxiv.org/abs/2304.13705.

Learned queries, one for each action of the chunk, attend to one another and to tokens of the latent, the states and the
pictures. In training the latent z is drawn from a posterior that sees the chunk,

    loss = mean |action - target| + kl_weight * KL(posterior || N(0, 1)),

and when it acts z is zero. Instead of the paper's encoder and decoder there is one transformer without cross-attention.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from simscaleai_jax.models.image_encoders import make_image_encoder
from simscaleai_jax.models.inputs import window_pictures, window_state
from simscaleai_jax.models.layers import compute_dtype, embedding, layer_norm, linear, make_rngs
from simscaleai_jax.models.losses import masked_mean, target_actions, valid_steps
from simscaleai_jax.models.normalization import CAREFUL
from simscaleai_jax.models.observation_encoder import observation_arguments, observation_spec
from simscaleai_jax.models.planning import Execution
from simscaleai_jax.models.policy_heads.chunks import chunk_shape, draw_key
from simscaleai_jax.models.registry import register_model
from simscaleai_jax.models.specs import DataSpec, shape
from simscaleai_jax.models.transformer import TransformerEncoder

EMBEDDING_STD = 0.3  # much less, and the first norm would blow their gradients up


@register_model("act")
class ActionChunkingTransformer(nnx.Module):
    """Predicts a chunk of actions with a transformer and a latent, from the latest states and camera pictures.

    Actions (B, h, A) are not squashed. `num_layers` is of the transformer that acts, `posterior_layers` of the one that
    only training needs.
    """

    scaling = CAREFUL
    execution = Execution(ensemble=0.01)

    def __init__(
        self,
        state_dim: int = 20,
        action_dim: int = 4,
        action_horizon: int = 16,
        obs_horizon: int = 1,
        *,
        cameras: Sequence[str] = (),
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
        dtype: str = "float32",
        scan_layers: bool = False,
        remat: bool = False,
        attention: str = "auto",
        rngs: nnx.Rngs | None = None,
    ) -> None:
        if state_dim < 1 and not cameras:
            raise ValueError("A policy needs states (state_dim) or pictures (cameras); it has neither.")
        rngs = make_rngs(rngs)
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.action_horizon = action_horizon
        self.obs_horizon = obs_horizon
        self.cameras = tuple(cameras)
        self.image_channels = image_channels
        self.image_size = image_size
        self.image_pooling = image_pooling
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.num_layers = num_layers
        self.posterior_layers = posterior_layers
        self.mlp_ratio = mlp_ratio
        self.latent_dim = latent_dim
        self.kl_weight = kl_weight
        self.dropout = dropout
        self.dtype = dtype
        self.scan_layers = scan_layers
        self.remat = remat
        self.attention = attention
        self.deterministic = False
        self._build(rngs)

    def _build(self, rngs: nnx.Rngs) -> None:
        dim, dtype = self.embed_dim, self.dtype
        shared: dict[str, Any] = {
            "dropout": self.dropout,
            "dtype": dtype,
            "scan_layers": self.scan_layers,
            "remat": self.remat,
            "attention": self.attention,
            "rngs": rngs,
        }
        hidden = int(self.mlp_ratio * dim)
        if self.state_dim > 0:
            self.state_proj = linear(self.state_dim, dim, dtype=dtype, rngs=rngs)
        self.image_encoders = nnx.List(
            [
                make_image_encoder(
                    self.image_pooling, self.image_channels, self.image_size, dim, dtype=dtype, rngs=rngs
                )
                for _ in self.cameras
            ]
        )
        count = self.obs_horizon * ((self.state_dim > 0) + len(self.cameras))
        self.queries = embedding((1, self.action_horizon, dim), EMBEDDING_STD, rngs)
        self.places = embedding((1, 1 + count, dim), EMBEDDING_STD, rngs)
        self.latent_proj = linear(self.latent_dim, dim, dtype=dtype, rngs=rngs)
        self.transformer = TransformerEncoder(dim, self.num_heads, self.num_layers, hidden, **shared)
        self.norm = layer_norm(dim, rngs=rngs)
        self.action_head = linear(dim, self.action_dim, dtype=dtype, rngs=rngs)
        self.posterior = Posterior(
            self.action_dim, self.action_horizon, self.latent_dim, self.posterior_layers, dim, self.num_heads, hidden,
            **shared,
        )  # fmt: skip

    @classmethod
    def arguments_for(cls, data: DataSpec) -> dict[str, Any]:
        """The constructor arguments that follow from a data set."""
        return observation_arguments(data)

    @property
    def picture_keys(self) -> tuple[str, ...]:
        """Pictures that are read."""
        return self.cameras

    def forward(self, batch: Mapping[str, Any], *, key: Array | None = None) -> dict[str, Array]:
        """Predicts and, when the batch holds actions, scores.

        Args:
          batch: "observations" (see `models.inputs`), the latest k steps each where obs_horizon k > 1; optional
            "actions" (B, h, A), "is_pad" or "mask" (B, h).
          key: in training mode, draws the latent (None: its mean) and turns dropout on.
        Returns:
          {"predicted_actions"} and with actions {"loss", "action_mse"}.
        Raises:
          ValueError: an input is missing or has the wrong shape.
        """
        key = None if self.deterministic else key
        key_latent, key_posterior, key_acting = (None,) * 3 if key is None else jax.random.split(key, 3)
        tokens = self._tokens(batch["observations"])
        actions_shape = chunk_shape(tokens.shape[0], self.action_horizon, self.action_dim)
        target = target_actions(batch, actions_shape) if "actions" in batch else None
        valid = None if target is None else valid_steps(batch, actions_shape)
        if target is None or self.deterministic:
            actions = self._act(tokens, jnp.zeros((tokens.shape[0], self.latent_dim)), None)
            divergence = jnp.float32(0.0)
        else:
            mean, log_variance = self.posterior(tokens, target, valid, key=key_posterior)
            noise = jnp.zeros_like(mean) if key is None else jax.random.normal(draw_key(key_latent), mean.shape)
            actions = self._act(tokens, mean + jnp.exp(0.5 * log_variance) * noise, key_acting)
            each = 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance)
            divergence = jnp.mean(jnp.sum(each, axis=-1))
        actions = actions.reshape(actions_shape)
        if target is None:
            return {"predicted_actions": actions}
        error = actions - target
        return {
            "predicted_actions": actions,
            "loss": masked_mean(jnp.abs(error), valid) + self.kl_weight * divergence,
            "action_mse": masked_mean(jnp.square(error), valid),
        }

    def __call__(self, batch: Mapping[str, Any], *, key: Array | None = None) -> dict[str, Array]:
        """Same as `forward`."""
        return self.forward(batch, key=key)

    def predict(self, obs: Mapping[str, Any]) -> Float[Array, "B h A"]:
        """Chunks for observations (B, ...) or (B, k, ...), without dropout."""
        return self.forward({"observations": obs})["predicted_actions"]

    def prepare_batch(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What jit can take: the batch without its instructions, which this model does not read."""
        return {name: value for name, value in batch.items() if name != "language"}

    def input_spec(self, batch_size: int) -> dict[str, Any]:
        """Shapes of a prepared training batch."""
        sizes = (self.state_dim, self.obs_horizon, self.cameras, self.image_channels, self.image_size)
        actions = shape(*chunk_shape(batch_size, self.action_horizon, self.action_dim))
        return {"observations": observation_spec(batch_size, *sizes), "actions": actions}

    def _tokens(self, observations: Mapping[str, Any]) -> Float[Array, "B N D"]:
        """A token for every state and picture, k of each, without their places."""
        tokens = []
        if self.state_dim > 0:
            tokens.append(self.state_proj(window_state(observations, self.state_dim, self.obs_horizon)))
        for camera, encoder in zip(self.cameras, self.image_encoders, strict=True):
            frames = window_pictures(observations, camera, self.image_channels, self.image_size, self.obs_horizon)
            encoded = encoder(frames.reshape(-1, *frames.shape[2:]))
            tokens.append(encoded.reshape(*frames.shape[:2], -1))
        return jnp.concatenate(tokens, axis=1)

    def _act(self, tokens: Array, latent: Float[Array, "B L"], key: Array | None) -> Float[Array, "B h A"]:
        context = jnp.concatenate([self.latent_proj(latent)[:, None], tokens], axis=1) + self.places[...]
        queries = jnp.broadcast_to(self.queries[...], (tokens.shape[0], *self.queries.shape[1:]))
        hidden = jnp.concatenate([queries, context], axis=1).astype(compute_dtype(self.dtype))
        hidden = self.norm(self.transformer(hidden, key=key, num_out=self.action_horizon))
        return self.action_head(hidden.astype(compute_dtype(self.dtype))).astype(jnp.float32)


class Posterior(nnx.Module):
    """Mean and log-variance of the latent from the observations' tokens and the chunk that followed."""

    def __init__(
        self, action_dim: int, action_horizon: int, latent_dim: int, num_layers: int, dim: int, num_heads: int,
        mlp_dim: int, *, dtype: str, rngs: nnx.Rngs, **options: Any,
    ) -> None:  # fmt: skip
        self.dtype = dtype
        self.first = embedding((1, 1, dim), EMBEDDING_STD, rngs)
        self.places = embedding((1, action_horizon, dim), EMBEDDING_STD, rngs)
        self.action_proj = linear(action_dim, dim, dtype=dtype, rngs=rngs)
        self.transformer = TransformerEncoder(dim, num_heads, num_layers, mlp_dim, dtype=dtype, rngs=rngs, **options)
        self.norm = layer_norm(dim, rngs=rngs)
        self.out = linear(dim, 2 * latent_dim, dtype=dtype, rngs=rngs)

    def __call__(
        self, tokens: Float[Array, "B N D"], actions: Array, valid: Array | None, *, key: Array | None
    ) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
        """(mean, log-variance); actions after the episode's end look like none."""
        batch = tokens.shape[0]
        encoded = self.action_proj(actions.reshape(batch, -1, actions.shape[-1]))
        if valid is not None:
            encoded = encoded * valid.reshape(batch, -1, 1).astype(encoded.dtype)
        first = jnp.broadcast_to(self.first[...], (batch, *self.first.shape[1:]))
        hidden = jnp.concatenate([first, tokens, encoded + self.places[...]], axis=1)
        hidden = self.transformer(hidden.astype(compute_dtype(self.dtype)), key=key, num_out=1)
        out = self.out(self.norm(hidden[:, 0]).astype(compute_dtype(self.dtype))).astype(jnp.float32)
        mean, log_variance = jnp.split(out, 2, axis=-1)
        return mean, log_variance
