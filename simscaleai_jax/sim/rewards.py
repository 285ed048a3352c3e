"""Reward functions as documented: pure, composable, and the same object on NumPy and on traced arrays.

`compute(obs, action, info)` returns a float for NumPy inputs and a scalar array under jit.
"""

import abc
from collections.abc import Sequence
from typing import Any


class RewardFunction(abc.ABC):
    """One reward term. Computes a reward and nothing else."""

    @abc.abstractmethod
    def compute(self, obs: dict[str, Any], action: Any, info: dict[str, Any]) -> Any:
        """Reward of one step; vectors of `obs` have their coordinates on the last axis."""


class DistanceReward(RewardFunction):
    """-scale * |obs[key_a] - obs[key_b]|, in units of `scale` per metre."""

    def __init__(self, key_a: str = "ee_pos", key_b: str = "target_pos", scale: float = 1.0) -> None:
        self.key_a, self.key_b, self.scale = key_a, key_b, scale

    def compute(self, obs: dict[str, Any], action: Any, info: dict[str, Any]) -> Any:
        return _scalar(-self.scale * _distance(obs, self.key_a, self.key_b))


class SuccessBonus(RewardFunction):
    """`bonus` while |obs[key_a] - obs[key_b]| < threshold (metres), else 0."""

    def __init__(
        self, key_a: str = "ee_pos", key_b: str = "target_pos", threshold: float = 0.05, bonus: float = 1.0
    ) -> None:
        self.key_a, self.key_b, self.threshold, self.bonus = key_a, key_b, threshold, bonus

    def compute(self, obs: dict[str, Any], action: Any, info: dict[str, Any]) -> Any:
        distance = _distance(obs, self.key_a, self.key_b)
        return _scalar((distance < self.threshold) * distance.dtype.type(self.bonus))


class ActionPenalty(RewardFunction):
    """-scale * |action|, the Euclidean norm; -scale * |action|^2 where `squared`."""

    def __init__(self, scale: float = 0.01, *, squared: bool = False) -> None:
        self.scale, self.squared = scale, squared

    def compute(self, obs: dict[str, Any], action: Any, info: dict[str, Any]) -> Any:
        effort = (action * action).sum(-1)
        return _scalar(-self.scale * (effort if self.squared else effort**0.5))


class CompositeReward(RewardFunction):
    """Weighted sum of reward functions."""

    def __init__(self, rewards: Sequence[tuple[RewardFunction, float]]) -> None:
        self.rewards = list(rewards)

    def compute(self, obs: dict[str, Any], action: Any, info: dict[str, Any]) -> Any:
        return sum(weight * reward.compute(obs, action, info) for reward, weight in self.rewards)


def _distance(obs: dict[str, Any], key_a: str, key_b: str) -> Any:
    for key in (key_a, key_b):
        if key not in obs:
            raise ValueError(f"reward needs obs[{key!r}]; the observation has {', '.join(sorted(obs))}")
    difference = obs[key_a] - obs[key_b]
    return (difference * difference).sum(-1) ** 0.5


def _scalar(value: Any) -> Any:
    """A Python float for an unbatched NumPy result; arrays and tracers pass."""
    is_numpy_scalar = type(value).__module__ == "numpy" and value.ndim == 0
    return float(value) if is_numpy_scalar else value
