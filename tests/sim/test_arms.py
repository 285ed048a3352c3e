"""Arms by name: found in folders of models, put into a scene of their own, and worked by the experts.

The built-in Panda's file stands in for Menagerie's, whose parts have the same names; `pytest -m arms` takes real ones.
"""

import importlib.machinery
import os
import shutil
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.datagen.experts import make_expert
from simscaleai_jax.sim import SimConfig, list_robots, make_env, make_functional_env
from simscaleai_jax.sim.envs.episodes import rollout
from simscaleai_jax.sim.registry import asset
from simscaleai_jax.sim.robot import load_model
from simscaleai_jax.sim.robot.arms import find_arm, locate
from simscaleai_jax.sim.tasks.reach import ReachConfig
from simscaleai_jax.tools import cli

REAL = "SIMSCALE_TEST_MENAGERIE"
SUCCESS = {"reach": 0.99, "pick_place": 0.95}


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder of models that has the Panda alone."""
    (tmp_path / "models" / "franka_emika_panda").mkdir(parents=True)
    shutil.copy(asset("panda.xml"), tmp_path / "models" / "franka_emika_panda" / "panda.xml")
    monkeypatch.setenv("SIMSCALE_MENAGERIE", os.pathsep.join([str(tmp_path / "empty"), str(tmp_path / "models")]))
    return tmp_path / "models"


def test_a_scene_is_built_around_an_arm(models):
    env = make_env("pick_place", robot="panda_menagerie", cameras=[])
    obs, _ = env.reset(seed=0)
    robot = env.task.robot
    assert {key: value.shape for key, value in obs.items() if value.shape[0] == 7} == {
        "joint_pos": (7,),
        "joint_vel": (7,),
    }
    np.testing.assert_allclose(robot.finger_range, [0.0, 0.04], atol=2e-3)
    np.testing.assert_allclose(robot.home_ee_mat, np.diag([1.0, -1.0, -1.0]), atol=2e-3)
    assert (robot.touch_sensor >= 0).all()
    assert np.all(env.model.geom_contype == 0), "nothing touches but through pairs"
    own = load_model(asset("pick_place.xml"), 0.002)
    for name in ("front_cam", "side_cam"):
        np.testing.assert_allclose(env.model.camera(name).pos, own.camera(name).pos, atol=1e-3)
        np.testing.assert_allclose(env.model.camera(name).quat, own.camera(name).quat, atol=1e-3)
    wrist = env.data.camera("wrist_cam").xmat.reshape(3, 3)
    np.testing.assert_allclose(wrist[:, 2], -robot.home_ee_mat[:, 2], atol=0.2)
    config = env.unwrapped.config.task
    low, high = np.array(config.area_low), np.array(config.area_high)
    for seed in range(5):
        obs, _ = env.reset(seed=seed)
        assert np.all((obs["object_pos"][:2] > low - 1e-6) & (obs["object_pos"][:2] < high + 1e-6))


def test_an_arms_ranges_give_way_to_settings(models):
    env = make_env("reach", robot="panda_menagerie", cameras=[], target_high=(0.5, 0.1, 0.25))
    assert env.unwrapped.config.task.target_high == (0.5, 0.1, 0.25)
    assert env.unwrapped.config.task.target_low == (0.4, -0.2, 0.02)
    again = make_env("reach", config=env.unwrapped.config)
    assert again.unwrapped.config.task == env.unwrapped.config.task
    assert env.unwrapped.config.task.success_distance == 0.05
    small = ReachConfig.for_workspace((0.2, -0.1, 0.0), (0.3, 0.1, 0.05))
    assert small["success_distance"] == small["termination_distance"] == pytest.approx(0.01)


def test_what_is_not_there_is_told(models, capsys):
    with pytest.raises(ValueError, match=r"Unknown robot 'so10'\. Available: fr3, .*so100, so101, .*xarm7"):
        make_env("reach", robot="so10", cameras=[])
    with pytest.raises(FileNotFoundError, match=r"robot 'so101' needs robotstudio_so101/so101.xml.*SIMSCALE_MENAGERIE"):
        make_env("reach", robot="so101", cameras=[])
    with pytest.raises(ValueError, match="wanted a robot or an xml_path"):
        SimConfig(robot="so101", xml_path="arm.xml")
    path = models / "franka_emika_panda" / "panda.xml"
    path.write_text(path.read_text().replace('name="hand"', 'name="palm"'))
    with pytest.raises(ValueError, match="robot 'panda_menagerie': this version of the model has no body 'hand'"):
        make_env("reach", robot="panda_menagerie", cameras=[])
    assert cli.main(["list-robots"]) == 0
    shown = capsys.readouterr().out
    assert str(path) in shown
    assert "not found: set SIMSCALE_MENAGERIE" in shown


DOWNLOADERS = {
    "mujoco_menagerie": lambda folder: {"get": lambda name: types.SimpleNamespace(path=lambda: folder / name)},
    "robot_descriptions.panda_mj_description": lambda folder: {"PACKAGE_PATH": str(folder / "franka_emika_panda")},
}


@pytest.mark.parametrize("module", DOWNLOADERS)
def test_a_package_that_downloads_models_is_asked_last(module, models, monkeypatch, capsys):
    folder, panda = models.rename(models.parent / "downloads"), find_arm("panda_menagerie")
    with pytest.raises(FileNotFoundError, match="pip install mujoco-menagerie"):
        locate("panda_menagerie", panda)
    for name in (module.partition(".")[0], module):
        fake = types.ModuleType(name)
        fake.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(fake).update(DOWNLOADERS[module](folder))
        monkeypatch.setitem(sys.modules, name, fake)
    assert locate("panda_menagerie", panda) == folder / "franka_emika_panda" / "panda.xml"
    with pytest.raises(FileNotFoundError, match=r"needs franka_emika_panda/panda\.xml"):
        locate("panda_menagerie", panda, may_fetch=False)
    assert cli.main(["list-robots"]) == 0
    assert "downloaded when first used" in capsys.readouterr().out


@pytest.mark.arms
@pytest.mark.parametrize("robot", list_robots())
@pytest.mark.parametrize("name", sorted(SUCCESS))
def test_the_experts_work_real_arms(name, robot, monkeypatch):
    monkeypatch.setenv("SIMSCALE_MENAGERIE", os.environ[REAL])
    env = make_functional_env(name, robot=robot, cameras=[], impl="c")
    policy = make_expert(name, env)

    @jax.jit
    def episodes(keys):
        carry = jax.vmap(policy.init_fn)(keys)
        last, _, _ = rollout(env, policy.act_fn, carry, keys, env.max_episode_steps, lambda *step: ())
        return last.info["success"]

    assert float(jnp.mean(episodes(jax.random.split(jax.random.key(7), 256)))) >= SUCCESS[name]
