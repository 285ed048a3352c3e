"""The trainer's programs from shapes alone: no weights are drawn, no data is read, no device is asked for."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from simscaleai_jax.core import sharding
from simscaleai_jax.core.ahead import Program, abstract
from simscaleai_jax.models.normalization import Statistics
from simscaleai_jax.training import setup
from simscaleai_jax.training.config import TrainConfig
from simscaleai_jax.training.programs import Programs
from simscaleai_jax.training.step import init_state


def make_programs(
    build: Callable[[], nnx.Module], batch: Any, config: TrainConfig, mesh: Mesh, statistics: Statistics | None = None
) -> dict[str, Program]:
    """The programs of a run on the devices of `mesh`, which may belong to a topology that is not there.

    Args:
      build: makes the model; only its shapes are used.
      batch: shapes of a whole prepared batch, over all devices (a registered model's `input_spec(batch_size)`).
      config: settings.
      mesh: the devices.
      statistics: normalisation, or None.
    Returns:
      "update": (state, sums, batch) -> (state, sums, a small array); "evaluate": (weights, batch) -> numbers.
    Raises:
      ValueError: a batch that does not divide or does not fit the model.
    """
    model = nnx.eval_shape(build)
    training, evaluation, params = setup.split_model(model, config, sharding.platform(mesh))
    programs = Programs(training, evaluation, statistics, config, mesh, setup.recomputes_layers(model))
    state = jax.eval_shape(lambda params: init_state(params, config), params)
    state = abstract(state, programs.shardings(state))
    for leaf in jax.tree.leaves(batch):
        parts = mesh.size * config.grad_accum_steps
        sharding.check_divisible(leaf.shape[0], parts, "batch size", "devices x grad_accum_steps")
    batch = abstract(batch, sharding.batch_sharding(mesh))
    names = programs.prepare(state, batch, setup.describe_any(model)[0])
    number = jax.ShapeDtypeStruct((), jnp.float32, sharding=sharding.replicated(mesh))
    return {
        "update": Program(programs.single(state), (state, dict.fromkeys(names, number), batch)),
        "evaluate": Program(programs.evaluation, (state.params, batch)),
    }
