"""docs/contract.md, sentence by sentence: environments, batches, episodes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from simscaleai_jax.sim.envs.batched import episode_key
from simscaleai_jax.sim.envs.episodes import rollout

from .conftest import MAX_STEPS, NUM_ENVS, actions_for, tree_equal


@pytest.fixture(scope="module")
def states(play):
    return play()


def done(state):
    return np.asarray(state.terminated | state.truncated)


def test_c01_same_key_same_trajectory(play, states):
    again = play()
    assert tree_equal(states[-1], again[-1])
    other = play(seed=1)
    assert not np.array_equal(other[-1].obs["target_pos"], states[-1].obs["target_pos"])


def test_c01_arguments_stay_as_they_were(batched, monkeypatch):
    """Arrays cannot change; the dicts of a state and the overrides could. A camera and a curriculum add to them."""
    env = batched.functional
    monkeypatch.setattr(env, "_camera_fn", lambda data, overrides: {"image": jnp.zeros((2, 2, 3), jnp.uint8)})
    monkeypatch.setattr(env.task, "curriculum", lambda control_steps: jnp.float32(0.5), raising=False)

    def act(key):
        given = {"table_height": jnp.float32(0.0)}
        state = env.reset_state(key, jnp.int32(0), given)
        assert list(given) == ["table_height"]
        assert "curriculum" in state.overrides
        leaves, structure = jax.tree.flatten(state)
        assert "image" in env.step(state, jnp.zeros(4)).obs
        leaves_after, structure_after = jax.tree.flatten(state)
        assert structure_after == structure
        assert all(leaf is after for leaf, after in zip(leaves, leaves_after, strict=True))
        return state.obs

    jax.eval_shape(act, jax.random.key(0))  # traces; nothing is compiled


def test_c02_vmap_equals_loop(states, single_step):
    ids = np.arange(NUM_ENVS)
    for t in (0, 5):
        actions = actions_for(ids, t)
        after = states[t + 1]
        for i in (0, 3):
            one = single_step(jax.tree.map(lambda leaf, i=i: leaf[i], states[t].env), actions[i])
            for key, value in one.obs.items():
                np.testing.assert_allclose(value, after.final_obs[key][i], atol=2e-5)
            np.testing.assert_allclose(one.reward, after.reward[i], atol=1e-4)


def test_c03_reward_is_the_sum_of_its_terms(states):
    for state in states[1:]:
        np.testing.assert_allclose(state.reward, sum(state.reward_terms.values()), rtol=1e-6)
    assert np.any(np.asarray(states[5].reward) != 0.0)


def test_c04_an_episode_is_truncated_at_its_limit_and_never_also_terminated(states):
    seen_truncated = False
    for state in states[1:]:
        assert not np.any(state.terminated & state.truncated)
        steps = np.asarray(state.env.step)
        assert np.all(steps[done(state)] == 0)
        assert np.all(steps < MAX_STEPS)
        seen_truncated |= bool(np.any(state.truncated))
    assert seen_truncated


def test_c05_observations_are_finite_and_inside_their_bounds(batched, states):
    bounds = batched.functional.task.observation_bounds()
    for state in states:
        assert set(state.obs) == set(bounds) == set(batched.observation_spec)
        for key, (low, high) in bounds.items():
            value = np.asarray(state.obs[key])
            assert value.dtype == np.float32
            assert np.all(np.isfinite(low))
            assert np.all(np.isfinite(high))
            assert np.all(value >= low)
            assert np.all(value <= high)


def test_c06_actions_are_clipped(step, states):
    loud = 5.0 * np.sign(actions_for(range(NUM_ENVS), 7))
    assert tree_equal(step(states[2], loud), step(states[2], np.sign(loud)))
    assert not tree_equal(step(states[2], loud), step(states[2], 0.5 * np.sign(loud)))


def test_c07_info_has_the_documented_keys(states):
    assert set(states[1].info) == {"distance", "success", "nan", "overflow"}
    for state in states[1:]:
        error = np.linalg.norm(state.final_obs["ee_pos"] - state.final_obs["target_pos"], axis=1)
        np.testing.assert_allclose(state.info["distance"], error, atol=1e-6)
        np.testing.assert_array_equal(state.info["success"], error < 0.05)


def test_c08_a_single_environment_does_not_reset_by_itself(single_reset, single_step):
    state = single_reset(jax.random.key(4))
    target = np.asarray(state.obs["target_pos"])
    for _ in range(MAX_STEPS + 2):
        state = single_step(state, np.zeros(4, np.float32))
    assert state.step == MAX_STEPS + 2
    assert state.truncated
    np.testing.assert_array_equal(state.obs["target_pos"], target)


def test_c09_c17_a_nan_ends_its_own_episode_only(step, states):
    sick = 2
    physics = states[1].env.physics
    broken = physics.replace(qpos=physics.qpos.at[sick, 0].set(jnp.nan))
    actions = actions_for(range(NUM_ENVS), 1)
    after = step(states[1].replace(env=states[1].env.replace(physics=broken)), actions)
    healthy = step(states[1], actions)
    assert np.asarray(after.info["nan"]).tolist() == [i == sick for i in range(NUM_ENVS)]
    assert after.terminated[sick]
    assert after.reward[sick] == 0.0
    assert all(np.all(value[sick] == 0.0) for value in after.final_obs.values())
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((after.obs, after.reward, after.env.physics)))
    others = np.arange(NUM_ENVS) != sick
    np.testing.assert_array_equal(after.reward[others], healthy.reward[others])
    np.testing.assert_array_equal(after.env.physics.qpos[others], healthy.env.physics.qpos[others])


def test_c10_c12_a_new_episode_starts_from_its_own_key(states, single_reset):
    checked = 0
    for before, state in itertools.pairwise(states):
        for i in np.flatnonzero(done(state))[:2]:
            number = int(before.episode[i]) + 1
            assert state.episode[i] == number
            fresh = single_reset(episode_key(jax.random.key(0), jnp.int32(i), jnp.int32(number)))
            for key, value in fresh.obs.items():
                np.testing.assert_allclose(state.obs[key][i], value, atol=1e-6)
            assert not np.allclose(state.final_obs["target_pos"][i], state.obs["target_pos"][i])
            np.testing.assert_array_equal(state.final_obs["target_pos"][i], before.obs["target_pos"][i])
            checked += 1
    assert checked >= 8


def test_c11_final_obs_is_obs_where_nothing_ended(states):
    for state in states[1:]:
        going = ~done(state)
        for key, value in state.final_obs.items():
            np.testing.assert_array_equal(value[going], state.obs[key][going])


def test_c12_episodes_do_not_depend_on_who_shares_the_batch(play, states):
    half = NUM_ENVS // 2
    shifted = play(first_id=half)
    for one, other in zip(states, shifted, strict=True):
        np.testing.assert_array_equal(one.obs["target_pos"][half:], other.obs["target_pos"][:half])
        np.testing.assert_allclose(one.obs["joint_pos"][half:], other.obs["joint_pos"][:half], atol=1e-6)


def test_c13_no_start_is_played_twice_even_when_every_step_ends_an_episode(step, states):
    state, starts = states[4], []
    for t in range(4):
        last_step = jnp.full_like(state.env.step, MAX_STEPS - 1)
        state = step(state.replace(env=state.env.replace(step=last_step)), actions_for(range(NUM_ENVS), t))
        assert np.all(done(state))
        starts.append(np.asarray(state.obs["target_pos"]))
    starts = np.concatenate(starts)
    assert len(np.unique(starts, axis=0)) == len(starts)


def test_c14_c15_return_and_length_belong_to_one_episode(states):
    total, length = np.zeros(NUM_ENVS), np.zeros(NUM_ENVS, int)
    for state in states[1:]:
        total, length = total + np.asarray(state.reward), length + 1
        np.testing.assert_allclose(state.episode_return, total, rtol=1e-5)
        np.testing.assert_array_equal(state.episode_length, length)
        assert np.all(np.asarray(state.env.step)[done(state)] == 0)
        total[done(state)], length[done(state)] = 0.0, 0


def test_c16_first_episodes_start_at_random_ages(states):
    ages = np.asarray(states[0].env.step)
    assert np.all((ages >= 0) & (ages < MAX_STEPS))
    assert len(np.unique(ages)) >= NUM_ENVS // 2


def test_c18_one_trace_per_function(init, step, states):
    step(states[-1], actions_for(range(NUM_ENVS), 99))
    assert init.traces == 1
    assert step.traces == 1


@struct.dataclass
class CountState:
    """An episode that ends at `limit` steps."""

    step: jax.Array
    limit: jax.Array
    terminated: jax.Array
    truncated: jax.Array


class CountEnv:
    """The smallest environment with the functional contract; its key says how long the episode lasts."""

    def reset(self, key):
        limit = jax.random.randint(key, (), 1, MAX_STEPS)
        return CountState(jnp.int32(0), limit, jnp.bool_(False), jnp.bool_(False))

    def step(self, state, action):
        step = state.step + action.astype(jnp.int32)[0]
        return state.replace(step=step, terminated=step >= state.limit)


def test_c19_an_episode_stands_still_after_its_end():
    def policy_fn(state, carry, key):
        return jnp.ones(1), carry + 1

    keys = jax.random.split(jax.random.key(0), NUM_ENVS)
    record_fn = lambda before, action, after: after.step  # noqa: E731
    last, steps, valid = rollout(CountEnv(), policy_fn, jnp.zeros(NUM_ENVS), keys, MAX_STEPS, record_fn)
    lengths = np.asarray(jax.vmap(CountEnv().reset)(keys).limit)
    assert len(set(lengths)) > 2
    np.testing.assert_array_equal(last.step, lengths)
    np.testing.assert_array_equal(np.asarray(valid), np.arange(MAX_STEPS)[:, None] < lengths)
    np.testing.assert_array_equal(steps, np.minimum(np.arange(MAX_STEPS)[:, None] + 1, lengths))
