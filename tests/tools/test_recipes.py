"""The recipes in configs/ fit the code: options, sizes that divide, settings and observation keys of the task."""

from pathlib import Path

import pytest

import simscaleai_jax
from simscaleai_jax.core.config import from_dict
from simscaleai_jax.core.errors import check_names
from simscaleai_jax.rl.ppo.config import make_layout
from simscaleai_jax.sim.registry import find_task
from simscaleai_jax.sim.robot import find_robot, load_model
from simscaleai_jax.tools.arguments import presets
from simscaleai_jax.tools.commands import rl

RECIPES = [path for name, path in presets().items() if name.startswith("ppo_")]


@pytest.mark.parametrize("recipe", RECIPES, ids=[path.stem for path in RECIPES])
def test_a_recipe_fits_the_code(recipe):
    options = rl.parse_options(["--config", str(recipe)])
    make_layout(options.ppo)
    entry = find_task(options.env_name)
    config = from_dict(entry.config_cls, options.env.task)
    robot = find_robot(load_model(entry.xml_path, options.env.dt or 0.002), entry.needs)
    keys = entry.make_task(robot, config).observation_bounds()
    check_names("observation key", [*options.ppo.actor_keys, *options.ppo.critic_keys], keys)


def test_pick_place_learns_the_same_on_one_gpu_as_on_two_cores():
    small, large = (load(f"ppo_pick_place{suffix}") for suffix in ("", "_gpu"))
    assert small.env == large.env
    assert 2048 <= large.ppo.num_envs <= 8192
    for options in (small, large):  # the eased starts end half way, so that training ends on plain ones
        steps = options.ppo.total_timesteps / options.ppo.num_envs
        assert 0.4 < options.env.task["curriculum_steps"] / steps < 0.6


def load(name):
    return rl.parse_options([name])


def test_the_recipes_are_in_the_package():
    assert {"ppo_reach", "ppo_pick_place", "bc_reach"} <= set(presets())
    assert all(path.is_relative_to(Path(simscaleai_jax.__file__).parent) for path in presets().values())
