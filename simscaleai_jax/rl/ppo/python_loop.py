"""PPO on environments that only Python can step: any gymnasium environment or vector environment.

The same loss and minibatch step as the jitted loop; transitions go through a `RolloutBuffer`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from simscaleai_jax.core import sharding
from simscaleai_jax.core.observations import state_vector
from simscaleai_jax.core.streams import Stream, host_seed, substream
from simscaleai_jax.rl.ppo.buffer import RolloutBuffer
from simscaleai_jax.rl.ppo.config import PPOConfig
from simscaleai_jax.rl.ppo.finite import is_usable, mean_taken, usable_rows
from simscaleai_jax.rl.ppo.gym_envs import Step, as_plain_envs
from simscaleai_jax.rl.ppo.normalize import merge
from simscaleai_jax.rl.ppo.rollout import normalized
from simscaleai_jax.rl.ppo.state import METRICS, EpisodeStats, PPOState, reported
from simscaleai_jax.rl.ppo.update import Batch, minibatch_step

if TYPE_CHECKING:
    from simscaleai_jax.rl.ppo.agent import PPOAgent
    from simscaleai_jax.rl.progress import TrainingLog


def train_in_python(agent: "PPOAgent", env: Any, log: "TrainingLog", callbacks: Sequence[Any]) -> None:
    """Trains `agent` on `env` until the config's total_timesteps.

    Raises:
      ValueError: settings that this loop does not offer, or n_steps that does not divide by the number of environments.
    """
    config = agent.config
    _check_supported(config)
    envs = as_plain_envs(env, host_seed(config.seed, Stream.TRAINING_EPISODES))
    if config.n_steps % envs.num_envs:
        nearest = max(1, config.n_steps // envs.num_envs) * envs.num_envs
        raise ValueError(f"n_steps={config.n_steps} is no multiple of the {envs.num_envs} environments; use {nearest}.")
    sizes = agent.model_kwargs["obs_dim"], agent.model_kwargs["action_dim"]
    where = sharding.replicated(agent.mesh)
    buffer = RolloutBuffer(config.n_steps // envs.num_envs, *sizes, device=where, num_envs=envs.num_envs)
    loop = _Loop(agent, envs, buffer)
    is_going_on = True
    while agent.total_steps < config.total_timesteps and is_going_on:
        log.start_timer()
        metrics = loop.update()
        rows = reported({name: np.asarray([metrics[name]]) for name in METRICS})
        is_going_on = log.record(rows, agent, callbacks)


def _check_supported(config: PPOConfig) -> None:
    if config.encoder != "none" or config.critic_keys:
        raise ValueError("encoder and critic_keys need one of our batched environments (make_batched_env).")


class _Loop:
    """One rollout after the other, each followed by its learning."""

    def __init__(self, agent: "PPOAgent", envs: Any, buffer: RolloutBuffer) -> None:
        self.agent, self.envs, self.buffer = agent, envs, buffer
        learner = agent.learner

        def act(state: PPOState, obs: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            key = jax.random.fold_in(jax.random.fold_in(substream(state.key, Stream.POLICY_NOISE), state.update), step)
            inputs = normalized({"state": obs}, state.normalizer, learner.config)
            return learner.network(state.params).get_action(inputs, key=key)

        self._act = jax.jit(act)
        self._step = jax.jit(lambda state, batch: minibatch_step(learner, state, batch))
        self._merge = jax.jit(lambda stats, rows: merge(stats, rows))
        self.obs, self.is_seen = self._seen(envs.reset())
        self.valid = np.ones(envs.num_envs, bool)
        self.nan_count = 0
        self.totals, self.lengths = np.zeros(envs.num_envs), np.zeros(envs.num_envs)
        self.discounted = np.zeros((envs.num_envs,), np.float32)

    def update(self) -> dict[str, float]:
        """Collects a rollout and learns from it: the numbers to report."""
        agent, config = self.agent, self.agent.config
        self.buffer.shuffle_from(config.seed, int(agent.state.update))
        finished = self._collect()
        self._scale_rewards()
        last_value = self._value(self.obs, 0)
        self.buffer.compute_gae(last_value, config.gamma, config.gae_lambda)
        metrics = self._learn()
        if config.normalize_observations and self.buffer.valid.any():
            rows = self.buffer.observations[self.buffer.valid]
            stats = {"state": self._merge(agent.state.normalizer["state"], rows)}
            agent.state = agent.state.replace(normalizer=stats)
        if finished:
            means = [jnp.float32(mean) for mean in np.mean(finished, axis=0)]
            agent.state = agent.state.replace(episodes=EpisodeStats(*means))
        agent.state = agent.state.replace(update=agent.state.update + 1)
        episodes = agent.state.episodes
        return metrics | {
            "episode_reward": float(episodes.reward),
            "episode_length": float(episodes.length),
            "success_rate": float(episodes.success),
            "plain_success_rate": float(episodes.success),
            "episodes": len(finished),
            "nan_count": self.nan_count,
            "overflow_count": 0,
            "action_std": float(jnp.exp(agent.state.params["actor_log_std"]).mean()),
        }

    def _collect(self) -> list[tuple[float, float, float]]:
        """Fills the buffer; returns (return, length, success) of every episode that ended.

        A transition whose reward or observations are not finite is counted and not learned from; what came before it
        sees an end there.
        """
        self.buffer.reset()
        self.nan_count = 0
        finished = []
        for t in range(self.buffer.n_steps):
            action, log_prob, value = (np.asarray(x) for x in self._act(self.agent.state, self.obs, t))
            step: Step = self.envs.step(self.agent.action_bounds.to_env(action))
            final, is_reached = self._seen(step.final_obs)
            is_fine = self.is_seen & is_reached & is_usable(step.reward)
            is_cut = step.truncated & ~step.terminated & is_fine
            bootstrap = np.where(is_cut, self._value(final, t), 0.0) if is_cut.any() else 0.0 * value
            done = step.terminated | step.truncated
            self.buffer.add(
                self.obs, action, np.where(is_fine, step.reward, 0.0), done | ~is_fine, log_prob, value,
                bootstrap=bootstrap, valid=self.valid & is_fine,
            )  # fmt: skip
            self.nan_count += int((self.valid & ~is_fine).sum())
            self.totals += np.where(self.valid, step.reward, 0.0)
            self.lengths += self.valid
            for i in np.flatnonzero(done & self.valid):
                if np.isfinite(self.totals[i]):
                    finished.append((self.totals[i], self.lengths[i], float(step.success[i])))
                self.totals[i] = self.lengths[i] = 0
            self.valid = step.next_valid
            self.obs, self.is_seen = self._seen(step.obs)
        return finished

    def _scale_rewards(self) -> None:
        """What `train.scale_rewards` does, on the buffer."""
        config, buffer = self.agent.config, self.buffer
        buffer.rewards *= config.reward_scale
        if not config.normalize_rewards:
            return
        totals = np.zeros_like(buffer.rewards)
        for t in range(buffer.n_steps):
            totals[t] = self.discounted * config.gamma + buffer.rewards[t]
            self.discounted = np.where(buffer.dones[t], 0.0, totals[t])
        stats = self._merge(self.agent.state.reward_stats, totals[buffer.valid][:, None])
        self.agent.state = self.agent.state.replace(reward_stats=stats)
        buffer.rewards /= np.sqrt(float(stats.var[0]) + 1e-8)

    def _learn(self) -> dict[str, float]:
        """Takes one gradient step for each minibatch of every epoch: the numbers to report."""
        config, buffer = self.agent.config, self.buffer
        valid = buffer.valid
        if not valid.any():
            return dict.fromkeys(METRICS, 0.0)
        spread = buffer.advantages[valid].var() / max(buffer.returns[valid].var(), 1e-8)
        if config.normalize_advantages:
            chosen = buffer.advantages[valid]
            buffer.advantages[:] = (buffer.advantages - chosen.mean()) / np.sqrt(chosen.var() + 1e-8)
        rows = []
        for _ in range(config.n_epochs):
            for batch in buffer.get_minibatches(config.minibatches_per_epoch):
                inputs = {"state": batch["observations"]}
                names = ("actions", "log_probs", "values", "advantages", "returns", "weights")
                self.agent.state, metrics = self._step(self.agent.state, Batch(inputs, *(batch[n] for n in names)))
                rows.append(metrics)
        means = mean_taken({name: np.array([float(row[name]) for row in rows]) for name in rows[0]})
        return {name: float(mean) for name, mean in means.items()} | {"explained_variance": 1.0 - float(spread)}

    def _value(self, obs: np.ndarray, t: int) -> np.ndarray:
        return np.asarray(self._act(self.agent.state, obs, t)[2])

    def _seen(self, obs: Any) -> tuple[np.ndarray, np.ndarray]:
        """(state vectors (N, S) with zeros for what is not finite, which of them (N,) needed none)."""
        rows = self._state_rows(obs)
        return np.where(is_usable(rows), rows, np.float32(0.0)), usable_rows(rows)

    def _state_rows(self, obs: Any) -> np.ndarray:
        keys = self.agent.config.actor_keys
        if isinstance(obs, Mapping):
            obs = state_vector(obs, keys)
        return np.asarray(obs, np.float32).reshape(self.envs.num_envs, -1)
