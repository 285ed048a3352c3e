"""The parts of PPO, one idea a file; `simscaleai_jax.rl.agents.ppo` is the documented entrance.

config -> networks -> normalize -> gae -> state -> rollout -> update -> train (jitted loop) | buffer -> plain (Python
loop) -> agent (the shell around both) -> storage (checkpoints, policies).
"""
