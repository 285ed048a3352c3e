"""`TaskEnv`: a task on host physics behind the documented hooks; `ReachEnv` and `PickPlaceEnv` are such classes."""

import copy
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from simscaleai_jax.core import compile_cache
from simscaleai_jax.core.streams import Stream, draw_key
from simscaleai_jax.sim.base_env import BaseRobotEnv
from simscaleai_jax.sim.cameras import image_key
from simscaleai_jax.sim.config import SimConfig
from simscaleai_jax.sim.physics.state import KINEMATICS_FIELDS, Kinematics
from simscaleai_jax.sim.registry import build_config, find_task
from simscaleai_jax.sim.robot import find_robot
from simscaleai_jax.sim.robot.feasibility import check_randomization
from simscaleai_jax.sim.tasks.snapshot import make_snapshot

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
        entry = find_task(self.task_name)
        config = build_config(config, entry.config_cls, {})
        self._entry = entry
        self._task: Any = None
        self._viewed: Any = None
        self.task_state: Any = None
        super().__init__(config, render_mode)

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
        if self._task is None:
            self._nominal = copy.copy(self.model)
            robot = find_robot(self._nominal, self._entry.has_object)
            self._task = self._entry.make_task(robot, self.config.task)
            if self.config.domain_randomization:
                check_randomization(self._task, self.config.randomization)
            self._compile()
        return self._task

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

    def _xml_path(self) -> str:
        return self.config.xml_path or self._entry.xml_path

    def _apply_domain_randomization(self, rng: np.random.Generator) -> None:
        """Draw this episode's model fields and put them into the model; the nominal ones are kept aside."""
        from simscaleai_jax.sim.randomization import apply_to_host

        self.overrides = self._draw_overrides(self._key(rng))
        apply_to_host(self.model, self._nominal, self.overrides)

    def _reset_task(self, rng: np.random.Generator) -> None:
        """Draw a start and a goal and put them into MuJoCo's data."""
        start, self.task_state = self._sample(self._key(rng), self.overrides)
        self.data.qpos[:], self.data.ctrl[:] = np.asarray(start.qpos), np.asarray(start.ctrl)
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
        self._episode_key = jax.device_put(self._episode_key, _host_device())
        return self._episode_key

    def _apply_action(self, action: np.ndarray) -> None:
        self.data.ctrl[:] = np.asarray(self._control(self._read_data(action), self.task_state))

    def _get_obs(self) -> dict[str, np.ndarray]:
        obs = {key: self._values[where].reshape(shape) for key, (where, shape) in self._layout["obs"].items()}
        for index, camera in enumerate(self.config.cameras):
            obs[image_key(index, camera)] = self.render_camera(camera.name)["rgb"]
        return obs

    def _get_reward(self) -> float:
        return float(sum(self.reward_terms.values()))

    def _is_terminated(self) -> bool:
        return bool(self._scalar("terminated"))

    def _get_info(self) -> dict[str, Any]:
        return {"step": self.step_count, **{key: read(self._values) for key, read in self._info_readers.items()}}

    @property
    def reward_terms(self) -> dict[str, float]:
        """Weighted reward terms of the last step."""
        return {key: float(self._values[where][0]) for key, (where, _) in self._layout["terms"].items()}

    def _after_reset(self) -> None:
        self._evaluate(np.zeros(self.task.action_size, np.float32), self._observe_reset)

    def _after_step(self, action: np.ndarray) -> None:
        self._evaluate(action, self._observe_step)

    def _evaluate(self, action: np.ndarray, observe: Any) -> None:
        """Observe; a state that is not finite ends the episode with zero reward and a zero observation."""
        vector = self._read_data(action)
        self.task_state, values = observe(vector, self.task_state)
        self._values = np.array(values)
        if not math.isfinite(vector.sum() + self._values.sum()):
            self._values = np.zeros_like(self._values)
            self._values[self._layout["terminated"]["terminated"][0]] = 1.0

    def _scalar(self, name: str) -> float:
        where, _ = self._layout[name][name]
        return self._values[where][0]

    def _read_data(self, action: np.ndarray) -> np.ndarray:
        """MuJoCo's data, the steps left and the action in one vector."""
        if self._viewed is not self.data:  # MuJoCo's arrays stay where they are for the life of a data object
            self._viewed = self.data
            # Copied to the task in one float32 vector, because one argument is cheaper than ten.
            self._views = [getattr(self.data, field).reshape(-1) for field in KINEMATICS_FIELDS]
        left = (self.config.max_episode_steps - self.step_count,)
        return np.concatenate((*self._views, left, action), dtype=np.float32, casting="same_kind")

    def _compile(self) -> None:
        """Wrap the task's functions for host data; compilation itself waits for the first call."""
        compile_cache.enable()
        task, robot = self._task, self._task.robot
        shapes = {field: np.shape(getattr(self.data, field)) for field in KINEMATICS_FIELDS}

        def unpack(vector):
            fields, offset = {}, 0
            for field, shape in shapes.items():
                size = int(np.prod(shape))
                fields[field] = vector[offset : offset + size].reshape(shape)
                offset += size
            left, action = vector[offset], vector[offset + 1 :]
            return make_snapshot(robot, Kinematics(**fields)), left.astype(jnp.int32), action

        def observe(snapshot, task_state, left, action):
            return {
                "obs": task.observe(snapshot, task_state),
                "terms": task.reward_terms(snapshot, task_state, action, left),
                "terminated": {"terminated": task.terminated(snapshot, task_state)},
                "info": task.info(snapshot, task_state),
            }

        def control(vector, task_state):
            snapshot, _, action = unpack(vector)
            return task.control(snapshot, task_state, action)

        def observe_reset(vector, task_state):
            snapshot, *rest = unpack(vector)
            return task_state, _pack(observe(snapshot, task_state, *rest))

        def observe_step(vector, task_state):
            snapshot, left, action = unpack(vector)
            task_state = task.update(snapshot, task_state, action)
            return task_state, _pack(observe(snapshot, task_state, left, action))

        # The episode's key is split as in the functional environment, which therefore draws the same episode from it.
        def draw(key):
            if not self.config.domain_randomization:
                return {}
            from simscaleai_jax.sim.randomization import draw as draw_overrides

            return draw_overrides(jax.random.split(key)[0], self.config.randomization, self._nominal)

        def sample(key, overrides):
            return task.sample(jax.random.split(key)[1], overrides)

        def shapes_of(vector, key):
            snapshot, *rest = unpack(vector)
            return observe(snapshot, sample(key, draw(key))[1], *rest)

        self._episode_key = None
        self._draw_overrides, self._sample = jax.jit(draw), jax.jit(sample)
        self._control = jax.jit(control, keep_unused=True)  # the task state says on which device, used or not
        self._observe_reset, self._observe_step = jax.jit(observe_reset), jax.jit(observe_step)
        vector = self._read_data(np.zeros(task.action_size, np.float32))
        self._layout, self._info_readers = _unpacking(shapes_of, vector, jax.random.key(0))


