"""What a checkpoint records of its environment, and what a policy asks of an observation."""

import json
from pathlib import Path

import numpy as np
import pytest

import simscaleai_jax
from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.rl.ppo.envs import check_engine, env_record
from simscaleai_jax.rl.ppo.rollout import network_inputs
from simscaleai_jax.sim.factory import make_batched_env, make_env, make_functional_env


@pytest.mark.parametrize("make", [make_batched_env, make_functional_env])
def test_an_environment_names_itself(make):
    record = env_record(make("pick_place", cameras=[], dt=0.01))
    assert record == {"name": "pick_place", "config": {"dt": 0.01, "cameras": [], "impl": "c"}}
    assert env_record(make("reach"))["config"]["cameras"][0]["name"] == "wrist_cam", "default cameras are named, too"
    assert env_record(make("reach", cameras=[]), "mine")["name"] == "mine", "a name that is given wins"


def test_the_record_of_a_built_in_scene_holds_no_path_of_this_machine():
    env = make_env("reach", cameras=[])
    try:
        record = env_record(env)
    finally:
        env.close()
    assert record["name"] == "reach"
    assert str(Path(simscaleai_jax.__file__).parent) not in json.dumps(record)


def test_a_key_that_an_observation_lacks_is_named_with_the_nearest():
    obs = {"ee_pos": np.zeros(3), "target_pos": np.zeros(3)}
    wrong = {"the policy": {"actor_keys": ("ee_pso",)}, r"PPOConfig\.critic_keys": {"critic_keys": ("ee_pso",)}}
    wrong[r"PPOConfig\.auxiliary_keys"] = {"auxiliary_keys": ("ee_pso",), "encoder": "cnn"}
    for name, settings in wrong.items():
        with pytest.raises(ValueError, match=rf"observation key of {name} 'ee_pso'\. Did you mean 'ee_pos'"):
            network_inputs(obs, PPOConfig(**settings))
    assert network_inputs(obs, PPOConfig(actor_keys=("ee_pos",)))["state"].shape == (3,)


def test_a_run_goes_on_on_its_own_physics_engine_alone():
    recorded = {"name": "reach", "config": {"impl": "jax"}}
    with pytest.raises(ValueError, match=r"trained on the physics engine 'jax' and would go on on 'c'.*--env.impl jax"):
        check_engine(recorded, {"name": "reach", "config": {"impl": "c"}})
    check_engine(recorded, recorded)
    check_engine({"name": "reach", "config": {}}, recorded)  # one that does not say


@pytest.mark.wide
def test_a_loaded_agent_refuses_another_engine_every_time(tmp_path):
    config = PPOConfig(n_steps=64, num_envs=8, batch_size=64, total_timesteps=64, n_epochs=1)
    agent = PPOAgent.for_env(make_batched_env("reach", dt=0.01, cameras=[], impl="c"), config)
    agent.train(make_batched_env("reach", dt=0.01, cameras=[], impl="c"), progress=False)
    agent.save(str(tmp_path / "run"))
    loaded = PPOAgent.for_env(make_batched_env("reach", dt=0.01, cameras=[], impl="c"), config)
    loaded.load(str(tmp_path / "run"))
    other = make_batched_env("reach", dt=0.01, cameras=[], impl="jax")
    for _ in range(2):
        with pytest.raises(ValueError, match="would go on on 'jax'"):
            loaded.train(other, progress=False, total_timesteps=128)
