"""PPO's settings, and how they divide a rollout into environments, steps and minibatches."""

import dataclasses
import math
from typing import Literal

from simscaleai_jax.core.config import settle
from simscaleai_jax.core.sharding import check_divisible
from simscaleai_jax.core.streams import check_seed

MAX_BLOCKS = 8
# Steps of a rollout, at the least, with the default number of environments. An accelerator steps more environments in
# the same time, so its rollouts are shorter.
CPU_ROLLOUT_LENGTH = 32
ACCELERATOR_ROLLOUT_LENGTH = 16


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO; the defaults run on a laptop.

    Attributes:
      hidden_dim: width of the hidden layers.
      n_layers: hidden layers of the feature network.
      clip_epsilon: how far the probability ratio may leave 1 before its gradient stops.
      value_loss_coef: weight of the value loss.
      entropy_coef: weight of the entropy bonus.
      max_grad_norm: global norm to which gradients are clipped.
      gamma: discount.
      gae_lambda: lambda of generalized advantage estimation.
      lr: Adam's learning rate (the first one, where a schedule changes it).
      n_steps: transitions collected per update, over all environments.
      n_epochs: passes over each rollout.
      batch_size: transitions per minibatch; `num_minibatches` replaces it.
      total_timesteps: transitions in all; training ends after the update that reaches it.
      log_every: updates between two printed lines where no progress bar can be drawn.
      num_envs: environments stepped together; None: as many as n_steps gives rollouts of at least 32 steps on a CPU, 16
        on a GPU or TPU (64 and 128 for n_steps of 2048), but one for each device. Set it where a run must not depend on
        the device.
      num_minibatches: minibatches per epoch; None: n_steps / batch_size.
      num_env_blocks: blocks within which minibatches permute environments, a multiple of the devices; their number, not
        that of the devices, decides which samples meet. None: 8, or fewer where 8 do not divide evenly; on more than 8
        devices as many as there are devices.
      updates_per_dispatch: updates per call to the device; None: about 16,384 transitions.
      num_devices: devices to spread environments over; None: one CPU, or every GPU or TPU.
      seed: of weights, environments, actions and minibatches.
      lr_schedule: "constant", "linear" (to zero at total_timesteps) or "adaptive" (holds `target_kl`).
      target_kl: KL divergence per minibatch step that the adaptive schedule aims for.
      normalize_observations: shift and scale state inputs by running statistics.
      normalize_advantages: shift and scale advantages over the whole rollout.
      normalize_rewards: divide rewards by the running standard deviation of the discounted return.
      reward_scale: factor on every reward that the learner sees (reported rewards are unscaled).
      clip_value_loss: also clip the value's change by clip_epsilon.
      log_std_init: first log standard deviation of the actions.
      log_std_min: lower bound of the log standard deviation.
      log_std_max: upper bound of the log standard deviation.
      actor_keys: observation keys that the actor sees, in this order; empty: all state keys.
      critic_keys: observation keys that the critic sees; empty: it shares the actor's features.
      encoder: "cnn" encodes the images of all cameras and joins them to the state; "none" ignores images.
      auxiliary_keys: observation keys that the encoder learns to predict from the images, in place of learning from
        rewards: a simulator knows what the images show, and says so with far less noise. The actor sees the
        predictions, a critic with critic_keys no image.
      auxiliary_lr: Adam's learning rate of the encoder and its predictions; it falls linearly to zero at
        total_timesteps, whatever the schedule of the policy.
    """

    hidden_dim: int = 256
    n_layers: int = 2
    clip_epsilon: float = 0.2
    value_loss_coef: float = 0.5
    entropy_coef: float = 0.01
    max_grad_norm: float = 0.5
    gamma: float = 0.99
    gae_lambda: float = 0.95
    lr: float = 3e-4
    n_steps: int = 2048
    n_epochs: int = 10
    batch_size: int = 64
    total_timesteps: int = 1_000_000
    log_every: int = 10
    num_envs: int | None = None
    num_minibatches: int | None = None
    num_env_blocks: int | None = None
    updates_per_dispatch: int | None = None
    num_devices: int | None = None
    seed: int = 0
    lr_schedule: Literal["constant", "linear", "adaptive"] = "constant"
    target_kl: float = 0.01
    normalize_observations: bool = True
    normalize_advantages: bool = True
    normalize_rewards: bool = False
    reward_scale: float = 1.0
    clip_value_loss: bool = False
    log_std_init: float = 0.0
    log_std_min: float = -5.0
    log_std_max: float = 1.0
    actor_keys: tuple[str, ...] = ()
    critic_keys: tuple[str, ...] = ()
    encoder: Literal["none", "cnn"] = "none"
    auxiliary_keys: tuple[str, ...] = ()
    auxiliary_lr: float = 1e-3

    def __post_init__(self) -> None:
        check_seed(self.seed, "PPOConfig.seed")
        settle(self)
        positive = ["hidden_dim", "n_layers", "n_steps", "n_epochs", "batch_size", "total_timesteps", "log_every"]
        positive += ["num_envs", "num_minibatches", "num_env_blocks", "updates_per_dispatch", "num_devices"]
        for name in positive:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"PPOConfig.{name} must be at least 1; got {value}.")
        for name in ("clip_epsilon", "lr", "max_grad_norm", "reward_scale", "target_kl", "auxiliary_lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"PPOConfig.{name} must be above 0; got {getattr(self, name)}.")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"PPOConfig.{name} must lie between 0 and 1; got {getattr(self, name)}.")
        if self.auxiliary_keys and self.encoder == "none":
            raise ValueError("PPOConfig.auxiliary_keys are predicted from images; set encoder to 'cnn'.")
        if not self.log_std_min <= self.log_std_init <= self.log_std_max:
            raise ValueError(
                "PPOConfig needs log_std_min <= log_std_init <= log_std_max; "
                f"got {self.log_std_min}, {self.log_std_init}, {self.log_std_max}."
            )

    @property
    def num_updates(self) -> int:
        """Updates until total_timesteps is reached."""
        return math.ceil(self.total_timesteps / self.n_steps)

    @property
    def minibatches_per_epoch(self) -> int:
        """Gradient steps that one pass over a rollout takes."""
        return self.num_minibatches or math.ceil(self.n_steps / self.batch_size)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one update's transitions are cut. A unit is one environment's chunk of consecutive steps.

    Attributes:
      num_envs: environments, B.
      num_steps: rollout length, T.
      num_minibatches: minibatches per epoch.
      num_chunks: units that one environment's rollout gives.
      num_blocks: groups of neighbouring environments; every minibatch takes equally many units from each.
    """

    num_envs: int
    num_steps: int
    num_minibatches: int
    num_chunks: int
    num_blocks: int

    @property
    def units_per_block(self) -> int:
        """Units that permute among each other."""
        return self.num_envs * self.num_chunks // self.num_blocks


