"""The same environments on one device or spread over eight: the same starts and goals, trajectories within rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from simscaleai_jax.core import sharding
from simscaleai_jax.sim.envs.batched import BatchedEnv

pytestmark = pytest.mark.wide  # two programs of physics with auto-reset are compiled

ENVS, STEPS = 16, 12
TOLERANCE = 1e-4  # rad and m after STEPS control steps of 5 substeps; 2e-6 is usual, a contact may amplify it


@pytest.fixture(scope="module")
def runs(pick):
    """The batch's states after `init` and after every step, played whole and with two environments on each device."""
    env = BatchedEnv(pick.env)
    ids = jnp.arange(100, 100 + ENVS)
    actions = jax.random.uniform(jax.random.key(6), (STEPS, ENVS, env.action_size), minval=-1.0, maxval=1.0)

    def play(ids, actions):
        state = env.init(jax.random.key(4), ids)
        # Half of them are about to be cut: the starts after an auto-reset are compared as well.
        late = jnp.where(ids % 2 == 0, env.max_episode_steps - 3, 0)
        state = state.replace(env=state.env.replace(step=late))

        def step(state, action):
            state = env.step(state, action)
            return state, (state.env.physics.qpos, state.obs, state.reward, state.episode)

        return (state.env.physics.qpos, state.obs, state.env.overrides), jax.lax.scan(step, state, actions)[1]

    mesh = sharding.make_mesh(jax.devices()[:8])
    assert mesh.size == 8
    spread = jax.shard_map(
        play, mesh=mesh, in_specs=(P("data"), P(None, "data")), out_specs=(P("data"), P(None, "data")), check_vma=False
    )
    return [jax.tree.map(np.asarray, jax.jit(function)(ids, actions)) for function in (play, spread)]


def test_c12_starts_and_goals_do_not_depend_on_the_split(runs):
    """What is drawn is equal to the last bit, also after an auto-reset; what kinematics adds, within rounding."""
    ((qpos, obs, overrides), later), ((qpos_spread, obs_spread, overrides_spread), later_spread) = runs
    np.testing.assert_array_equal(qpos, qpos_spread)
    np.testing.assert_array_equal(obs["target_pos"], obs_spread["target_pos"])
    jax.tree.map(np.testing.assert_array_equal, overrides, overrides_spread)
    (qpos, obs, _, episode), (qpos_spread, obs_spread, _, episode_spread) = later, later_spread
    np.testing.assert_array_equal(episode, episode_spread)
    assert set(episode[-1].tolist()) == {0, 1}
    np.testing.assert_array_equal(obs["target_pos"], obs_spread["target_pos"])
    fresh = np.flatnonzero(np.diff(episode[:, 0]))[0] + 1  # the first environment's next episode begins here
    np.testing.assert_array_equal(qpos[fresh, ::2], qpos_spread[fresh, ::2])
    for name, value in obs.items():
        np.testing.assert_allclose(value[fresh, ::2], obs_spread[name][fresh, ::2], atol=1e-6, err_msg=name)


def test_trajectories_agree_within_rounding(runs):
    (_, (qpos, _, reward, _)), (_, (qpos_spread, _, reward_spread, _)) = runs
    np.testing.assert_allclose(qpos, qpos_spread, atol=TOLERANCE)
    np.testing.assert_allclose(reward, reward_spread, atol=TOLERANCE)
    assert np.abs(qpos[-1] - qpos[0]).max() > 0.1, "nothing moved"
