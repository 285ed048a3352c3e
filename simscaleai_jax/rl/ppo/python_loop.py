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
from simscaleai_jax.rl.ppo.buffer import RolloutBuffer
from simscaleai_jax.rl.ppo.config import PPOConfig
from simscaleai_jax.rl.ppo.gym_envs import Step, as_plain_envs
from simscaleai_jax.rl.ppo.normalize import merge
from simscaleai_jax.rl.ppo.rollout import normalized
from simscaleai_jax.rl.ppo.state import METRICS, ROLLOUT_KEY, EpisodeStats, PPOState
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
    envs = as_plain_envs(env, config.seed)
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
        is_going_on = log.record({name: np.asarray([metrics[name]]) for name in METRICS}, agent, callbacks)


def _check_supported(config: PPOConfig) -> None:
    if config.encoder != "none" or config.critic_keys:
        raise ValueError("encoder and critic_keys need one of our batched environments (make_batched_env).")


class _Loop:
    """One rollout after the other, each followed by its learning."""

    def __init__(self, agent: "PPOAgent", envs: Any, buffer: RolloutBuffer) -> None:
        self.agent, self.envs, self.buffer = agent, envs, buffer
        learner = agent.learner

        def act(state: PPOState, obs: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(state.key, ROLLOUT_KEY), state.update), step)
            inputs = normalized({"state": obs}, state.normalizer, learner.config)
            return learner.network(state.params).get_action(inputs, key=key)

        self._act = jax.jit(act)
        self._step = jax.jit(lambda state, batch: minibatch_step(learner, state, batch))
        self._merge = jax.jit(lambda stats, rows: merge(stats, rows))
        self.obs = self._state_rows(envs.reset())
        self.valid = np.ones(envs.num_envs, bool)
        self.totals, self.lengths = np.zeros(envs.num_envs), np.zeros(envs.num_envs)
        self.discounted = np.zeros((envs.num_envs,), np.float32)

    def update(self) -> dict[str, float]:
        """Collects a rollout and learns from it: the numbers to report."""
        agent, config = self.agent, self.agent.config
        self.buffer.shuffle_from((config.seed % 2**32, int(agent.state.update)))
        finished = self._collect()
        self._scale_rewards()
        last_value = self._value(self.obs, 0)
        self.buffer.compute_gae(last_value, config.gamma, config.gae_lambda)
        metrics = self._learn()
        if config.normalize_observations:
            rows = self.buffer.obs[self.buffer.valid]
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
            "nan_count": 0,
            "overflow_count": 0,
            "action_std": float(jnp.exp(agent.state.params["actor_log_std"]).mean()),
        }

    def _collect(self) -> list[tuple[float, float, float]]:
        """Fills the buffer; returns (return, length, success) of every episode that ended."""
        self.buffer.reset()
        finished = []
        for t in range(self.buffer.n_steps):
            action, log_prob, value = (np.asarray(x) for x in self._act(self.agent.state, self.obs, t))
            step: Step = self.envs.step(action)
            bootstrap = np.zeros(self.envs.num_envs, np.float32)
            if (step.truncated & ~step.terminated).any():
                final = self._state_rows(step.final_obs)
                bootstrap = np.where(step.truncated & ~step.terminated, self._value(final, t), 0.0)
            done = step.terminated | step.truncated
            self.buffer.add(
                self.obs, action, step.reward, done, log_prob, value, bootstrap=bootstrap, valid=self.valid
            )  # fmt: skip
            self.totals += np.where(self.valid, step.reward, 0.0)
            self.lengths += self.valid
            for i in np.flatnonzero(done & self.valid):
                finished.append((self.totals[i], self.lengths[i], float(step.success[i])))
                self.totals[i] = self.lengths[i] = 0
            self.obs, self.valid = self._state_rows(step.obs), step.next_valid
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
        config, buffer = self.agent.config, self.buffer
        valid = buffer.valid
        spread = buffer.advantages[valid].var() / max(buffer.returns[valid].var(), 1e-8)
        if config.normalize_advantages:
            chosen = buffer.advantages[valid]
            buffer.advantages[:] = (buffer.advantages - chosen.mean()) / np.sqrt(chosen.var() + 1e-8)
        size = config.batch_size if config.num_minibatches is None else config.n_steps // config.num_minibatches
        rows = []
        for _ in range(config.n_epochs):
            for batch in buffer.get_batches(min(size, int(valid.sum()))):
                if len(batch["log_probs"]) < size and rows:
                    continue  # a remainder of another shape would compile again
                inputs = {"state": batch["obs"]}
                names = ("actions", "log_probs", "values", "advantages", "returns")
                self.agent.state, metrics = self._step(self.agent.state, Batch(inputs, *(batch[n] for n in names)))
                rows.append(metrics)
        means = {name: float(np.mean([float(row[name]) for row in rows])) for name in rows[0]}
        return means | {"explained_variance": 1.0 - float(spread)}

    def _value(self, obs: np.ndarray, t: int) -> np.ndarray:
        return np.asarray(self._act(self.agent.state, obs, t)[2])

    def _state_rows(self, obs: Any) -> np.ndarray:
        keys = self.agent.config.actor_keys
        if isinstance(obs, Mapping):
            obs = state_vector({key: obs[key] for key in keys} if keys else obs)
        return np.asarray(obs, np.float32).reshape(self.envs.num_envs, -1)
