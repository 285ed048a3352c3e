"""The documented reward functions."""

from simscaleai_jax.rl.rewards.rewards import (
    ActionPenalty,
    CompositeReward,
    DistanceReward,
    RewardFunction,
    SuccessBonus,
)

__all__ = ["ActionPenalty", "CompositeReward", "DistanceReward", "RewardFunction", "SuccessBonus"]
