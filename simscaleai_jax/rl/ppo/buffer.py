"""`RolloutBuffer`: transitions that a Python loop collects, for environments that cannot be jitted."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from simscaleai_jax.core.sharding import pick_devices
from simscaleai_jax.core.streams import Stream, host_random

FIELDS = ("observations", "actions", "log_probs", "values", "advantages", "returns")  # of a minibatch


class RolloutBuffer:
    """Transitions of `n_steps` steps in `num_envs` environments, as NumPy arrays [T, N, ...].

    Arguments of `add` may lead with the N environments or, with one environment, leave that axis out.
    """

    def __init__(
        self,
        n_steps: int,
        obs_dim: int,
        action_dim: int,
        device: str | jax.sharding.Sharding = "cpu",
        *,
        num_envs: int = 1,
        seed: int = 0,
    ) -> None:
        """Allocates the arrays.

        Args:
          n_steps: steps T of every environment.
          obs_dim: length of the state vector.
          action_dim: length of an action.
          device: where `get_batches` puts its arrays: a device string, or a sharding.
          num_envs: environments N.
          seed: of the order in which `get_batches` mixes transitions.
        """
        self.n_steps, self.num_envs = n_steps, num_envs
        self._device = pick_devices(device, 1)[0] if isinstance(device, str) else device
        self.shuffle_from(seed)
        self.observations = np.zeros((n_steps, num_envs, obs_dim), np.float32)
        self.actions = np.zeros((n_steps, num_envs, action_dim), np.float32)
        names = ("rewards", "log_probs", "values", "bootstrap", "advantages", "returns")
        for name in names:
            setattr(self, name, np.zeros((n_steps, num_envs), np.float32))
        self.rewards: np.ndarray
        self.log_probs: np.ndarray
        self.values: np.ndarray
        self.bootstrap: np.ndarray
        self.advantages: np.ndarray
        self.returns: np.ndarray
        self.dones = np.zeros((n_steps, num_envs), bool)
        self.valid = np.ones((n_steps, num_envs), bool)
        self.position = 0

    def add(
        self,
        obs: Any,
        action: Any,
        reward: Any,
        done: Any,
        log_prob: Any,
        value: Any,
        *,
        bootstrap: Any = 0.0,
        valid: Any = True,
    ) -> None:
        """Stores one step.

        Args:
          obs: state vector acted on.
          action: action taken.
          reward: reward received.
          done: whether the episode ended here, for whichever reason.
          log_prob: log probability of the action.
          value: V(obs).
          bootstrap: V of the final observation where a time limit ended the episode; 0 where it terminated.
          valid: False for a step that is no transition (a vector environment's reset step); it is not learned from.
        Raises:
          IndexError: the buffer is full.
        """
        if self.position == self.n_steps:
            raise IndexError(f"RolloutBuffer holds {self.n_steps} steps and is full; call reset() first.")
        t = self.position
        self.observations[t] = np.asarray(obs, np.float32).reshape(self.num_envs, -1)
        self.actions[t] = np.asarray(action, np.float32).reshape(self.num_envs, -1)
        for name, number in (("rewards", reward), ("log_probs", log_prob), ("values", value), ("bootstrap", bootstrap)):
            getattr(self, name)[t] = np.asarray(number, np.float32).reshape(-1)
        self.dones[t] = np.asarray(done, bool).reshape(-1)
        self.valid[t] = np.asarray(valid, bool).reshape(-1)
        self.position += 1

    def compute_gae(self, last_value: Any, gamma: float, gae_lambda: float) -> None:
        """Fills `advantages` and `returns`; `last_value` is V of the observation after the last stored step."""
        next_value = np.broadcast_to(np.asarray(last_value, np.float32).reshape(-1), (self.num_envs,))
        advantage = np.zeros(self.num_envs, np.float32)
        for t in reversed(range(self.position)):
            following = np.where(self.dones[t], self.bootstrap[t], next_value)
            delta = self.rewards[t] + gamma * following - self.values[t]
            advantage = delta + gamma * gae_lambda * np.where(self.dones[t], 0.0, advantage)
            self.advantages[t] = advantage
            next_value = self.values[t]
        self.returns[: self.position] = self.advantages[: self.position] + self.values[: self.position]

    def get_batches(self, batch_size: int) -> Iterator[dict[str, jax.Array]]:
        """Yields every valid transition once, in a new random order, `batch_size` at a time (the last may be smaller).

        Keys: observations (M, S), actions (M, A), log_probs, values, advantages, returns (M,).
        """
        chosen = self._shuffled()
        for start in range(0, len(chosen), batch_size):
            rows = chosen[start : start + batch_size]
            yield {name: jax.device_put(values[rows], self._device) for name, values in self._flat().items()}

    def get_minibatches(self, count: int) -> Iterator[dict[str, jax.Array]]:
        """Yields every valid transition once, in a new random order, dealt out evenly over `count` minibatches.

        All have the same length whatever the number of valid transitions is, so that one program serves them: rows that
        fill up have weight 0. There are fewer where there are fewer transitions.

        Keys: those of `get_batches`, and weights (M,).
        """
        size = math.ceil(self.n_steps * self.num_envs / count)
        rows = self._shuffled()
        for chosen in np.array_split(rows, min(count, len(rows))):
            filled = np.resize(chosen, size)
            batch = {name: jax.device_put(values[filled], self._device) for name, values in self._flat().items()}
            weights = (np.arange(size) < len(chosen)).astype(np.float32)
            yield batch | {"weights": jax.device_put(weights, self._device)}

    def _shuffled(self) -> np.ndarray:
        chosen = np.flatnonzero(self.valid[: self.position].reshape(-1))
        self._random.shuffle(chosen)
        return chosen

    def _flat(self) -> dict[str, np.ndarray]:
        """Transitions (T * N, ...) by name."""
        fields = {name: getattr(self, name)[: self.position] for name in FIELDS}
        return {name: values.reshape(-1, *values.shape[2:]) for name, values in fields.items()}

    def shuffle_from(self, seed: int, update: int = 0) -> None:
        """Makes the order in which `get_batches` mixes transitions follow from (seed, update) from here on."""
        self._random = host_random(seed, Stream.MINIBATCHES, update)

    def reset(self) -> None:
        """Forgets the stored steps."""
        self.position = 0
