"""`PPOAgent`: the documented shell around the pure functions."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from simscaleai_jax.core import checkpoint, compile_cache, distributed, jax_settings, sharding
from simscaleai_jax.core.plain import native
from simscaleai_jax.core.streams import Stream, seed_key
from simscaleai_jax.rl.ppo import envs, python_loop, storage
from simscaleai_jax.rl.ppo.actions import ActionBounds
from simscaleai_jax.rl.ppo.config import Layout, PPOConfig, make_layout
from simscaleai_jax.rl.ppo.networks import ActorCritic
from simscaleai_jax.rl.ppo.rollout import act_distribution
from simscaleai_jax.rl.ppo.state import PPOState, init_training_state, make_learner, network_kwargs, reported
from simscaleai_jax.rl.ppo.train import make_dispatch, make_init
from simscaleai_jax.rl.progress import TrainingLog

TRANSITIONS_PER_DISPATCH = 16_384

# (agent, numbers of one update) -> anything; False ends training after the dispatch in progress
Callback = Callable[["PPOAgent", dict[str, float]], Any]


class PPOAgent:
    """Trains and runs a policy.

    `state` (PPOState) is all that changes; `learner` is the static half; `action_bounds` are those of the environment
    that it acts in, [-1, 1] until it has seen one.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        config: PPOConfig | None = None,
        device: str = "cpu",
        *,
        critic_obs_dim: int | None = None,
        image_shape: tuple[int, int, int] | None = None,
        auxiliary_dim: int | None = None,
    ) -> None:
        """Builds the networks; `PPOAgent.for_env` takes the sizes from an environment.

        Args:
          obs_dim: length of the actor's state vector.
          action_dim: length of an action.
          config: settings; None for the defaults.
          device: "cpu", "gpu", "tpu" or "auto".
          critic_obs_dim: length of the critic's own vector, with `config.critic_keys`.
          image_shape: (H, W, C) of obs["image"], with `config.encoder`.
          auxiliary_dim: length of the vector to predict from the image, with `config.auxiliary_keys`.
        Raises:
          ValueError: unknown device, an encoder or critic keys without their sizes, or a setting that no checkpoint can
            keep.
        """
        self.config = PPOConfig() if config is None else config
        self.device = device
        sizes = {"encoder": image_shape, "critic_keys": critic_obs_dim, "auxiliary_keys": auxiliary_dim}
        for option, given in sizes.items():
            wants = getattr(self.config, option) not in ("none", ())
            if wants != (given is not None):
                raise ValueError(
                    f"PPOConfig.{option} and its size go together; PPOAgent.for_env(env, config) finds it."
                )
        self.mesh = sharding.make_mesh(sharding.pick_devices(device, self.config.num_devices))
        self.model_kwargs = network_kwargs(
            self.config,
            native(obs_dim),
            native(action_dim),
            critic_obs_dim=native(critic_obs_dim),
            image_shape=None if image_shape is None else tuple(native(image_shape)),
            auxiliary_dim=native(auxiliary_dim),
        )
        self.learner, params = make_learner(self.config, self.model_kwargs)
        self.state: PPOState = sharding.put_replicated(init_training_state(self.learner, params), self.mesh)
        self.observation_spec: dict[str, Any] = {}
        self.env_record: dict[str, Any] = {}
        self.action_bounds = ActionBounds.unit(self.model_kwargs["action_dim"])
        self.env_name: str | None = None  # where the environment's own name is not the one it was made by
        self._saved_env: dict[str, np.ndarray] | None = None
        self._env_source: Any = None
        self._predict: Callable | None = None
        self._predictions = 0
        self._extra_steps = 0  # of a loaded run whose updates took another number of steps
        checkpoint.check_savable(storage.make_manifest(self))

    @classmethod
    def for_env(cls, env: Any, config: PPOConfig | None = None, device: str = "auto") -> "PPOAgent":
        """An agent whose networks fit `env` (batched, functional, vector or plain)."""
        config = PPOConfig() if config is None else config
        agent = cls(**envs.model_kwargs_for(env, config), config=config, device=device)
        agent.action_bounds = envs.action_bounds(env)
        return agent

    @property
    def network(self) -> ActorCritic:
        """The network with the current weights (its inputs are normalised observations)."""
        return self.learner.network(self.state.params)

    @property
    def total_steps(self) -> int:
        """Transitions seen so far."""
        return int(self.state.update) * self.config.n_steps + self._extra_steps

    def layout(self) -> Layout:
        """How a rollout is divided on this agent's devices.

        Raises:
          ValueError: sizes that do not divide.
        """
        return make_layout(self.config, self.mesh.size, sharding.platform(self.mesh))

    def train(
        self,
        env: Any,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        total_timesteps: int | None = None,
        line_seconds: float | None = None,
    ) -> dict[str, list[float]]:
        """Trains until `total_timesteps` transitions have been seen in all; a loaded agent continues where it stopped.

        Args:
          env: a batched or functional environment, one of our adapters or vector environments (jitted), or any
            gymnasium environment or vector environment (a Python loop).
          callbacks: called as callback(agent, numbers) after every update; a False ends training.
          progress: draw a progress bar (a printed line every `log_every` updates where there is no terminal).
          total_timesteps: replaces the config's.
          line_seconds: also print a line after so many seconds.
        Returns:
          One number per update: episode_reward, episode_length, success_rate (means over the episodes that ended in the
          latest update in which one did), plain_success_rate (over the episodes that this update ended and no
          curriculum eased; NaN where there was none), policy_loss, value_loss, entropy, approx_kl, clip_fraction,
          steps_per_second, total_steps, those in `METRICS`, and reward/TERM for each reward term that a batched
          environment names: its weighted mean over all transitions of the update (not over episodes), so that the
          terms sum to the mean reward of a step.
        Raises:
          ValueError: the environment does not fit the networks, sizes that do not divide, something that no checkpoint
            could keep, one of JAX's settings under which this cannot train, or training has diverged.
        """
        jax_settings.check()
        compile_cache.enable()
        if total_timesteps is not None:
            self._change_config(total_timesteps=total_timesteps)
        self._check_sizes(env)
        batched = envs.find_batched_env(env, needs_images=self.config.encoder != "none")
        own = envs.env_record(env if batched is None else batched, self.env_name or self.env_record.get("name"))
        record = own or self.env_record
        if self._saved_env is not None:
            envs.check_engine(self.env_record, record)
        self._take_bounds(env)
        self.env_record = record
        self.observation_spec = envs.spec_record(envs.observation_spec(env))
        checkpoint.check_savable(storage.make_manifest(self))
        with TrainingLog(self.config, self.total_steps, progress, line_seconds) as log:
            if batched is None:
                python_loop.train_in_python(self, env, log, callbacks)
            else:
                self._train_jitted(batched, env, log, callbacks)
        return log.history

    def predict(self, obs: Any, deterministic: bool = True) -> np.ndarray:
        """Acts on one observation or a batch of them (dict of arrays, or the state itself): (A,) or (B, A) float32, in
        the environment's units and inside its bounds.
        """
        if self._predict is None:
            self._predict = jax.jit(partial(_act, self.learner), static_argnums=0)
        key = jax.random.fold_in(seed_key(self.config.seed, Stream.ACTIONS), self._predictions)
        self._predictions += 0 if deterministic else 1
        acting = storage.acting_state(self.state)
        return np.asarray(self._predict(self.action_bounds, acting, obs, key, deterministic))

    def policy(self, deterministic: bool = True) -> Callable[[Any, jax.Array], jax.Array]:
        """The policy as it is now, as a pure, vmappable function policy(obs, key) -> action."""
        acting = jax.tree.map(np.array, storage.acting_state(self.state))
        bounds = self.action_bounds
        return lambda obs, key: _act(self.learner, bounds, acting, obs, key, deterministic)

    def save(self, path: str) -> None:
        """Writes a checkpoint directory from which training resumes exactly and `load_policy` rebuilds the policy."""
        storage.save_agent(self, path)

    def load(self, path: str) -> None:
        """Reads a checkpoint of `save` into this agent.

        Raises:
          FileNotFoundError, ValueError: no whole PPO checkpoint there, or one of other networks.
        """
        self._saved_env = storage.load_agent(self, path)
        self._env_source = None

    def load_weights(self, path: str) -> None:
        """Takes weights and observation statistics of a checkpoint and nothing else; raises like `load`."""
        storage.load_weights(self, path)

    def count_steps(self, steps: int) -> None:
        """Says how many transitions have been seen, where updates took another number of them before.

        Updates are numbered as if they had always been as long as they are now, which schedules go by; random streams
        are others than any that were used.
        """
        if steps == self.total_steps:
            return
        key = jax.random.fold_in(self.state.key, steps)
        number = np.int32(steps // self.config.n_steps)
        self.state = self.state.replace(**sharding.put_replicated({"key": key, "update": number}, self.mesh))
        self._extra_steps = steps % self.config.n_steps

    def _train_jitted(self, env: Any, source: Any, log: TrainingLog, callbacks: Sequence[Callback]) -> None:
        layout = self.layout()
        remaining = math.ceil((self.config.total_timesteps - self.total_steps) / self.config.n_steps)
        if remaining <= 0:
            return
        self._start_envs(env, layout, source)
        most = self.config.updates_per_dispatch or max(1, TRANSITIONS_PER_DISPATCH // self.config.n_steps)
        most = min(most, self.config.num_updates)
        with log.compiling():
            program = make_dispatch(self.learner, env, layout, self.mesh, most)
            dispatch = distributed.compile_together(program.lower(self.state, np.int32(1)))
        is_going_on = True
        while remaining and is_going_on:
            count = min(most, remaining)
            log.start_timer()
            self.state, metrics = dispatch(self.state, np.int32(count))
            rows = reported({name: np.asarray(row)[:count] for name, row in metrics.items()})
            is_going_on = log.record(rows, self, callbacks)
            remaining -= count

    def _start_envs(self, env: Any, layout: Any, source: Any) -> None:
        """Goes on with the environments of the call before or of the loaded checkpoint; otherwise starts fresh ones."""
        if source is self._env_source and self._saved_env is None:
            return
        self._env_source = source
        bare = self.state.replace(discounted_return=np.zeros(0, np.float32), env=())
        started = make_init(self.learner, env, layout, self.mesh)(bare)
        self.state = storage.with_saved_envs(started, self._saved_env)
        self._saved_env = None

    def _check_sizes(self, env: Any) -> None:
        wanted = envs.model_kwargs_for(env, self.config)
        for name, size in wanted.items():
            have = self.model_kwargs[name]
            if have is not None and size is not None and (tuple(have) if isinstance(have, tuple) else have) != size:
                raise ValueError(f"This agent has {name}={have}; the environment needs {size}. See PPOAgent.for_env.")

    def _take_bounds(self, env: Any) -> None:
        """Acts in the environment's units from here on; an agent that has learned keeps those that it knows."""
        bounds = envs.action_bounds(env)
        if bounds != self.action_bounds and int(self.state.update):
            raise ValueError(f"This agent has learned actions in {self.action_bounds}; the environment takes {bounds}.")
        self.action_bounds = bounds

    def _change_config(self, **changes: Any) -> None:
        self.config = dataclasses.replace(self.config, **changes)
        self.learner = self.learner.replace(config=self.config)


def _act(learner: Any, bounds: ActionBounds, state: Any, obs: Any, key: jax.Array, deterministic: Any) -> jax.Array:
    distribution = act_distribution(learner, state, obs)
    if isinstance(deterministic, bool):
        return bounds.to_env(distribution.mean if deterministic else distribution.sample(key))
    return bounds.to_env(jax.numpy.where(deterministic, distribution.mean, distribution.sample(key)))
