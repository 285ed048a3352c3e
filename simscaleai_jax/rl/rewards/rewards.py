"""The documented reward functions. Tasks are made of them, so they live in `simscaleai_jax.sim.rewards`."""

from simscaleai_jax.sim.rewards import ActionPenalty, CompositeReward, DistanceReward, RewardFunction, SuccessBonus

__all__ = ["ActionPenalty", "CompositeReward", "DistanceReward", "RewardFunction", "SuccessBonus"]
