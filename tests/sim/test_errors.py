"""Bad input: a clear error before anything is compiled."""

import numpy as np
import pytest

import simscaleai_jax.sim as sim
from simscaleai_jax.sim.robot import PICKING, find_robot, load_model


@pytest.mark.parametrize("make", [sim.make_env, sim.make_functional_env, sim.make_batched_env])
def test_unknown_names(make):
    with pytest.raises(ValueError, match=r"Unknown env 'reech'\. Available: .*reach.*Did you mean 'reach'"):
        make("reech")
    with pytest.raises(ValueError, match=r"'max_episode_step'\. Did you mean 'max_episode_steps'"):
        make("reach", max_episode_step=3)


def test_vec_env_wants_a_positive_number():
    with pytest.raises(ValueError, match="num_envs"):
        sim.make_vec_env("reach", 0)
    with pytest.raises(ValueError, match="Unknown env"):
        sim.make_vec_env("reech", 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dt": 0.003}, "control_dt must be a multiple of dt"),
        ({"dt": -1.0}, "dt must be positive"),
        ({"max_episode_steps": 0}, "max_episode_steps"),
        ({"impl": "cuda"}, "impl must be one of"),
        ({"renderer": "vulkan"}, "renderer must be one of"),
    ],
)
def test_sim_config_is_checked(values, message):
    with pytest.raises(ValueError, match=message):
        sim.SimConfig(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"width": 0}, "width"), ({"height": -4}, "height"), ({"fov": 180.0}, r"fov must lie inside \(0, 180\)")],
)
def test_camera_config_is_checked(values, message):
    with pytest.raises(ValueError, match=message):
        sim.CameraConfig(**values)


def test_unknown_camera_lists_those_there_are():
    with pytest.raises(ValueError, match=r"Unknown camera 'nose'.*front_cam, side_cam, wrist_cam"):
        sim.make_env("reach", cameras=["nose"])
    with pytest.raises(ValueError, match=r"Unknown camera 'nose'.*front_cam, side_cam, wrist_cam"):
        sim.make_functional_env("reach", cameras=["nose"])


def test_actions_are_checked():
    env = sim.make_env("reach", cameras=[])
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(4,\), got \(3,\)"):
        env.step(np.zeros(3))
    with pytest.raises(ValueError, match="NaN"):
        env.step(np.array([0.0, np.nan, 0.0, 0.0]))


def test_unknown_render_modes_are_refused():
    with pytest.raises(ValueError, match="render_mode"):
        sim.make_env("reach", render_mode="ansi")


def test_missing_mjcf_names_are_listed_at_once(tmp_path):
    path = tmp_path / "bare.xml"
    path.write_text("<mujoco><worldbody><geom size='.1'/></worldbody></mujoco>")
    with pytest.raises(
        ValueError, match=r"lacks: site 'ee_site'.*gripper.*body 'target'.*body 'object'.*left_touch.*right_touch"
    ):
        find_robot(load_model(str(path), 0.01), PICKING)
    with pytest.raises(ValueError, match="lacks"):
        sim.make_env("reach", xml_path=str(path), cameras=[])


def test_files_that_are_not_models(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no MJCF file at .*missing\.xml"):
        sim.make_env("reach", xml_path=str(tmp_path / "missing.xml"))
    path = tmp_path / "broken.xml"
    path.write_text("<mujoco><world")
    with pytest.raises(ValueError, match="not a valid MJCF model"):
        sim.make_env("reach", xml_path=str(path))
