"""The gymnasium adapters: documented behaviour of make_env, ReachEnv, hooks, cameras and the vector environment."""

import dataclasses
import time
import types
import warnings

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

import simscaleai_jax.sim as sim
from simscaleai_jax.core.streams import Stream, seed_key
from simscaleai_jax.sim import registry
from simscaleai_jax.sim.base_env import BaseRobotEnv
from simscaleai_jax.sim.envs.reach_env import ReachEnv
from simscaleai_jax.sim.envs.task_env import HOOKS, INTERNAL_HOOKS
from simscaleai_jax.sim.envs.vector_env import BatchedVectorEnv
from simscaleai_jax.sim.registry import asset, find_task
from simscaleai_jax.sim.tasks.reach import ReachConfig, ReachTask

from .conftest import actions_for

PENDULUM = """
<mujoco><worldbody><camera name="side" pos="0 -2 0" xyaxes="1 0 0 0 0 1"/>
<body><joint name="hinge" axis="0 1 0" damping="0.1"/><geom type="capsule" size=".02" fromto="0 0 0 0 0 -.5"/></body>
</worldbody><actuator><motor joint="hinge" ctrlrange="-3 3"/></actuator></mujoco>
"""


class Pendulum(BaseRobotEnv):
    """Only the six documented hooks, on an MJCF of its own."""

    def _build_observation_space(self):
        return spaces.Dict({"angle": spaces.Box(-np.inf, np.inf, (1,), np.float64)})

    def _build_action_space(self):
        return spaces.Box(-1.0, 1.0, (1,), np.float32)

    def _get_obs(self):
        return {"angle": self.data.qpos.copy()}

    def _get_reward(self):
        return -abs(float(self.data.qpos[0]))

    def _is_terminated(self):
        return bool(abs(self.data.qpos[0]) > 2.0)

    def _reset_task(self, rng):
        self.data.qpos[0] = rng.uniform(-0.5, 0.5)


@pytest.fixture(scope="module")
def env():
    return sim.make_env("reach", cameras=[])


@pytest.fixture
def pendulum(tmp_path):
    path = tmp_path / "pendulum.xml"
    path.write_text(PENDULUM)
    return Pendulum(sim.SimConfig(xml_path=str(path), cameras=[], max_episode_steps=30), render_mode="rgb_array")


def test_an_environment_is_ready_within_two_seconds_of_one_core():
    started = time.process_time()
    sim.make_env("reach", cameras=[])
    assert time.process_time() - started < 2.0


