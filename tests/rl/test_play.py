"""Whole episodes played for an evaluation and for a transfer report: chunks of actions, and spoilt physics."""

import types
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import pytest
from flax import struct

from simscaleai_jax.policy import Policy
from simscaleai_jax.rl.evaluator import EvalConfig, evaluate_policy
from simscaleai_jax.rl.transfer import Condition, evaluate_conditions
from simscaleai_jax.sim.config import SimConfig
from simscaleai_jax.sim.randomization import PRESETS
from simscaleai_jax.sim.registry import find_task
from simscaleai_jax.sim.robot import find_robot, load_model

EPISODES = 16


@struct.dataclass
class State:
    obs: Any
    reward: Any
    terminated: Any
    truncated: Any
    info: Any
    physics: Any = ()


class Spoilt:
    """The reward is the action. Some episodes end by a state that is not finite at their second step; the others last
    four steps and lose contacts at the third.
    """

    max_episode_steps, action_size = 4, 1
    observation_spec: ClassVar = {"state": jax.ShapeDtypeStruct((1,), jnp.float32)}
    config = SimConfig(cameras=[])

    def __init__(self):
        model = load_model(find_task("reach").xml_path, 0.01)
        self.physics = types.SimpleNamespace(host_model=model)
        self.task = types.SimpleNamespace(robot=find_robot(model))

    def reset(self, key, overrides=None):
        no = jnp.bool_(False)
        info = {"success": no, "nan": no, "overflow": no, "breaks": jax.random.bernoulli(key)}
        return State({"state": jnp.zeros(1)}, jnp.float32(0), no, no, info)

    def step(self, state, action):
        time = state.obs["state"] + 1
        nan = state.info["breaks"] & (time[0] == 2)
        info = state.info | {"nan": nan, "overflow": time[0] == 3}
        return state.replace(
            obs={"state": time}, reward=action[0], terminated=nan, truncated=time[0] == 4, info=info
        )  # fmt: skip


@pytest.fixture(scope="module")
def env():
    return Spoilt()


def chunked(**options):
    """Plans a 1 and then a 10."""

    def plan(params, obs, key):
        return jnp.broadcast_to(jnp.array([[1.0], [10.0]]), (*obs["state"].shape[:-1], 2, 1))

    return Policy(plan, (), 1, 2, **options)


@pytest.mark.parametrize(("options", "chunk"), [({}, 11), ({"execute_steps": 1}, 2)])
def test_a_transfer_report_executes_chunks_as_an_evaluation_does(env, options, chunk):
    """C25."""
    policy = chunked(**options)
    rows = evaluate_conditions(env, policy, [Condition(name, PRESETS[name]) for name in ("clean", "heavy")], EPISODES)
    result = evaluate_policy(env, policy, EvalConfig(n_episodes=EPISODES))
    assert (result["min_reward"], result["max_reward"]) == (chunk, 2 * chunk)
    for row in (*rows, result):
        assert row["mean_reward"] == pytest.approx(chunk * row["mean_length"] / 2)
        broken = EPISODES * (4 - row["mean_length"]) / 2
        assert 0 < broken < EPISODES
        assert (row["nan_episodes"], row["overflow_episodes"]) == (broken, EPISODES - broken)
