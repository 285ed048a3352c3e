"""`BaseRobotEnv`: a gymnasium environment on MuJoCo itself, with the documented hooks for subclasses."""

import abc
import dataclasses
import os
import sys
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from simscaleai_jax.core.streams import check_seed
from simscaleai_jax.sim.config import CameraConfig, SimConfig
from simscaleai_jax.sim.physics.host import end_at_divergence, silence_log
from simscaleai_jax.sim.physics.state import ramp
from simscaleai_jax.sim.robot import check_cameras, load_model

__all__ = ["BaseRobotEnv", "CameraConfig", "SimConfig"]


METADATA = {"render_modes": ["human", "rgb_array"], "render_fps": 20}


class BaseRobotEnv(gymnasium.Env, abc.ABC):
    """One robot on host physics.

    A subclass implements the six abstract hooks; `self.model` and `self.data` are MuJoCo's, `self.config` a private
    copy. `_build_*_space` run at the end of construction, when the data is at its home pose. One control step is:
    `_apply_action`, `config.substeps` physics steps, `_get_obs`, `_get_reward`, `_is_terminated`, `_get_info`.
    """

    metadata: dict[str, Any] = METADATA
    ramp_control = False  # whether control targets move to their new values in equal steps instead of jumping

    def __init__(self, config: SimConfig, render_mode: str | None = None) -> None:
        """Load `config.xml_path` and build the spaces.

        Raises:
          FileNotFoundError: no file at `config.xml_path`.
          ValueError: not MJCF, unknown camera or render mode.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None, 'human' or 'rgb_array', got {render_mode!r}")
        self.config = config.copy()
        self.metadata = {**self.metadata, "render_fps": self.config.render_fps}
        self.render_mode = render_mode
        silence_log()
        self.model = self._load_model()
        end_at_divergence(self.model)
        self.data = mujoco.MjData(self.model)
        check_cameras(self.model, self.config.cameras)
        ramp_steps = self.config.ramp_steps if self.ramp_control else 1
        self._steps_per_target = self.config.substeps // ramp_steps
        self._ramp = ramp(ramp_steps)[:, None]
        self.step_count = 0
        self.overrides: dict[str, Any] = {}
        self._cameras: Any = None
        self._viewer: Any = None
        self._is_seeded = False
        self._to_home()
        mujoco.mj_forward(self.model, self.data)
        self.observation_space = self._build_observation_space()
        self.action_space = self._build_action_space()

    def __getstate__(self) -> dict[str, Any]:
        """Everything that a copy goes on with; a window and pictures' buffers are its own to open."""
        return self.__dict__ | {"_cameras": None, "_viewer": None}

    @abc.abstractmethod
    def _build_observation_space(self) -> spaces.Space: ...

    @abc.abstractmethod
    def _build_action_space(self) -> spaces.Space: ...

    @abc.abstractmethod
    def _get_obs(self) -> dict[str, np.ndarray]: ...

    @abc.abstractmethod
    def _get_reward(self) -> float: ...

    @abc.abstractmethod
    def _is_terminated(self) -> bool: ...

    @abc.abstractmethod
    def _reset_task(self, rng: np.random.Generator) -> None: ...

    def _apply_action(self, action: np.ndarray) -> None:
        """Write the clipped action to the first actuators, -1..1 spanning each control range where there is one."""
        count = action.size
        low, high = self.model.actuator_ctrlrange[:count].T
        scaled = low + 0.5 * (action + 1.0) * (high - low)
        self.data.ctrl[:count] = np.where(self.model.actuator_ctrllimited[:count], scaled, action)

    def _get_info(self) -> dict[str, Any]:
        return {"step": self.step_count}

    def _apply_domain_randomization(self, rng: np.random.Generator) -> None:
        """Draw this episode's model; called at every reset when `config.domain_randomization` is on."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode. `config.seed` seeds the first reset when no seed is given; 0 is a seed."""
        if seed is None and not self._is_seeded:
            seed = self.config.seed
        super().reset(seed=None if seed is None else check_seed(seed))
        self._is_seeded = True
        self.step_count = 0
        self._to_home()
        if self.config.domain_randomization:
            self._apply_domain_randomization(self.np_random)
        self._reset_task(self.np_random)
        mujoco.mj_forward(self.model, self.data)
        self._after_reset()
        obs = self._get_obs()
        if self.render_mode == "human":
            self.render()
        return obs, self._get_info()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control step.

        Raises:
          ValueError: the action has the wrong shape or is not a number. Out-of-range actions are clipped.
          RuntimeError: `reset` was not called first.
        """
        if not self._is_seeded:
            raise RuntimeError("call reset before step")
        clipped = self._check_action(action)
        before = self.data.ctrl.copy()
        self._apply_action(clipped)
        self._advance(before)
        self.step_count += 1
        self._after_step(clipped)
        obs = self._get_obs()
        reward = float(self._get_reward())
        terminated = bool(self._is_terminated())
        truncated = self.step_count >= self.config.max_episode_steps and not terminated
        if self.render_mode == "human":
            self.render()
        return obs, reward, terminated, truncated, self._get_info()

    def render_camera(
        self, camera_name: str | None = None, depth: bool = False, segmentation: bool = False
    ) -> dict[str, np.ndarray]:
        """Picture of one camera: `rgb` uint8 (H, W, 3), `depth` float32 (H, W) m, `segmentation` int32 (H, W) ids.

        Args:
          camera_name: a configured camera or any camera of the model (128x128, its own fov); None takes the first one.

        Raises:
          ValueError: unknown camera name (the message lists those there are).
        """
        camera = self._find_camera(camera_name)
        return self._host_cameras().picture(self.data, camera, self.overrides, depth, segmentation)

    def render(self) -> np.ndarray | None:
        """Frame for `render_mode`: "rgb_array" returns uint8 (H, W, 3), "human" updates MuJoCo's passive viewer.

        Raises:
          RuntimeError: a window is wanted and there is no display; MuJoCo's viewer would end the process.
        """
        if self.render_mode is None:
            gymnasium.logger.warn("render() does nothing without a render_mode; make the environment with one")
            return None
        if self.render_mode == "rgb_array":
            return self._host_cameras().portrait(self.data, self._portrait_camera(), self.overrides)
        if self._viewer is None:
            if sys.platform.startswith("linux") and not (
                os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
            ):
                raise RuntimeError("render_mode 'human' opens a window, and there is no display; use 'rgb_array'.")
            from mujoco import viewer

            self._viewer = viewer.launch_passive(self.model, self.data)
        self._viewer.sync()
        return None

    def close(self) -> None:
        """Free the renderer and the viewer; may be called twice."""
        if self._cameras is not None:
            self._cameras.close()
            self._cameras = None
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None

    def functional_env(self) -> Any:
        """The same task as a FunctionalEnv on the engine `config.impl`, or None where there is none (no task, or a hook
        is overridden).
        """
        return None

    def _load_model(self) -> mujoco.MjModel:
        """The compiled scene."""
        return load_model(self._xml_path(), self.config.dt)

    def _xml_path(self) -> str:
        """The MJCF file to load."""
        return self.config.xml_path

    def _to_home(self) -> None:
        """Reset MuJoCo's data, to the keyframe `home` where there is one."""
        home = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_KEY, "home")
        if home >= 0:
            mujoco.mj_resetDataKeyframe(self.model, self.data, home)
        else:
            mujoco.mj_resetData(self.model, self.data)

    def _after_reset(self) -> None:
        """Runs when the start is set and forwarded, before it is observed."""

    def _after_step(self, action: np.ndarray) -> None:
        """Runs after the physics of a control step, before it is observed."""

    def _advance(self, before: np.ndarray) -> None:
        """Step the physics, then bring positions up to date with the joint angles."""
        model, data, count = self.model, self.data, self._steps_per_target
        ctrl = data.ctrl
        for target in before + self._ramp * (ctrl - before):
            np.copyto(ctrl, target)
            mujoco.mj_step(model, data, count)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)

    def _check_action(self, action: Any) -> np.ndarray:
        """A private, clipped copy of the caller's action."""
        space = self.action_space
        if not isinstance(space, spaces.Box):
            return action
        given = np.array(action, dtype=space.dtype)
        if given.shape != space.shape:
            raise ValueError(f"action must have shape {space.shape}, got {given.shape}")
        if np.isnan(given).any():
            raise ValueError(f"action must not hold NaN, got {given}")
        return np.minimum(np.maximum(given, space.low), space.high)

    def _host_cameras(self) -> Any:
        """Made at the first picture: environments without pictures never load the renderer."""
        if self._cameras is None:
            from simscaleai_jax.sim.cameras import HostCameras

            self._cameras = HostCameras(self.model, self.config.renderer)
        return self._cameras

    def _find_camera(self, name: str | None) -> CameraConfig:
        if name is None:
            if self.config.cameras:
                return self.config.cameras[0]
            name = self._portrait_camera()
        for camera in self.config.cameras:
            if camera.name == name:
                return camera
        camera = CameraConfig(name=name)
        check_cameras(self.model, [camera])
        return dataclasses.replace(camera, fov=float(self.model.cam_fovy[self.model.camera(name).id]))

    def _portrait_camera(self) -> str:
        from simscaleai_jax.sim.cameras import portrait_camera

        return portrait_camera(self.model)
