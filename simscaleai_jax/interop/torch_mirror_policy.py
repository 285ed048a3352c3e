"""An export as a policy in torch: raw observations in, actions out, as `simscaleai_jax.policy.load_policy` acts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from simscaleai_jax.interop.torch_mirror_vla import is_picture


@dataclasses.dataclass
class TorchCarry:
    """What chunked execution remembers: `chunk` (B, h, A) and `position` (B,), the action to execute next."""

    chunk: torch.Tensor
    position: torch.Tensor


class TorchPolicy:
    """A policy over raw observations, tensors or NumPy arrays, with any leading axes or none.

        action = policy(obs)                       # plans anew at every call
        carry = policy.init(batch_size)            # chunks: executes `execute_steps` actions of each plan
        action, carry = policy.step(carry, obs)
        carry = policy.reset(carry, is_done)       # where an episode ended

    Attributes:
      model: the torch twin, in eval mode.
      record: the acting record (`interop.acting`): keys, statistics, instruction, environment.
      execute_steps: actions executed per plan, 1 to the horizon.
    """

    def __init__(self, model: nn.Module, record: dict[str, Any], execute_steps: int | None = None) -> None:
        """Raises a ValueError for `execute_steps` out of range."""
        self.model, self.record = model.eval(), record
        self.horizon, self.action_dim = record["horizon"], record["action"]["dim"]
        self.execute_steps = record["execute_steps"] if execute_steps is None else execute_steps
        if not 1 <= self.execute_steps <= self.horizon:
            raise ValueError(f"execute_steps is {execute_steps}; wanted 1 to {self.horizon} (the action horizon).")

    def __call__(self, obs: Mapping[str, Any], *, noise: Any = None, language: str | None = None) -> torch.Tensor:
        """The first action of a fresh plan, (..., A)."""
        return self.plan(obs, noise=noise, language=language)[..., 0, :]

    @torch.no_grad()
    def plan(self, obs: Mapping[str, Any], *, noise: Any = None, language: str | None = None) -> torch.Tensor:
        """The whole chunk (..., h, A).

        Args:
          obs: the observation keys of `record["observations"]`; others are ignored.
          noise: (B, h, A) standard normal, for models that draw their actions; None draws it.
          language: instruction; None takes the recorded one.
        Raises:
          ValueError: a missing key, or no instruction for a model that reads one.
        """
        batch, shape = self._batch(obs)
        observations = {name: value for name, value in batch.items() if is_picture(name)}
        state = self._state(batch)
        if state is not None:
            observations["state"] = state
        size = next(iter(observations.values())).shape[0]
        actions = self._actions(observations, size, noise, language).reshape(size, self.horizon, -1)
        return self._physical(actions).reshape(*shape, self.horizon, self.action_dim)

    def init(self, batch_size: int) -> TorchCarry:
        """A carry that plans at its first step."""
        chunk = torch.zeros(batch_size, self.horizon, self.action_dim)
        return TorchCarry(chunk, torch.full((batch_size,), self.execute_steps))

    def step(self, carry: TorchCarry, obs: Mapping[str, Any], *, noise: Any = None, language: str | None = None) -> Any:
        """(action (B, A), carry); the model runs only when some plan is due. `obs` leads with the batch."""
        is_due = carry.position >= self.execute_steps
        chunk, position = carry.chunk, torch.where(is_due, 0, carry.position)
        if bool(is_due.any()):
            chunk = torch.where(is_due[:, None, None], self.plan(obs, noise=noise, language=language), chunk)
        action = chunk[torch.arange(len(position)), position]
        return action, TorchCarry(chunk, position + 1)

    def reset(self, carry: TorchCarry, is_done: Any) -> TorchCarry:
        """Forgets the plans of episodes that ended; `is_done` (B,)."""
        done = torch.as_tensor(np.asarray(is_done))
        return TorchCarry(carry.chunk, torch.where(done, self.execute_steps, carry.position))

    def _batch(self, obs: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], tuple[int, ...]]:
        """The observations that are read, with one batch axis, and the axes that they came with."""
        names = list(self.record["observations"]) or [name for name in obs if name != "language"]
        missing = [name for name in names if name not in obs]
        if missing:
            raise ValueError(f"The policy needs obs[{missing[0]!r}]; the keys are {sorted(obs)}.")
        values = {name: torch.as_tensor(obs[name]) for name in names}
        states = [value for name, value in values.items() if not is_picture(name)]
        first, rank = (states[0], 1) if states else (next(iter(values.values())), 3)
        shape = tuple(first.shape[: first.ndim - rank])
        return {name: value.reshape(-1, *value.shape[len(shape) :]) for name, value in values.items()}, shape

    def _state(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        names = self.record["state_keys"]
        if not self.record["observations"]:
            states = sorted(name for name in batch if not is_picture(name))
            names = ["state"] if "state" in states else states
        if not names:
            return None
        state = torch.cat([batch[name].float() for name in names], dim=-1)
        known = self.record["normalization"]
        if known is None:
            return state
        state = (state - _row(known["mean"])) * _row(known["scale"])
        return state if known["clip"] is None else state.clamp(-known["clip"], known["clip"])

    def _actions(self, observations: dict[str, Any], size: int, noise: Any, language: str | None) -> torch.Tensor:
        if self.record["model_name"] == "actor_critic":
            return self.model(observations["state"])[0].mean
        batch: dict[str, Any] = {"observations": observations}
        if getattr(self.model, "use_language", False):
            batch["language"] = self._tokens(language).expand(size, -1)
        if not self.record["noise"]:
            return self.model(batch)["predicted_actions"]
        shape = (size, self.action_dim) if self.horizon == 1 else (size, self.horizon, self.action_dim)
        start = torch.randn(shape) if noise is None else torch.as_tensor(noise).reshape(shape)
        return self.model(batch, noise=start)["predicted_actions"]

    def _tokens(self, language: str | None) -> torch.Tensor:
        if language is not None:
            return self.model.language_encoder.tokenize([language])
        if self.record["tokens"] is None:
            raise ValueError("This policy reads an instruction and its export records none; give language=...")
        return torch.tensor([self.record["tokens"]])

    def _physical(self, actions: torch.Tensor) -> torch.Tensor:
        known = self.record["action"]
        if known["scale"] is not None:
            actions = actions * _row(known["scale"]) + _row(known["mean"])
        if known["low"] is None or known["high"] is None:
            return actions
        return torch.maximum(torch.minimum(actions, torch.as_tensor(known["high"])), torch.as_tensor(known["low"]))


def _row(numbers: list[float]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32)
