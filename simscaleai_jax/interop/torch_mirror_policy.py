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
    """What a policy remembers of episodes.

    Attributes:
      chunk: (B, h, A) actions planned; with ensembling the weighted sums of all plans for now and later.
      position: (B,) the action of the chunk to execute next.
      weight, count: (B, h) the sums of the weights, and the number of plans; ensembling only.
      is_fresh: (B,) bool, before an episode's first step.
      history: key -> the latest k observations (B, k, ...), oldest first; {} where k is 1.
    """

    chunk: torch.Tensor
    position: torch.Tensor
    weight: torch.Tensor
    count: torch.Tensor
    is_fresh: torch.Tensor
    history: dict[str, torch.Tensor]


class TorchPolicy:
    """A policy over raw observations, tensors or NumPy arrays, with any leading axes or none.

        action = policy(obs)                       # plans anew at every call
        carry = policy.init(batch_size)            # chunks and history: executes them as the export says
        action, carry = policy.step(carry, obs)
        carry = policy.reset(carry, is_done)       # where an episode ended

    Attributes:
      model: the torch twin, in eval mode.
      record: the acting record (`interop.acting`): keys, statistics, instruction, environment.
      execute_steps: actions executed per plan, 1 to the horizon.
      ensemble: weight decay of temporal ensembling, which plans at every step; None for none.
    """

    def __init__(
        self,
        model: nn.Module,
        record: dict[str, Any],
        execute_steps: int | None = None,
        ensemble: float | None = None,
    ) -> None:
        """Raises a ValueError for `execute_steps` out of range."""
        self.model, self.record = model.eval(), record
        self.horizon, self.action_dim = record["horizon"], record["action"]["dim"]
        self.obs_horizon = record.get("obs_horizon", 1)
        self.execute_steps = record["execute_steps"] if execute_steps is None else execute_steps
        is_said = execute_steps is not None or ensemble is not None
        self.ensemble = ensemble if is_said else record.get("ensemble")
        if not 1 <= self.execute_steps <= self.horizon:
            raise ValueError(f"execute_steps is {execute_steps}; wanted 1 to {self.horizon} (the action horizon).")

    def __call__(self, obs: Mapping[str, Any], *, noise: Any = None, language: str | None = None) -> torch.Tensor:
        """The first action of a plan as at an episode's start, (..., A)."""
        if self.obs_horizon > 1:
            obs = {name: self._repeated(name, torch.as_tensor(value)) for name, value in obs.items()}
        return self.plan(obs, noise=noise, language=language)[..., 0, :]

    @torch.no_grad()
    def plan(self, obs: Mapping[str, Any], *, noise: Any = None, language: str | None = None) -> torch.Tensor:
        """The whole chunk (..., h, A).

        Args:
          obs: the observation keys of `record["observations"]`, (..., k, *shape) where obs_horizon k > 1; others are
            ignored.
          noise: (B, h, A) standard normal, for models that draw their actions; None draws it.
          language: instruction; None takes the ids under obs["language"], or else the recorded one.
        Raises:
          ValueError: a missing key, or no instruction for a model that reads one.
        """
        batch, shape = self._batch(obs)
        observations = {name: value for name, value in batch.items() if is_picture(name)}
        state = self._state(batch)
        if state is not None:
            observations["state"] = state
        size = next(iter(observations.values())).shape[0]
        told = obs.get("language") if language is None else language
        actions = self._actions(observations, size, noise, told).reshape(size, self.horizon, -1)
        return self._physical(actions).reshape(*shape, self.horizon, self.action_dim)

    def init(self, batch_size: int) -> TorchCarry:
        """A carry that plans at its first step."""
        chunk = torch.zeros(batch_size, self.horizon, self.action_dim)
        weight, fresh = torch.zeros(batch_size, self.horizon), torch.ones(batch_size, dtype=torch.bool)
        return TorchCarry(chunk, torch.full((batch_size,), self.execute_steps), weight, weight, fresh, {})

    def step(self, carry: TorchCarry, obs: Mapping[str, Any], *, noise: Any = None, language: str | None = None) -> Any:
        """(action (B, A), carry); the model runs only when some plan is due. `obs` leads with the batch."""
        carry = self._remember(carry, obs)
        obs = {**obs, **carry.history}
        if self.ensemble is not None:
            return self._averaged(carry, self.plan(obs, noise=noise, language=language))
        is_due = carry.position >= self.execute_steps
        chunk, position = carry.chunk, torch.where(is_due, 0, carry.position)
        if bool(is_due.any()):
            chunk = torch.where(is_due[:, None, None], self.plan(obs, noise=noise, language=language), chunk)
        action = chunk[torch.arange(len(position)), position]
        return action, dataclasses.replace(carry, chunk=chunk, position=position + 1)

    def reset(self, carry: TorchCarry, is_done: Any) -> TorchCarry:
        """Forgets the plans of episodes that ended; `is_done` (B,)."""
        done = torch.as_tensor(np.asarray(is_done))
        fresh = self.init(len(done))
        kept = {
            name: torch.where(done.reshape(-1, *[1] * (old.ndim - 1)), getattr(fresh, name), old)
            for name in ("chunk", "position", "weight", "count", "is_fresh")
            for old in [getattr(carry, name)]
        }
        return dataclasses.replace(carry, **kept)

    def _averaged(self, carry: TorchCarry, planned: torch.Tensor) -> tuple[torch.Tensor, TorchCarry]:
        """The mean of all plans for now, weighted exp(-m i) with i = 0 for the oldest."""
        weight = torch.exp(-float(self.ensemble or 0.0) * carry.count)
        chunk, total = carry.chunk + weight[..., None] * planned, carry.weight + weight
        later = {"chunk": chunk, "weight": total, "count": carry.count + 1.0}
        later = {name: torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], dim=1) for name, x in later.items()}
        return chunk[:, 0] / total[:, :1], dataclasses.replace(carry, **later)

    def _remember(self, carry: TorchCarry, obs: Mapping[str, Any]) -> TorchCarry:
        """The carry with `obs` as its latest observation."""
        history = {}
        for name in self.record["observations"] if self.obs_horizon > 1 else ():
            now = torch.as_tensor(obs[name])
            first = self._repeated(name, now)
            past = carry.history.get(name, first)
            is_fresh = carry.is_fresh.reshape(-1, *[1] * (past.ndim - 1))
            history[name] = torch.where(is_fresh, first, torch.cat([past[:, 1:], now[:, None]], dim=1))
        return dataclasses.replace(carry, history=history, is_fresh=torch.zeros_like(carry.is_fresh))

    def _repeated(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """An observation as the history that it is at an episode's start."""
        axis = value.ndim - len(self.record["observations"].get(name, {"shape": [1]})["shape"])
        return torch.stack([value] * self.obs_horizon, dim=axis)

    def _batch(self, obs: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], tuple[int, ...]]:
        """The observations that are read, with one batch axis, and the axes that they came with."""
        names = list(self.record["observations"]) or [name for name in obs if name != "language"]
        missing = [name for name in names if name not in obs]
        if missing:
            raise ValueError(f"The policy needs obs[{missing[0]!r}]; the keys are {sorted(obs)}.")
        values = {name: torch.as_tensor(obs[name]) for name in names}
        states = [value for name, value in values.items() if not is_picture(name)]
        first, rank = (states[0], 1) if states else (next(iter(values.values())), 3)
        shape = tuple(first.shape[: first.ndim - rank - (self.obs_horizon > 1)])
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

    def _actions(self, observations: dict[str, Any], size: int, noise: Any, told: Any) -> torch.Tensor:
        if self.record["model_name"] == "actor_critic":
            return self.model(observations["state"])[0].mean
        batch: dict[str, Any] = {"observations": observations}
        if getattr(self.model, "use_language", False):
            batch["language"] = self._tokens(told).expand(size, -1)
        if not self.record["noise"]:
            return self.model(batch)["predicted_actions"]
        shape = (size, self.action_dim) if self.horizon == 1 else (size, self.horizon, self.action_dim)
        start = torch.randn(shape) if noise is None else torch.as_tensor(noise).reshape(shape)
        return self.model(batch, noise=start)["predicted_actions"]

    def _tokens(self, told: Any) -> torch.Tensor:
        """Token ids (1, L) or (B, L) of a text or of given ids (..., L), or those of the export."""
        if isinstance(told, str):
            return self.model.language_encoder.tokenize([told])
        if told is not None:
            ids = torch.as_tensor(told).long()
            return ids.reshape(-1, ids.shape[-1])[:, : self.model.language_encoder.max_len]
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