@pytest.mark.wide
@pytest.mark.parametrize(("dt", "targets"), [(0.002, 5), (0.01, 5), (0.005, 5), (0.025, 2), (0.05 / 7, 7)])
def test_c23_targets_move_in_equal_steps(dt, targets, monkeypatch):
    host = sim.make_env("reach", dt=dt, cameras=[])
    host.reset(seed=0)
    before, seen = host.data.ctrl.copy(), []
    step = mujoco.mj_step
    monkeypatch.setattr(mujoco, "mj_step", lambda m, d, nstep: seen.append((d.ctrl.copy(), nstep)) or step(m, d, nstep))
    host.step(np.array([1.0, 0.0, 0.0, 1.0], np.float32))
    after = host.data.ctrl.copy()
    shares = np.linspace(1 / targets, 1, targets)
    np.testing.assert_allclose([ctrl for ctrl, _ in seen], before + shares[:, None] * (after - before), atol=1e-12)
    assert {count for _, count in seen} == {host.config.substeps // targets}
    mjx = sim.make_functional_env("reach", dt=dt, cameras=[], impl="jax").physics
    np.testing.assert_allclose(mjx.ramp, np.repeat(shares, host.config.substeps // targets))
    batch = sim.make_functional_env("reach", dt=dt, cameras=[], impl="c").physics
    np.testing.assert_allclose(batch.early_shares, mjx.ramp[: -(host.config.substeps // targets)])


def test_gymnasium_checker_passes_without_a_warning(env):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)


def test_documented_spaces_and_info(env):
    shapes = {key: box.shape for key, box in env.observation_space.items()}
    assert shapes == {"joint_pos": (7,), "joint_vel": (7,), "ee_pos": (3,), "target_pos": (3,)}
    assert env.action_space == spaces.Box(-1.0, 1.0, (4,), np.float32)
    obs, info = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    assert set(info) == {"step", "distance", "success"}
    *_, info = env.step(np.zeros(4))
    assert [type(info[key]) for key in ("step", "distance", "success")] == [int, float, bool]


class ManifoldTask(ReachTask):
    """Reach with values of every kind: a matrix to observe, and info that is not just numbers and flags."""

    def observe(self, snapshot, task_state):
        return {**super().observe(snapshot, task_state), "ee_mat": snapshot.ee_mat}

    def observation_bounds(self):
        return {**super().observation_bounds(), "ee_mat": (np.full((3, 3), -1.01), np.full((3, 3), 1.01))}

    def info(self, snapshot, task_state):
        return {
            **super().info(snapshot, task_state),
            "offset": task_state.target_pos - snapshot.ee_pos,
            "stage": jnp.int32(3),
            "near": jnp.abs(task_state.target_pos - snapshot.ee_pos) < 2.0,
        }


def test_a_task_of_ones_own_keeps_its_shapes_and_types(monkeypatch):
    monkeypatch.setattr("simscaleai_jax.sim.registry._USER_TASKS", {})
    sim.register_task("manifold", sim.TaskEntry(ManifoldTask, ReachConfig, asset("reach.xml")))
    env = sim.make_env("manifold", cameras=[])
    obs, info = env.reset(seed=0)
    assert obs["ee_mat"].shape == (3, 3)
    assert env.observation_space.contains(obs)
    np.testing.assert_allclose(obs["ee_mat"] @ obs["ee_mat"].T, np.eye(3), atol=1e-5)
    np.testing.assert_allclose(info["offset"], obs["target_pos"] - obs["ee_pos"], atol=1e-6)
    assert info["offset"].dtype == np.float32
    assert (info["stage"], type(info["stage"])) == (3, int)
    assert info["near"].tolist() == [True] * 3
    assert (type(info["distance"]), type(info["success"])) == (float, bool)


def test_default_camera_gives_an_image_and_render_a_frame():
    env = sim.make_env(
        "reach", render_mode="rgb_array", config=sim.SimConfig(cameras=[sim.CameraConfig(width=32, height=24)])
    )
    obs, _ = env.reset(seed=0)
    assert env.observation_space["image"].shape == (24, 32, 3)
    assert obs["image"].dtype == np.uint8
    assert obs["image"].std() > 5.0
    picture = env.render_camera("wrist_cam", depth=True, segmentation=True)
    assert picture["depth"].shape == picture["segmentation"].shape == (24, 32)
    np.testing.assert_array_equal(picture["rgb"], obs["image"])
    frame = env.render()
    assert frame is not None
    assert frame.ndim == 3
    with pytest.raises(ValueError, match=r"Unknown camera 'nose_cam'.*front_cam"):
        env.render_camera("nose_cam")
    env.close()


def test_registered_with_gymnasium():
    env = gymnasium.make("simscaleai_jax/Reach-v0", cameras=[])
    assert isinstance(env.unwrapped, ReachEnv)
    env.reset(seed=0)


@pytest.mark.parametrize("seed", [0, 7])
def test_c22_a_seed_is_honoured(env, seed):
    first = env.reset(seed=seed)[0]["target_pos"]
    assert not np.array_equal(env.reset()[0]["target_pos"], first)
    np.testing.assert_array_equal(env.reset(seed=seed)[0]["target_pos"], first)
    from_config = sim.make_env("reach", cameras=[], seed=seed)
    np.testing.assert_array_equal(from_config.reset()[0]["target_pos"], first)


def test_c22_the_callers_objects_are_left_alone():
    config = sim.SimConfig(cameras=[])
    before = repr(config)
    env = sim.make_env("reach", config=config, max_episode_steps=5)
    env.reset(seed=0)
    action = np.array([3.0, 0.0, 0.0, 0.0])
    env.step(action)
    assert repr(config) == before
    assert action.tolist() == [3.0, 0.0, 0.0, 0.0]


def test_c20_host_and_mjx_play_the_same_episode(single_reset, single_step, batched):
    key = jax.random.key(11)
    state = single_reset(key)
    host = sim.make_env("reach", dt=0.01, cameras=[], max_episode_steps=batched.max_episode_steps)
    obs, _ = host.reset(options={"key": key})
    np.testing.assert_allclose(obs["joint_pos"], state.obs["joint_pos"], atol=1e-6)
    worst = worst_reward = 0.0
    for t in range(200):
        action = actions_for([0], t)[0]
        state = single_step(state, action)
        obs, reward, *_ = host.step(action)
        worst = max(worst, np.abs(obs["joint_pos"] - state.obs["joint_pos"]).max())
        worst_reward = max(worst_reward, abs(reward - float(state.reward)))
    assert worst < 1e-4
    assert worst_reward < 1e-3


def test_c21_overridden_hooks_take_effect():
    class Custom(ReachEnv):
        def _get_reward(self):
            return 42.0

        def _is_terminated(self):
            return self.step_count >= 3

        def _apply_action(self, action):
            self.data.ctrl[0] += 0.1

        def _get_info(self):
            return {**super()._get_info(), "extra": 1}

    env = Custom(sim.SimConfig(cameras=[]))
    env.reset(seed=0)
    start = env.data.qpos[0]
    steps = [env.step(np.zeros(4)) for _ in range(3)]
    assert [s[1] for s in steps] == [42.0] * 3
    assert [s[2] for s in steps] == [False, False, True]
    assert env.data.qpos[0] > start + 0.1
    assert steps[0][4]["extra"] == 1
    assert env.functional_env() is None
    assert ReachEnv(sim.SimConfig(cameras=[])).functional_env() is not None


def test_c21_an_own_randomization_stays_in_the_model():
    class Heavy(ReachEnv):
        def _apply_domain_randomization(self, rng):
            super()._apply_domain_randomization(rng)
            self.model.body_mass[3] = 77.0

    env = Heavy(sim.SimConfig(cameras=[], domain_randomization=True))
    env.reset(seed=0)
    assert env.model.body_mass[3] == 77.0
    assert env.functional_env() is None


@pytest.mark.parametrize("hook", [*HOOKS, *INTERNAL_HOOKS])
def test_c21_whatever_is_overridden_keeps_the_environment_from_being_replaced(hook):
    changed = type("Changed", (ReachEnv,), {hook: lambda self, *args, **kwargs: None})
    env = changed.__new__(changed)
    assert env.functional_env() is None


def test_c09_a_diverged_state_ends_its_episode(env, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT
    env.reset(seed=0)
    env.data.qvel[0] = np.nan
    obs, reward, terminated, truncated, info = env.step(np.zeros(4, np.float32))
    assert (reward, terminated, truncated, info["success"]) == (0.0, True, False, False)
    assert all((value == 0.0).all() for value in obs.values())
    env.reset(seed=0)
    obs, _, terminated, *_ = env.step(np.zeros(4, np.float32))
    assert not terminated
    assert obs["joint_pos"].any()


def test_the_home_pose_is_drawn_before_the_first_reset():
    env = sim.make_env("reach", cameras=[], render_mode="rgb_array")
    assert env.render().std() > 10.0
    assert np.abs(env.data.geom_xpos).max() > 0.3


def test_a_record_of_a_built_in_scene_holds_no_path(env):
    assert env.config.xml_path == ""


def test_a_camera_named_twice_is_refused():
    with pytest.raises(ValueError, match="camera 'front_cam' is configured twice"):
        sim.make_env("reach", cameras=[sim.CameraConfig("front_cam"), sim.CameraConfig("front_cam", 8, 8)])


def test_a_vector_env_takes_the_seed_of_its_config(batched, monkeypatch):
    def keys(seed):
        config = dataclasses.replace(batched.functional.config, seed=seed)
        monkeypatch.setattr(batched.functional, "config", config)
        envs = BatchedVectorEnv(batched, 8)
        envs._init = lambda key, env_ids: types.SimpleNamespace(
            env=types.SimpleNamespace(obs={"key": jax.random.key_data(key)})
        )
        return [envs.reset()[0]["key"].tolist() for _ in range(2)]

    assert keys(0)[0] == keys(0)[0] == jax.random.key_data(seed_key(0, Stream.VECTOR_EPISODES)).tolist()
    assert keys(0)[0] != keys(0)[1]
    assert keys(None)[0] != keys(None)[0]


def test_six_hooks_on_an_mjcf_of_ones_own(pendulum):
    obs, info = pendulum.reset(seed=0)
    assert abs(obs["angle"][0]) <= 0.5
    assert info == {"step": 0}
    for _ in range(30):
        obs, reward, terminated, truncated, info = pendulum.step(np.ones(1, np.float32))
    assert obs["angle"][0] > 0.5
    assert reward == -abs(obs["angle"][0])
    assert truncated or terminated
    assert pendulum.render().ndim == 3
    assert pendulum.render_camera("side")["rgb"].shape == (128, 128, 3)
    assert pendulum.functional_env() is None


def test_register_env_makes_a_class_known(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_USER_TASKS", {})
    monkeypatch.delitem(registry.USER_ENVS, "pendulum", raising=False)
    path = tmp_path / "pendulum.xml"
    path.write_text(PENDULUM)
    sim.register_env("pendulum", Pendulum)
    assert "pendulum" in sim.list_envs()
    env = sim.make_env("pendulum", xml_path=str(path), cameras=[])
    assert isinstance(env, Pendulum)
    with pytest.raises(ValueError, match="'reach' is a task already"):
        sim.register_env("reach", Pendulum)
    with pytest.raises(ValueError, match="'pendulum' is the environment Pendulum of register_env"):
        sim.register_task("pendulum", find_task("reach"))
    sim.register_task("swing", find_task("reach"))
    with pytest.raises(ValueError, match="'swing' is a task already, built in or of register_task"):
        sim.register_env("swing", Pendulum)
    monkeypatch.delitem(registry.USER_ENVS, "pendulum")


def test_make_vec_env_builds_the_named_task_without_cameras():
    envs = sim.make_vec_env("reach", 3, dt=0.01)
    assert envs.num_envs == 3
    assert envs.observation_space["joint_pos"].shape == (3, 7)
    assert "image" not in envs.observation_space.spaces


def test_vector_env_steps_resets_and_reports_the_end(batched, init, step):
    envs = BatchedVectorEnv(batched, 8)
    envs._init, envs._step = init, step  # compiled once for all tests
    obs, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(obs)
    again, _ = envs.reset(seed=0)
    np.testing.assert_array_equal(obs["target_pos"], again["target_pos"])
    ended = 0
    for t in range(14):
        before = obs
        obs, reward, terminated, truncated, info = envs.step(actions_for(range(8), t))
        assert envs.observation_space.contains(obs)
        assert reward.shape == terminated.shape == truncated.shape == (8,)
        done = terminated | truncated
        ended += done.sum()
        if done.any():
            np.testing.assert_array_equal(info["_final_obs"], done)
            for i in np.flatnonzero(done):
                np.testing.assert_array_equal(info["final_obs"][i]["target_pos"], before["target_pos"][i])
                assert not np.array_equal(obs["target_pos"][i], before["target_pos"][i])
            assert info["final_info"]["episode"]["l"][done].max() <= 12
    assert ended >= 8
    with pytest.raises(ValueError, match=r"shape \(8, 4\)"):
        envs.step(np.zeros((8, 3)))
    with pytest.raises(ValueError, match="NaN"):
        envs.step(np.full((8, 4), np.nan))
    envs.close()
