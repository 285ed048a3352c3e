"""The actor-critic network and its action distribution.

The layers are those of the torch layout (INTEROP): `feature_net` of Linear and tanh, `actor_mean`, `critic`,
`actor_log_std`; weights are orthogonal. A separate critic network and an image encoder are optional additions.

Products are whole float32, as the physics' are: PPO compares probabilities of the same action between programs, and
what a GPU or TPU saves by rounding operands moves the ratio away from 1 before anything has been learned.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Float, PRNGKeyArray

from simscaleai_jax.core.jax_settings import GENERATOR
from simscaleai_jax.core.precision import full_precision
from simscaleai_jax.rl.ppo.strided_conv import strided_conv

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
IMAGE_FEATURES = 64


class Normal(struct.PyTreeNode):
    """A diagonal normal distribution over actions.

    Attributes:
      mean: (..., A) centre.
      log_std: (..., A) or (A,) log standard deviation.
    """

    mean: Float[Array, "*batch A"]
    log_std: Float[Array, "*any A"]

    @property
    def stddev(self) -> jax.Array:
        """Standard deviation, in the shape of `mean`."""
        return jnp.broadcast_to(jnp.exp(self.log_std), self.mean.shape)

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*batch A"]:
        """Draws one action per row."""
        return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape)

    def log_prob(self, value: Float[Array, "*batch A"]) -> Float[Array, "*batch A"]:
        """Log density of each action number; sum over the last axis for that of the action."""
        return -0.5 * jnp.square((value - self.mean) * jnp.exp(-self.log_std)) - self.log_std - LOG_SQRT_2PI

    def entropy(self) -> Float[Array, "*batch A"]:
        """Differential entropy of each action number."""
        return jnp.broadcast_to(self.log_std + 0.5 + LOG_SQRT_2PI, self.mean.shape)


class ImageEncoder(nnx.Module):
    """Two strided convolutions and a linear layer: uint8 (..., H, W, C) to (..., 64) features."""

    def __init__(self, image_shape: tuple[int, int, int], *, rngs: nnx.Rngs) -> None:
        height, width, channels = image_shape
        self.image_shape = tuple(image_shape)
        self.first = nnx.Conv(channels, 16, (8, 8), strides=4, padding="VALID", rngs=rngs)
        self.second = nnx.Conv(16, 32, (4, 4), strides=2, padding="VALID", rngs=rngs)
        rows, columns = ((((size - 8) // 4 + 1) - 4) // 2 + 1 for size in (height, width))
        if min(rows, columns) < 1:
            raise ValueError(f"The image encoder needs at least 20 x 20 pixels; got {height} x {width}.")
        self.out = nnx.Linear(rows * columns * 32, IMAGE_FEATURES, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        batch = image.shape[:-3]
        pixels = image.reshape(-1, *self.image_shape).astype(jnp.float32) / 255.0 - 0.5
        features = nnx.relu(strided_conv(self.first, pixels, stride=4))
        features = nnx.relu(strided_conv(self.second, features, stride=2))
        return nnx.tanh(self.out(features.reshape(features.shape[0], -1))).reshape(*batch, IMAGE_FEATURES)


class ActorCritic(nnx.Module):
    """Gaussian policy and value function over a shared feature network.

    `obs` is a state array (..., obs_dim) or a dict {"state": (..., obs_dim), "critic": (..., critic_obs_dim)?,
    "image": uint8 (..., H, W, C)?}. Actor and critic see the encoder's 64 features of the image; or, with
    `auxiliary_dim`, the actor sees what an auxiliary loss lets a linear layer predict from them, and a critic with an
    input of its own sees no image.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden_dim: int = 256,
        n_layers: int = 2,
        *,
        critic_obs_dim: int | None = None,
        image_shape: tuple[int, int, int] | None = None,
        auxiliary_dim: int | None = None,
        log_std_init: float = 0.0,
        log_std_min: float = -5.0,
        log_std_max: float = 1.0,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        """Builds the networks.

        Args:
          obs_dim: length S of the actor's state vector.
          action_dim: length A of an action.
          hidden_dim: width of the hidden layers.
          n_layers: hidden layers.
          critic_obs_dim: length of the critic's own state vector; None: the critic shares the actor's features.
          image_shape: (H, W, C) of obs["image"]; None: no image encoder.
          auxiliary_dim: length of what is predicted from the image; None: no prediction.
          log_std_init: first value of every `actor_log_std`.
          log_std_min: lower bound that is applied to it.
          log_std_max: upper bound that is applied to it.
          rngs: source of the weights; None: seeded with 0.
        """
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.obs_dim, self.action_dim = obs_dim, action_dim
        self.log_std_min, self.log_std_max = log_std_min, log_std_max
        self.calls = 0  # actions sampled without a key
        image_dim = 0 if image_shape is None else (auxiliary_dim or IMAGE_FEATURES)
        critic_image_dim = 0 if auxiliary_dim else image_dim
        self.encoder = None if image_shape is None else ImageEncoder(image_shape, rngs=rngs)
        self.auxiliary = None if auxiliary_dim is None else nnx.Linear(IMAGE_FEATURES, auxiliary_dim, rngs=rngs)
        self.feature_net = _hidden_layers(obs_dim + image_dim, hidden_dim, n_layers, rngs)
        self.critic_net = (
            None
            if critic_obs_dim is None
            else _hidden_layers(critic_obs_dim + critic_image_dim, hidden_dim, n_layers, rngs)
        )
        self.actor_mean = _linear(hidden_dim, action_dim, 0.01, rngs)
        self.critic = _linear(hidden_dim, 1, 1.0, rngs)
        self.actor_log_std = nnx.Param(jnp.full((action_dim,), log_std_init, jnp.float32))

    @full_precision
    def forward(self, obs: Any) -> tuple[Normal, Float[Array, "*batch"]]:
        """Returns the action distribution and the value (...,) of each observation."""
        inputs = self.encode(obs)
        features = self._actor_features(inputs)
        critic_features = features
        if self.critic_net is not None:
            image = [] if self.encoder is None or self.auxiliary is not None else [inputs["image_features"]]
            critic_features = _apply(self.critic_net, jnp.concatenate([inputs["critic"], *image], axis=-1))
        return self._distribution(features), self.critic(critic_features)[..., 0]

    @full_precision
    def action_distribution(self, obs: Any) -> Normal:
        """The action distribution alone, for which `obs` needs nothing that only the critic sees."""
        return self._distribution(self._actor_features(self.encode(obs)))

    def _actor_features(self, encoded: Mapping[str, Any]) -> jax.Array:
        image = [] if self.encoder is None else [encoded["image_features"]]
        if self.auxiliary is not None:
            image = [jax.lax.stop_gradient(encoded["prediction"])]
        return _apply(self.feature_net, jnp.concatenate([encoded["state"], *image], axis=-1))

    def _distribution(self, features: jax.Array) -> Normal:
        log_std = jnp.clip(self.actor_log_std[...], self.log_std_min, self.log_std_max)
        mean = self.actor_mean(features)
        return Normal(mean, jnp.broadcast_to(log_std, mean.shape))

    @full_precision
    def encode(self, obs: Any) -> dict[str, Any]:
        """`obs` as a dict, the image replaced by "image_features" (..., 64) and "prediction" (..., auxiliary_dim).

        The other methods take its result for `obs`, so that an image is encoded once.
        """
        inputs = dict(obs) if isinstance(obs, Mapping) else {"state": obs}
        if self.encoder is not None and "image_features" not in inputs:
            inputs["image_features"] = self.encoder(inputs.pop("image"))
            if self.auxiliary is not None:
                inputs["prediction"] = self.auxiliary(inputs["image_features"])
        return inputs

    def __call__(self, obs: Any) -> tuple[Normal, Float[Array, "*batch"]]:
        """The same as `forward`."""
        return self.forward(obs)

    def get_action(
        self, obs: Any, deterministic: bool = False, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*batch A"], Float[Array, "*batch"], Float[Array, "*batch"]]:
        """Returns (action (..., A), its log probability (...,), value (...,)).

        Without `key` a sampled action draws from the module's own counter, which is right outside `jit` only.
        """
        distribution, value = self.forward(obs)
        if deterministic:
            action = distribution.mean
        else:
            if key is None:
                key = jax.random.fold_in(jax.random.key(0, impl=GENERATOR), self.calls)
                self.calls += 1
            action = distribution.sample(key)
        return action, distribution.log_prob(action).sum(-1), value

    def evaluate_actions(
        self, obs: Any, actions: Float[Array, "*batch A"]
    ) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"], Float[Array, "*batch"]]:
        """Returns (log probability (...,), value (...,), entropy (...,)) of given actions."""
        distribution, value = self.forward(obs)
        return distribution.log_prob(actions).sum(-1), value, distribution.entropy().sum(-1)


def _hidden_layers(input_dim: int, hidden_dim: int, n_layers: int, rngs: nnx.Rngs) -> nnx.List:
    sizes = [input_dim] + [hidden_dim] * n_layers
    return nnx.List([_linear(sizes[i], sizes[i + 1], math.sqrt(2), rngs) for i in range(n_layers)])


def _linear(input_dim: int, output_dim: int, gain: float, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(input_dim, output_dim, kernel_init=nnx.initializers.orthogonal(gain), rngs=rngs)


def _apply(layers: nnx.List, features: jax.Array) -> jax.Array:
    for layer in layers:
        features = nnx.tanh(layer(features))
    return features
