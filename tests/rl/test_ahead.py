"""PPO's programs from shapes alone are those that a run compiles."""

import jax
import numpy as np
import pytest

from simscaleai_jax.core import sharding
from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.rl.ppo import ahead, train

from .conftest import SMALL


@pytest.mark.wide
def test_programs_from_shapes_are_those_that_run(probe, monkeypatch):
    config = PPOConfig(**SMALL | {"num_envs": 64, "n_steps": 512, "num_devices": 8})
    agent = PPOAgent.for_env(probe, config, "cpu")
    start = train.make_init(agent.learner, probe, agent.layout(), agent.mesh)
    state = start(agent.state)
    update = train.make_dispatch(agent.learner, probe, agent.layout(), agent.mesh, 1).lower(state, np.int32(1))
    mesh = sharding.make_mesh(jax.devices())
    with monkeypatch.context() as patch:
        patch.setattr(jax, "devices", None)
        patch.setattr(jax, "device_put", None)
        programs = {name: made.lower() for name, made in ahead.make_programs(probe, config, mesh).items()}
    assert programs["update"].as_text() == update.as_text()
    assert programs["start"].as_text() == start.lower(agent.state).as_text()


def test_sizes_are_those_of_the_target(probe):
    config = PPOConfig(**SMALL | {"num_envs": 4, "n_steps": 512})
    with pytest.raises(ValueError, match="on 8 devices; nearest: num_envs=8"):
        ahead.make_programs(probe, config, sharding.make_mesh(jax.devices()))