def make_layout(config: PPOConfig, num_devices: int = 1, platform: str = "cpu") -> Layout:
    """Divides `config.n_steps` transitions.

    Args:
      config: settings.
      num_devices: devices that share the environments.
      platform: their kind ("cpu", "gpu", "tpu"), which the default number of environments suits.
    Raises:
      ValueError: a size that does not divide, with the nearest that do.
    """
    num_envs = config.num_envs or _default_num_envs(config.n_steps, num_devices, platform)
    check_divisible(config.n_steps, num_envs, "n_steps", "environments (num_envs)")
    if config.num_minibatches is None:
        check_divisible(config.n_steps, min(config.batch_size, config.n_steps), "n_steps", "transitions (batch_size)")
    num_minibatches = config.num_minibatches or max(1, config.n_steps // config.batch_size)
    num_steps = config.n_steps // num_envs
    check_divisible(config.n_steps, num_minibatches, "n_steps", "minibatches (num_minibatches)")
    cut = _blocks_and_chunks(num_envs, num_steps, num_minibatches, num_devices, config.num_env_blocks)
    if cut is None:
        raise ValueError(_advice(num_envs, num_steps, num_minibatches, num_devices, config.num_env_blocks))
    return Layout(num_envs, num_steps, num_minibatches, cut[1], cut[0])


def _default_num_envs(n_steps: int, num_devices: int, platform: str) -> int:
    """The most environments that divide `n_steps` into rollouts as long as `platform` wants them, as many on every
    device where that is possible.
    """
    most = max(num_devices, n_steps // (CPU_ROLLOUT_LENGTH if platform == "cpu" else ACCELERATOR_ROLLOUT_LENGTH))
    counts = [count for count in range(most, 0, -1) if n_steps % count == 0]
    return next((count for count in counts if count % num_devices == 0), counts[0])


def _blocks_and_chunks(
    num_envs: int, num_steps: int, num_minibatches: int, num_devices: int, wanted: int | None
) -> tuple[int, int] | None:
    """The most blocks, then the fewest chunks, with which every minibatch takes equally many units from each block, or
    None.
    """
    doublings = [num_devices * factor for factor in (8, 4, 2, 1) if num_devices * factor <= MAX_BLOCKS]
    for blocks in [wanted] if wanted else doublings or [num_devices]:
        for chunks in range(1, num_steps + 1):
            fits = num_steps % chunks == 0 and num_envs * chunks % (blocks * num_minibatches) == 0
            if fits and num_envs % blocks == 0 and blocks % num_devices == 0:
                return blocks, chunks
    return None


def _advice(num_envs: int, num_steps: int, num_minibatches: int, num_devices: int, wanted: int | None) -> str:
    """What is wrong with the sizes, and the nearest ones, with rollouts as long, that are not."""
    blocks = math.lcm(wanted or 1, num_devices)
    unit = blocks * num_minibatches // math.gcd(num_minibatches, num_steps)
    low, high = num_envs // unit * unit, -(-num_envs // unit) * unit
    sizes = " or ".join(
        f"num_envs={count}, n_steps={count * num_steps}, num_minibatches={num_minibatches}"
        + (f", num_env_blocks={blocks}" if wanted else "")
        for count in sorted({low or high, high})
    )
    return (
        f"{num_envs} environments of {num_steps} steps do not divide into {num_minibatches} minibatches "
        + f"on {num_devices} devices"
        + (f" in {wanted} blocks" if wanted else "")
        + f"; nearest: {sizes}."
    )
