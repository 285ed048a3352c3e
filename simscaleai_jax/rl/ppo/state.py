"""Everything that PPO carries from one update to the next."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from simscaleai_jax.core.sharding import BATCH, REPLICATED
from simscaleai_jax.core.streams import Stream, seed_key
from simscaleai_jax.rl.ppo.config import PPOConfig
from simscaleai_jax.rl.ppo.networks import ActorCritic
from simscaleai_jax.rl.ppo.normalize import init_stats

# Reported by every update, whatever the environment; `train.metric_names` adds its reward terms.
METRICS = (
    "episode_reward", "episode_length", "success_rate", "plain_success_rate", "episodes", "policy_loss", "value_loss",
    "entropy", "approx_kl", "clip_fraction", "explained_variance", "grad_norm", "learning_rate", "action_std",
    "auxiliary_loss", "nan_count", "overflow_count", "skipped_steps",
)  # fmt: skip

# No number of a compiled program may be NaN where the user has JAX look for them, so what has nothing to be averaged
# over has these values there; `reported` turns them into NaN.
UNKNOWN_RATE, UNKNOWN_LENGTH = -1.0, 0.0


class EpisodeStats(struct.PyTreeNode):
    """Means over the episodes that ended in the latest update in which one ended; zeros before the first.

    Attributes:
      reward: [] mean undiscounted return.
      length: [] mean length in steps.
      success: [] share whose last step was a success.
    """

    reward: Any
    length: Any
    success: Any


class PPOState(struct.PyTreeNode):
    """State of training; environments' leaves lead with the (global) number of environments B.

    Fields are not type-checked: a tree of this kind may also hold shardings, or a stack of many seeds.

    Attributes:
      params: weights, nested dict.
      opt_state: Adam's moments.
      learning_rate: [] rate in use; changes under the adaptive schedule only.
      normalizer: input name ("state", "critic", "auxiliary") -> statistics of it.
      reward_stats: statistics of the discounted return, (1,).
      episodes: latest episode means.
      key: PRNG key from which every update folds its own.
      update: [] int32 updates done.
      discounted_return: (B,) running discounted return, for reward normalisation.
      env: state of the environments; () where a Python loop steps them.
    """

    params: Any
    opt_state: Any
    learning_rate: Any
    normalizer: Any
    reward_stats: Any
    episodes: Any
    key: Any
    update: Any
    discounted_return: Any
    env: Any


STATE_SPECS = PPOState(
    params=REPLICATED, opt_state=REPLICATED, learning_rate=REPLICATED, normalizer=REPLICATED, reward_stats=REPLICATED,
    episodes=REPLICATED, key=REPLICATED, update=REPLICATED, discounted_return=BATCH, env=BATCH,
)  # fmt: skip


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Where every leaf of a `PPOState` lies on a mesh."""

    def place(spec: PartitionSpec, part: Any) -> Any:
        return jax.tree.map(lambda _: NamedSharding(mesh, spec), part)

    return jax.tree.map(place, STATE_SPECS, state, is_leaf=lambda value: isinstance(value, PartitionSpec))


class Learner(struct.PyTreeNode):
    """The static half: what the pure functions close over.

    Attributes:
      graphdef: structure of the network.
      config: settings.
      input_sizes: input name -> length of the vectors that are normalised.
    """

    graphdef: Any = struct.field(pytree_node=False)
    config: PPOConfig = struct.field(pytree_node=False)
    input_sizes: tuple[tuple[str, int], ...] = struct.field(pytree_node=False)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam after global-norm clipping; the caller applies the learning rate."""
        return optax.chain(optax.clip_by_global_norm(self.config.max_grad_norm), optax.scale_by_adam(eps=1e-5))

    def network(self, params: Any) -> ActorCritic:
        """The network with these weights."""
        return nnx.merge(self.graphdef, nnx.State(params))


def network_kwargs(config: PPOConfig, obs_dim: int, action_dim: int, **sizes: Any) -> dict[str, Any]:
    """Arguments of the network: those sizes (`envs.model_kwargs_for`) and what the settings say."""
    said = ("hidden_dim", "n_layers", "log_std_init", "log_std_min", "log_std_max")
    return {"obs_dim": obs_dim, "action_dim": action_dim, **{name: getattr(config, name) for name in said}, **sizes}


def make_learner(config: PPOConfig, model_kwargs: dict[str, Any]) -> tuple[Learner, Any]:
    """Builds the network: (learner, initial weights)."""
    model = ActorCritic(**model_kwargs, rngs=nnx.Rngs(seed_key(config.seed, Stream.WEIGHTS)))
    graphdef, params = nnx.split(model, nnx.Param)
    kinds = {"state": "obs_dim", "critic": "critic_obs_dim", "auxiliary": "auxiliary_dim"}
    sizes = {name: model_kwargs[kwarg] for name, kwarg in kinds.items() if model_kwargs.get(kwarg)}
    return Learner(graphdef, config, tuple(sorted(sizes.items()))), nnx.to_pure_dict(params)


def init_training_state(learner: Learner, params: Any) -> PPOState:
    """The state before the first update, without environments."""
    unknown = jnp.zeros(())
    return PPOState(
        params=params,
        opt_state=learner.optimizer.init(params),
        learning_rate=jnp.float32(learner.config.lr),
        normalizer={name: init_stats(size) for name, size in learner.input_sizes},
        reward_stats=init_stats(1),
        episodes=EpisodeStats(unknown, unknown, unknown),
        key=seed_key(learner.config.seed, Stream.TRAINING),
        update=jnp.int32(0),
        discounted_return=jnp.zeros(0),
        env=(),
    )


def reported(metrics: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Numbers of updates as they are shown, (updates,) each: NaN where there is nothing to average over yet."""
    rows = {name: np.array(row, np.float64) for name, row in metrics.items()}
    is_unknown = rows["episode_length"] == UNKNOWN_LENGTH
    for name in ("episode_reward", "episode_length", "success_rate"):
        rows[name][is_unknown] = np.nan
    rows["plain_success_rate"][rows["plain_success_rate"] == UNKNOWN_RATE] = np.nan
    return rows