def _host_device() -> Any:
    """The CPU; None, which is JAX's default device, where this process keeps JAX from it."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def _pack(tree: dict[str, dict[str, Any]]) -> jax.Array:
    """All values in one float32 vector, in the order of `_unpacking` (pytrees sort their keys); integers up to 2^24."""
    return jnp.concatenate([jnp.ravel(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(tree)])


def _unpacking(
    function: Any, *args: Any
) -> tuple[dict[str, dict[str, tuple[slice, tuple]]], dict[str, Callable[[np.ndarray], Any]]]:
    """Where each value of `_pack(function(*args))` lies, and how each info key is read from it."""
    layout: dict[str, dict[str, tuple[slice, tuple]]] = {}
    readers: dict[str, Callable[[np.ndarray], Any]] = {}
    offset = 0
    for name, group in jax.eval_shape(function, *args).items():
        layout[name] = {}
        for key, leaf in group.items():
            where = slice(offset, offset + int(np.prod(leaf.shape)))
            layout[name][key] = (where, leaf.shape)
            if name == "info":
                readers[key] = _reader(where, leaf)
            offset = where.stop
    return layout, readers


def _reader(where: slice, leaf: jax.ShapeDtypeStruct) -> Callable[[np.ndarray], Any]:
    """Reads one value as it was before it was packed: a Python bool, int or float, or an array."""
    if leaf.shape:
        return lambda values: values[where].reshape(leaf.shape).astype(leaf.dtype)
    index = where.start
    kind = bool if leaf.dtype == np.bool_ else int if jnp.issubdtype(leaf.dtype, jnp.integer) else float
    return lambda values: kind(values[index])


def task_env_class(name: str) -> type[TaskEnv]:
    """The adapter class of a task: the documented one of a built-in task, else one made for it."""
    if name == "reach":
        from simscaleai_jax.sim.envs.reach_env import ReachEnv

        return ReachEnv
    if name == "pick_place":
        from simscaleai_jax.sim.envs.pick_place_env import PickPlaceEnv

        return PickPlaceEnv
    return type("TaskEnv_" + name, (TaskEnv,), {"task_name": name})
