"""`HostTask`: a task's pure functions, jitted for MuJoCo's own data; copies of an environment share it."""

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from simscaleai_jax.core import compile_cache
from simscaleai_jax.core.jax_settings import GENERATOR
from simscaleai_jax.sim.config import SimConfig
from simscaleai_jax.sim.physics.state import KINEMATICS_FIELDS, Kinematics
from simscaleai_jax.sim.registry import find_task
from simscaleai_jax.sim.robot.feasibility import check_randomization
from simscaleai_jax.sim.scene import describe
from simscaleai_jax.sim.tasks.snapshot import make_snapshot


class HostTask:
    """A task, the model it is nominally played in, and its functions on one vector of host data.

    The vector holds `KINEMATICS_FIELDS` of MuJoCo's data, the steps left and the action. Nothing here ever changes: a
    deep copy is the same object, and where it is unpickled it is built and compiled anew, from the task's name.

    Attributes:
      draw: (key) -> overrides of the model.
      sample: (key, overrides) -> (Start, task_state).
      snapshot: (vector) -> Snapshot.
      control: (vector, task_state) -> actuator targets.
      observe_reset: (vector, task_state) -> (task_state, values); `layout` says where each value lies.
      observe_step: the same after the physics of a control step, with the task state's update.
    """

    def __init__(self, name: str, config: SimConfig, model: mujoco.MjModel) -> None:
        compile_cache.enable()
        entry = find_task(name)
        self._made_of = name, config.copy()
        self.nominal = copy.copy(model)
        robot = describe(self.nominal, entry, config)
        self.task = entry.make_task(robot, config.task)
        if config.domain_randomization:
            check_randomization(self.task, config.randomization)
        data = mujoco.MjData(model)
        self._shapes = {field: np.shape(getattr(data, field)) for field in KINEMATICS_FIELDS}
        self.draw, self.sample = jax.jit(self._draw), jax.jit(self._sample)
        self.snapshot = jax.jit(lambda vector: self._unpack(vector)[0])
        self.control = jax.jit(self._control, keep_unused=True)  # the task state says on which device, used or not
        self.observe_reset, self.observe_step = jax.jit(self._observe_reset), jax.jit(self._observe_step)
        size = sum(int(np.prod(shape)) for shape in self._shapes.values()) + 1 + self.task.action_size
        self.layout, self.info_readers = unpacking(
            self._observed, np.zeros(size, np.float32), jax.random.key(0, impl=GENERATOR)
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "HostTask":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return HostTask, (*self._made_of, self.nominal)

    # The episode's key is split as in the functional environment, which therefore draws the same episode from it.
    def _draw(self, key: jax.Array) -> dict[str, jax.Array]:
        config = self._made_of[1]
        if not config.domain_randomization:
            return {}
        from simscaleai_jax.sim.randomization import draw

        return draw(jax.random.split(key)[0], config.randomization, self.nominal)

    def _sample(self, key: jax.Array, overrides: dict[str, jax.Array]) -> tuple[Any, Any]:
        return self.task.sample(jax.random.split(key)[1], overrides)

    def _control(self, vector: jax.Array, task_state: Any) -> jax.Array:
        snapshot, _, action = self._unpack(vector)
        return self.task.control(snapshot, task_state, action)

    def _observe_reset(self, vector: jax.Array, task_state: Any) -> tuple[Any, jax.Array]:
        return task_state, _pack(self._observe(*self._unpack(vector), task_state))

    def _observe_step(self, vector: jax.Array, task_state: Any) -> tuple[Any, jax.Array]:
        snapshot, left, action = self._unpack(vector)
        task_state = self.task.update(snapshot, task_state, action)
        return task_state, _pack(self._observe(snapshot, left, action, task_state))

    def _unpack(self, vector: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
        fields, offset = {}, 0
        for field, shape in self._shapes.items():
            size = int(np.prod(shape))
            fields[field] = vector[offset : offset + size].reshape(shape)
            offset += size
        snapshot = make_snapshot(self.task.robot, Kinematics(**fields))
        return snapshot, vector[offset].astype(jnp.int32), vector[offset + 1 :]

    def _observe(self, snapshot: Any, left: jax.Array, action: jax.Array, task_state: Any) -> dict[str, dict[str, Any]]:
        task = self.task
        return {
            "obs": task.observe(snapshot, task_state),
            "terms": task.reward_terms(snapshot, task_state, action, left),
            "terminated": {"terminated": task.terminated(snapshot, task_state)},
            "info": task.info(snapshot, task_state),
        }

    def _observed(self, vector: jax.Array, key: jax.Array) -> dict[str, dict[str, Any]]:
        return self._observe(*self._unpack(vector), self._sample(key, self._draw(key))[1])


def host_device() -> Any:
    """The CPU; None, which is JAX's default device, where this process keeps JAX from it."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def _pack(tree: dict[str, dict[str, Any]]) -> jax.Array:
    """All values in one float32 vector, in the order of `unpacking` (pytrees sort their keys); integers up to 2^24."""
    return jnp.concatenate([jnp.ravel(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(tree)])


def unpacking(
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
