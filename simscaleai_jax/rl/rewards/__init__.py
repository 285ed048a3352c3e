"""Reward functions; see `rewards.rewards`."""
