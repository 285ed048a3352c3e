"""MJX with environments along a TPU's lanes makes the steps that it makes without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.core.batch_last import compiled_for
from simscaleai_jax.sim import make_functional_env

NUM_ENVS = 256
PUSHED = 0.05  # rad or m that targets are moved by, at most


@pytest.mark.wide
@pytest.mark.parametrize("name", ["reach", "pick_place"])
def test_the_steps_are_those_of_vmap(name):
    env = make_functional_env(name, impl="jax", cameras=[], dt=0.01)
    state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), NUM_ENVS)).physics
    pushed = PUSHED * jax.random.uniform(jax.random.key(1), state.ctrl.shape, minval=-1.0)

    def play(platform):
        with compiled_for(platform):
            step = jax.jit(jax.vmap(lambda state, ctrl: env.physics.step(state, ctrl, {})))
            now, results = state, []
            for _ in range(3):
                results.append(step(now, now.ctrl + pushed))
                now = results[-1][0]
        return results

    for t, (found, wanted) in enumerate(zip(play("tpu"), play("cpu"), strict=True)):
        pairs = zip(jax.tree.leaves_with_path(found), jax.tree.leaves(wanted), strict=True)
        for (path, one), other in pairs:
            where = f"{jax.tree_util.keystr(path)} after step {t}"
            # The solver's accelerations are a thousand times the velocities that they give in a physics step.
            tolerance = 1e-2 if "qacc" in where or "sensordata" in where else 1e-4
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=tolerance, err_msg=where)
    assert jnp.abs(found[0].qvel).max() > 0.1, "they moved"
