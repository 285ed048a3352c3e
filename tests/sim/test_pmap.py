"""`jax.pmap` over a batched environment: every device has environments of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from .conftest import NUM_ENVS, actions_for

DEVICES = 4


@pytest.mark.wide
def test_pmapped_environments_are_those_of_one_batch(batched, play):
    ids = jnp.arange(NUM_ENVS).reshape(DEVICES, -1)
    state = jax.pmap(batched.init, in_axes=(None, 0))(jax.random.key(0), ids)
    assert len(state.reward.sharding.device_set) == DEVICES
    step, ended = jax.pmap(batched.step), 0
    for t, wanted in enumerate(play(num_steps=15)):
        if t > 0:
            state = step(state, actions_for(ids.ravel(), t - 1).reshape(*ids.shape, -1))
        for name in ("obs", "final_obs", "reward", "terminated", "truncated", "episode_length", "episode_return"):
            pairs = zip(jax.tree.leaves(getattr(state, name)), jax.tree.leaves(getattr(wanted, name)), strict=True)
            for found, one in pairs:
                np.testing.assert_allclose(found.reshape(one.shape), one, atol=1e-5, err_msg=f"{name} at {t}")
        ended += int((state.terminated | state.truncated).sum())
    assert ended >= NUM_ENVS, "every episode ended, and another began"
