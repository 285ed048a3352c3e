"""`TaskEnv`: a task on host physics behind the documented hooks; `ReachEnv` and `PickPlaceEnv` are such classes."""

import functools
import math
import pkgutil
from typing import Any, ClassVar

import jax
import numpy as np
from gymnasium import spaces

from simscaleai_jax.core.forks import check_not_forked
from simscaleai_jax.core.streams import Stream, draw_key
from simscaleai_jax.sim.base_env import BaseRobotEnv
from simscaleai_jax.sim.cameras import image_key
from simscaleai_jax.sim.config import SimConfig
from simscaleai_jax.sim.envs.host_task import HostTask, host_device
from simscaleai_jax.sim.physics.state import KINEMATICS_FIELDS
from simscaleai_jax.sim.registry import build_config, find_task
from simscaleai_jax.sim.scene import compile_scene
from simscaleai_jax.sim.tasks.snapshot import Snapshot

HOOKS = (
    "_build_observation_space",
    "_build_action_space",
    "_get_obs",
    "_get_reward",
    "_is_terminated",
    "_reset_task",
    "_apply_action",
    "_get_info",
    "_apply_domain_randomization",
)
INTERNAL_HOOKS = ("reset", "step", "_after_reset", "_after_step", "_advance")


class TaskEnv(BaseRobotEnv):
    """A registered task on MuJoCo. Observations are float32, images uint8 (H, W, 3).

    The task's pure functions run jitted on a copy of MuJoCo's data, on the CPU like MuJoCo itself: everything of an
    episode follows its key there. The hooks read what they returned.
    """

    ramp_control = True
    task_name: ClassVar[str]

    def __init__(self, config: SimConfig | None = None, render_mode: str | None = None) -> None:
        check_not_forked()
        config = build_config(config, find_task(self.task_name).config_cls, {})
        self._host: HostTask | None = None
        self._episode_key: Any = None
        self._viewed: Any = None
        self._views: list[np.ndarray] = []
        self.task_state: Any = None
        super().__init__(config, render_mode)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_viewed": None, "_views": []}  # views into this object's own MuJoCo data

    def __reduce_ex__(self, protocol: Any) -> Any:
        if type(self) is not _made_class(self.task_name):
            return super().__reduce_ex__(protocol)
        return _blank, (self.task_name,), self.__getstate__()

    def functional_env(self) -> Any:
        """The same task and config on the engine `config.impl`; None when a subclass has overridden a documented
        hook.
        """
        from simscaleai_jax.sim.factory import make_functional_env

        standard = type(self).__mro__[
            [cls.__module__.startswith("simscaleai_jax.") for cls in type(self).__mro__].index(True)
        ]
        if any(getattr(type(self), hook) is not getattr(standard, hook) for hook in (*HOOKS, *INTERNAL_HOOKS)):
            return None
        return make_functional_env(self.task_name, self.config)

    @property
    def task(self) -> Any:
        """The task, built when first needed."""
        return self._host_task.task

    @property
    def _host_task(self) -> HostTask:
        if self._host is None:
            self._host = HostTask(self.task_name, self.config, self.model)
        return self._host

    @property
    def snapshot(self) -> Snapshot:
        """What the task sees of MuJoCo's data now."""
        return self._host_task.snapshot(self._read_data(np.zeros(self.task.action_size, np.float32)))

    def _build_observation_space(self) -> spaces.Space:
        bounds = self.task.observation_bounds()
        boxes: dict[str, spaces.Space] = {
            key: spaces.Box(np.asarray(low, np.float32), np.asarray(high, np.float32), dtype=np.float32)
            for key, (low, high) in bounds.items()
        }
        for index, camera in enumerate(self.config.cameras):
            boxes[image_key(index, camera)] = spaces.Box(0, 255, (camera.height, camera.width, 3), np.uint8)
        return spaces.Dict(boxes)

    def _build_action_space(self) -> spaces.Space:
        return spaces.Box(-1.0, 1.0, (self.task.action_size,), np.float32)

    def _load_model(self) -> Any:
        return compile_scene(find_task(self.task_name), self.config)

    def _xml_path(self) -> str:
        return self.config.xml_path or find_task(self.task_name).xml_path

    def _apply_domain_randomization(self, rng: np.random.Generator) -> None:
        """Draw this episode's model fields and put them into the model; the nominal ones are kept aside."""
        from simscaleai_jax.sim.randomization import apply_to_host

        host = self._host_task
        self.overrides = host.draw(self._key(rng))
        apply_to_host(self.model, host.nominal, self.overrides)

    def _reset_task(self, rng: np.random.Generator) -> None:
        """Draw a start and a goal and put them into MuJoCo's data."""
        start, self.task_state = self._host_task.sample(self._key(rng), self.overrides)
        self.data.qpos[:], self.data.ctrl[:] = np.asarray(start.qpos), np.asarray(start.ctrl)
        self.data.qvel[:] = self.data.act[:] = self.data.time = 0.0  # whatever a keyframe says: every start is at rest
        self.data.mocap_pos[:], self.data.mocap_quat[:] = np.asarray(start.mocap_pos), np.asarray(start.mocap_quat)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode; `options={"key": key}` plays the functional environment's episode of that PRNG key."""
        self._episode_key = (options or {}).get("key")
        self.overrides = {}
        return super().reset(seed=seed, options=options)

    def _key(self, rng: np.random.Generator) -> Any:
        """The key of this episode, drawn when it is first asked for."""
        if self._episode_key is None:
            self._episode_key = draw_key(rng, Stream.ADAPTER_EPISODES)
        self._episode_key = jax.device_put(self._episode_key, host_device())
        return self._episode_key

    def _apply_action(self, action: np.ndarray) -> None:
        self.data.ctrl[:] = np.asarray(self._host_task.control(self._read_data(action), self.task_state))

    def _get_obs(self) -> dict[str, np.ndarray]:
        obs = {key: self._values[where].reshape(shape) for key, (where, shape) in self._host_task.layout["obs"].items()}
        for index, camera in enumerate(self.config.cameras):
            obs[image_key(index, camera)] = self.render_camera(camera.name)["rgb"]
        return obs

    def _get_reward(self) -> float:
        return float(sum(self.reward_terms.values()))

    def _is_terminated(self) -> bool:
        return bool(self._scalar("terminated"))

    def _get_info(self) -> dict[str, Any]:
        info = {key: read(self._values) for key, read in self._host_task.info_readers.items()}
        told = getattr(self.task, "instructions", None)
        if told is not None:
            info["instruction"] = told.sentences[int(self.task_state.sentence)]
        return {"step": self.step_count, **info}

    @property
    def reward_terms(self) -> dict[str, float]:
        """Weighted reward terms of the last step."""
        return {key: float(self._values[where][0]) for key, (where, _) in self._host_task.layout["terms"].items()}

    def _after_reset(self) -> None:
        self._evaluate(np.zeros(self.task.action_size, np.float32), self._host_task.observe_reset)

    def _after_step(self, action: np.ndarray) -> None:
        self._evaluate(action, self._host_task.observe_step)

    def _evaluate(self, action: np.ndarray, observe: Any) -> None:
        """Observe; a state that is not finite ends the episode with zero reward and a zero observation."""
        vector = self._read_data(action)
        self.task_state, values = observe(vector, self.task_state)
        self._values = np.array(values)
        if not math.isfinite(vector.sum() + self._values.sum()):
            self._values = np.zeros_like(self._values)
            self._values[self._host_task.layout["terminated"]["terminated"][0]] = 1.0

    def _scalar(self, name: str) -> float:
        where, _ = self._host_task.layout[name][name]
        return self._values[where][0]

    def _read_data(self, action: np.ndarray) -> np.ndarray:
        """MuJoCo's data, the steps left and the action in one vector."""
        if self._viewed is not self.data:  # MuJoCo's arrays stay where they are for the life of a data object
            self._viewed = self.data
            # Copied to the task in one float32 vector, because one argument is cheaper than ten.
            self._views = [getattr(self.data, field).reshape(-1) for field in KINEMATICS_FIELDS]
        left = (self.config.max_episode_steps - self.step_count,)
        return np.concatenate((*self._views, left, action), dtype=np.float32, casting="same_kind")


def task_env_class(name: str) -> type[TaskEnv]:
    """The adapter class of a task: the one that its entry names, else one made for it.

    Raises:
      ValueError: the entry names something that is no TaskEnv of this task.
    """
    adapter = find_task(name).adapter
    if not adapter:
        return _made_class(name)
    cls = pkgutil.resolve_name(adapter) if isinstance(adapter, str) else adapter
    if not (isinstance(cls, type) and issubclass(cls, TaskEnv) and getattr(cls, "task_name", None) == name):
        raise ValueError(f"adapter of task {name!r}: wanted a TaskEnv with task_name = {name!r}, got {cls!r}")
    return cls


@functools.cache
def _made_class(name: str) -> type[TaskEnv]:
    return type("TaskEnv_" + name, (TaskEnv,), {"task_name": name, "__module__": __name__})


def _blank(name: str) -> TaskEnv:
    """An environment of a class that was made for its task, still without state; pickle calls it."""
    cls = _made_class(name)
    return cls.__new__(cls)
