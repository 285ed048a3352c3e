"""One compiled pick-and-place step and reset for the whole folder: randomized, so that nominal values are one of its
inputs.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.sim.factory import make_env, make_functional_env
from simscaleai_jax.sim.randomization import DERIVED_FIELDS, MODEL_INPUTS, draw

SETTINGS = {"cameras": [], "dt": 0.01, "domain_randomization": True, "randomization": "heavy"}
BATCH = 12


class CompiledEnv:
    """A functional environment with its jitted, vmapped functions, for batches of BATCH."""

    def __init__(self, **settings):
        self.env = make_functional_env("pick_place", **SETTINGS | settings)
        self.reset = jax.jit(jax.vmap(self.env.reset))
        self.step = jax.jit(jax.vmap(self.env.step))

    def nominal_overrides(self):
        """Overrides of the full structure that change nothing."""
        model = self.env.physics.host_model
        shapes = jax.eval_shape(lambda key: draw(key, "heavy", model), jax.random.key(0))
        look = draw(jax.random.key(0), "heavy", model)
        names = (set(MODEL_INPUTS) - {"gravity"}).union(DERIVED_FIELDS)
        values = {name: np.asarray(getattr(model, name)) for name in names}
        values |= {"gravity": model.opt.gravity, "table_height": np.zeros(()), "object_half_size": np.full(3, 0.02)}
        return {
            name: jnp.asarray(values.get(name, look[name]), jnp.float32).reshape(shapes[name].shape) for name in shapes
        }


@pytest.fixture(scope="session")
def pick():
    return CompiledEnv()


@pytest.fixture(scope="session")
def pick_mjx():
    """The same on MJX, which takes long to compile: for what is tested of the engine itself."""
    return CompiledEnv(impl="jax")


@pytest.fixture(scope="session")
def host():
    """The same task on host physics, not randomized."""
    return make_env("pick_place", cameras=[], dt=0.01)
