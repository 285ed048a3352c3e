"""`PickPlaceEnv` behind gymnasium's API: documented spaces and info, and the name it is registered under."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from simscaleai_jax import sim
from simscaleai_jax.sim.envs.pick_place_env import PickPlaceEnv

SHAPES = {
    "joint_pos": (7,), "joint_vel": (7,), "ee_pos": (3,), "gripper_state": (1,), "object_pos": (3,),
    "object_quat": (4,), "target_pos": (3,),
}  # fmt: skip
INFO = {"step": int, "reach_dist": float, "place_dist": float, "grasped": bool, "lifted": bool, "success": bool}


@pytest.fixture
def env():
    env = sim.make_env("pick_place", cameras=[])
    yield env
    env.close()


def test_gymnasium_checker_passes_without_a_warning(env):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)


def test_documented_spaces_and_info(env):
    assert isinstance(env, PickPlaceEnv)
    assert {key: box.shape for key, box in env.observation_space.items()} == SHAPES
    assert env.action_space == spaces.Box(-1.0, 1.0, (4,), np.float32)
    obs, info = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    assert set(info) >= set(INFO)
    *_, info = env.step(np.zeros(4))
    assert {name: type(info[name]) for name in INFO} == INFO
    assert not info["grasped"]
    assert not info["lifted"]


def test_registered_with_gymnasium():
    env = gymnasium.make("simscaleai_jax/PickPlace-v0", cameras=[])
    assert isinstance(env.unwrapped, PickPlaceEnv)
    env.reset(seed=0)
    env.close()
