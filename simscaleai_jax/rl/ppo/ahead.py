"""PPO's programs from shapes alone: no weights are drawn, no environment is started, no device is asked for."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from simscaleai_jax.core import sharding
from simscaleai_jax.core.ahead import Program, abstract
from simscaleai_jax.rl.ppo import envs
from simscaleai_jax.rl.ppo.config import PPOConfig, make_layout
from simscaleai_jax.rl.ppo.state import init_training_state, make_learner, network_kwargs, state_shardings
from simscaleai_jax.rl.ppo.train import make_dispatch, make_init


def make_programs(env: Any, config: PPOConfig, mesh: Mesh, max_updates: int = 1) -> dict[str, Program]:
    """The two programs of a run on the devices of `mesh`, which may belong to a topology that is not there.

    Args:
      env: a batched environment, on an engine that those devices have ("jax" has all of them).
      config: settings.
      mesh: the devices.
      max_updates: of one call.
    Returns:
      "start": environments are started, state -> state; "update": (state, count) -> (state, numbers).
    Raises:
      ValueError: sizes that do not divide, or an environment without an observation that the settings name.
    """
    learner, params = jax.eval_shape(
        lambda: make_learner(config, network_kwargs(config, **envs.model_kwargs_for(env, config)))
    )
    layout = make_layout(config, mesh.size, sharding.platform(mesh))
    bare = jax.eval_shape(lambda params: init_training_state(learner, params), params)
    bare = abstract(bare, sharding.replicated(mesh))
    start = make_init(learner, env, layout, mesh)
    state = jax.eval_shape(start, bare)
    state = abstract(state, state_shardings(state, mesh))
    count = jax.ShapeDtypeStruct((), jnp.int32)
    update = make_dispatch(learner, env, layout, mesh, max_updates)
    return {"start": Program(start, (bare,)), "update": Program(update, (state, count))}
