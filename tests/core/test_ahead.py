"""A program from shapes compiles for the devices that its arguments name."""

import jax
import numpy as np

from simscaleai_jax.core import sharding
from simscaleai_jax.core.ahead import Program, abstract


def test_a_program_compiles_for_the_devices_of_its_arguments():
    mesh = sharding.make_mesh(jax.devices()[2:6])
    shapes = abstract({"x": np.zeros((8, 3), np.float32)}, sharding.batch_sharding(mesh))
    compiled = Program(jax.jit(lambda tree: tree["x"].sum()), (shapes,)).lower().compile()
    assert compiled.input_shardings[0][0]["x"].device_set == set(jax.devices()[2:6])
    assert float(compiled(sharding.put_batch({"x": np.ones((8, 3), np.float32)}, mesh))) == 24
