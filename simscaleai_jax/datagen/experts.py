"""A task's scripted expert as a policy of data generation."""

from typing import Any

import jax
import jax.numpy as jnp

from simscaleai_jax.datagen.rollout import RolloutPolicy
from simscaleai_jax.sim.registry import find_expert


def make_expert(env_name: str, env: Any) -> RolloutPolicy:
    """The expert of an environment's task; a ValueError where there is none."""
    if not hasattr(env, "task"):
        raise ValueError(f"environment {env_name!r} has no task for a scripted expert to solve")
    expert = find_expert(env_name, env.task)

    def act_fn(state: Any, carry: Any, key: Any) -> tuple[jax.Array, Any]:
        return expert.act(state.snapshot, state.task_state, carry)

    return RolloutPolicy(act_fn, lambda state: jax.tree.map(jnp.asarray, expert.first_phase))
