"""Proximal policy optimization: the documented classes (see `simscaleai_jax.rl.ppo` for their parts).

agent = PPOAgent(obs_dim=20, action_dim=4, config=PPOConfig(total_timesteps=1_000_000))
history = agent.train(make_batched_env("reach"))
agent.save("checkpoints/reach")
"""

from simscaleai_jax.rl.ppo.agent import PPOAgent
from simscaleai_jax.rl.ppo.buffer import RolloutBuffer
from simscaleai_jax.rl.ppo.config import PPOConfig
from simscaleai_jax.rl.ppo.networks import ActorCritic, Normal
from simscaleai_jax.rl.ppo.storage import load_policy

__all__ = ["ActorCritic", "Normal", "PPOAgent", "PPOConfig", "RolloutBuffer", "load_policy"]
