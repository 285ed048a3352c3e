"""The scripted experts on fresh episodes, in MJX and on host physics at the documented step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.datagen.experts import make_expert
from simscaleai_jax.sim.envs.episodes import rollout
from simscaleai_jax.sim.factory import make_env, make_functional_env
from simscaleai_jax.sim.registry import find_expert
from simscaleai_jax.sim.tasks.expert import StagePhase
from simscaleai_jax.sim.tasks.grasping.expert import ABOVE, CLOSE, DESCEND, HOVER
from simscaleai_jax.sim.tasks.pick_place.task import PickPlaceTask

from .episodes import host_expert, play
from .scenes import HALF, fresh_state, robot, snapshot, task


@pytest.mark.slow
@pytest.mark.parametrize(("name", "wanted"), [("reach", 1.0), ("pick_place", 0.99)])
def test_expert_succeeds_in_a_thousand_mjx_episodes(name, wanted):
    env = make_functional_env(name, cameras=[], dt=0.01)
    policy = make_expert(name, env)

    @jax.jit
    def episodes(keys):
        carry = jax.vmap(policy.init_fn)(keys)
        last, _, _ = rollout(env, policy.act_fn, carry, keys, env.max_episode_steps, lambda *step: ())
        return last.info["success"]

    assert float(jnp.mean(episodes(jax.random.split(jax.random.key(7), 1000)))) >= wanted


@pytest.mark.slow
@pytest.mark.parametrize(("name", "wanted"), [("reach", 1.0), ("pick_place", 0.99)])
def test_expert_succeeds_on_host_physics(name, wanted):
    env = make_env(name, cameras=[])
    assert env.config.dt == 0.002
    act = host_expert(env)
    successes = [play(env, act, seed=seed)[2][-1]["success"] for seed in range(200)]
    assert sum(successes) >= wanted * len(successes)


@pytest.mark.parametrize(("name", "wanted"), [("reach", 1.0), pytest.param("pick_place", 0.95, marks=pytest.mark.wide)])
def test_expert_succeeds_in_twenty_host_episodes(name, wanted):
    env = make_env(name, cameras=[], dt=0.01)
    act = host_expert(env)
    successes = [play(env, act, seed=1000 + seed)[2][-1]["success"] for seed in range(20)]
    assert sum(successes) >= wanted * len(successes)


@pytest.mark.parametrize(("finger_range", "enough"), [(0.04, 0.035), (0.03, 0.02625)])
def test_the_gripper_is_open_by_its_own_measure(finger_range, enough):
    hand = dataclasses.replace(robot(), finger_range=np.array([0.0, finger_range]))
    expert, above = (
        find_expert("pick_place", PickPlaceTask(hand)).act,
        StagePhase(jnp.int32(ABOVE), jnp.int32(0), jnp.int32(0)),
    )
    for opening, stage in ((enough, ABOVE), (enough + 1e-4, DESCEND)):
        scene = snapshot((0.5, 0.0, HALF), ee_pos=(0.5, 0.0, HALF + HOVER)).replace(gripper=jnp.array([opening]))
        assert expert(scene, fresh_state(), above)[1].stage == stage


def test_pads_press_with_the_tasks_own_force():
    scene = snapshot((0.5, 0.0, HALF), ee_pos=(0.5, 0.0, HALF), touch=(0.5, 0.5))
    closing = StagePhase(jnp.int32(CLOSE), jnp.int32(0), jnp.int32(1))
    for force, grip in ((0.05, 2), (1.0, 0)):
        assert find_expert("pick_place", task(touch_force=force)).act(scene, fresh_state(), closing)[1].grip == grip


def test_environments_without_an_expert():
    with pytest.raises(ValueError, match=r"environment 'toy' has no task for a scripted expert"):
        make_expert("toy", object())
    with pytest.raises(
        ValueError, match=r"Unknown scripted expert 'reech'. Available: lift, pick_place, pick_place_language, push, "
    ):
        find_expert("reech", task())
