"""Reinforcement learning: PPO on batched environments, evaluation, reward functions.

`agents.ppo` and `evaluator` are imported by name where they are needed, because they bring JAX and Flax.
"""
