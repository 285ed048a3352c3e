"""Agents; import one by its module, for example `simscaleai_jax.rl.agents.ppo`."""
