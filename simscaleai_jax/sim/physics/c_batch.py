"""MuJoCo's own engine ("c"): many simulations of one scene on a pool of C++ threads, as pure functions under `jit`.

`step` and `kinematics` call back to the host, once for a whole batch however it is vmapped. Between calls nothing is
remembered: each call writes the states and model fields it is given into a `mujoco.batch.Batch` of that size and reads
the result, so that an environment's numbers do not depend on its neighbours, on threads or on devices.

On a CPU the callback works on XLA's own buffers. JAX must not be called inside it, not even to make an array of an
argument: its thread may be the one that would have to serve the call.
"""

import contextlib
import copy
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jax.experimental.buffer_callback import buffer_callback
from jaxtyping import Array, Bool, Float
from mujoco.batch import Batch, SimulationError

from simscaleai_jax.sim.physics.host import end_at_divergence, num_threads, silence_log
from simscaleai_jax.sim.physics.state import (
    POSE_FIELDS,
    STATE_FIELDS,
    Kinematics,
    PhysicsState,
    at_rest,
    check_state,
    ramp,
)
from simscaleai_jax.sim.randomization import MODEL_INPUTS
from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.tasks.base import Start

MOVES = ("time", "qpos", "qvel", "act", "qacc_warmstart")  # what a step changes of a state
READ = (*POSE_FIELDS, "sensordata")  # what is read off the scene afterwards
IDLE_POOLS = 64  # batches kept for the next call of their size
POSITIONS = int(mujoco.mjtStage.mjSTAGE_POS)

Arrays = dict[str, np.ndarray]


class PhysicsError(RuntimeError):
    """MuJoCo refused to go on."""


class BatchPhysics:
    """One scene on MuJoCo's C engine; see `Physics` for what each function means."""

    impl = "c"

    def __init__(self, model: mujoco.MjModel, robot: Robot, substeps: int, ramp_steps: int) -> None:
        check_state(model)
        silence_log()
        self.host_model = model
        self.robot = robot
        self._steps_per_target = substeps // ramp_steps
        self.early_shares = np.repeat(ramp(ramp_steps)[:-1], self._steps_per_target)  # one for each physics step
        self._pools = Pools(model)
        data = mujoco.MjData(model)
        self._shapes = {name: np.shape(getattr(data, name)) for name in (*MOVES, *READ)}

    def reset(self, start: Start) -> PhysicsState:
        return at_rest(self.host_model, start)

    def kinematics(self, state: PhysicsState) -> Kinematics:
        out = self._call(self._locate, POSE_FIELDS, _fields(state))
        return self._kinematics(state, out)

    def step(
        self, state: PhysicsState, ctrl: Float[Array, "U"], overrides: dict[str, Array]
    ) -> tuple[PhysicsState, Kinematics, Bool[Array, ""]]:
        model_fields = {name: overrides[name] for name in MODEL_INPUTS if name in overrides and overrides[name].size}
        out = self._call(self._advance, (*MOVES, *READ), _fields(state), ctrl, model_fields)
        after = state.replace(ctrl=ctrl, **{name: out[name] for name in MOVES})
        return after, self._kinematics(after, out), jnp.zeros((), bool)  # MuJoCo's own buffers grow

    def _kinematics(self, state: PhysicsState, out: dict[str, Array]) -> Kinematics:
        sensordata = out.get("sensordata", jnp.zeros(self._shapes["sensordata"], jnp.float32))
        poses = {name: out[name] for name in POSE_FIELDS}
        return Kinematics(qpos=state.qpos, qvel=state.qvel, ctrl=state.ctrl, sensordata=sensordata, **poses)

    def _call(self, function: Callable[..., None], names: tuple[str, ...], *args: Any) -> dict[str, Array]:
        """Results `names` of a host function, whose arguments are dicts of arrays that lead with the batch."""
        shapes = {name: self._shapes[name] for name in names}
        wanted = {name: shape for name, shape in shapes.items() if math.prod(shape)}
        out = call_host(function, {name: (shape, np.float32) for name, shape in wanted.items()}, *args)
        return out | {name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items() if name not in wanted}

    def _locate(self, out: Arrays, state: Arrays) -> None:
        with self._pools.lend(len(state["time"]), ()) as pool:
            pool.write(state)
            pool.run(lambda batch: batch.forward(stage=POSITIONS))
            pool.read(out)

    def _advance(self, out: Arrays, state: Arrays, ctrl: np.ndarray, model_fields: Arrays) -> None:
        with self._pools.lend(len(ctrl), tuple(model_fields)) as pool:
            pool.write(state)
            pool.randomize(model_fields)
            before = state["ctrl"].astype(np.float64)
            path = before[:, None] + self.early_shares[:, None] * (ctrl - before)[:, None]
            if path.size:
                pool.run(lambda batch: batch.rollout(path.shape[1], path, record=()))
            pool.write({"ctrl": ctrl})
            pool.run(lambda batch: batch.step(nstep=self._steps_per_target, stage=POSITIONS))
            pool.read(out)


def _fields(state: PhysicsState) -> dict[str, Array]:
    """The fields of a state that hold numbers; a callback takes no empty arrays."""
    fields = {name: getattr(state, name) for name in STATE_FIELDS}
    return {name: value for name, value in fields.items() if jnp.size(value)}


def call_host(function: Callable[..., None], results: dict[str, tuple[tuple[int, ...], Any]], *args: Any) -> Any:
    """A host function as a JAX operation that `vmap` turns into one call for the whole batch.

    Args:
      function: `function(out, *args)`; it fills the arrays of `out` and keeps none of them. All arrays, those of `args`
        too, lead with one axis, the flattened batch.
      results: unbatched shape and dtype of each array of `out`.
      args: pytrees of unbatched arrays.
    """
    shapes = {name: jax.ShapeDtypeStruct(*result) for name, result in results.items()}
    first, result = next(iter(results)), next(iter(results.values()))

    def flat(tree: Any, axes: int) -> Any:
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[axes:]), tree)

    def on_buffers(context: Any, out: Any, *args: Any) -> None:
        out, args = jax.tree.map(np.asarray, (out, args))
        axes = out[first].ndim - len(result[0])
        function(flat(out, axes), *flat(args, axes))

    def on_copies(*args: Any) -> Arrays:
        args = jax.tree.map(np.asarray, args)
        leaves = jax.tree.leaves(args)
        batch = np.shape(leaves[0])[: np.ndim(leaves[0]) - unbatched]
        out = {name: np.empty((*batch, *shape), dtype) for name, (shape, dtype) in results.items()}
        function(flat(out, len(batch)), *flat(args, len(batch)))
        return out

    unbatched = np.ndim(jax.tree.leaves(args)[0])
    if jax.default_backend() == "cpu":
        out = buffer_callback(on_buffers, shapes, vmap_method="broadcast_all")(*args)
    else:
        out = jax.pure_callback(on_copies, shapes, *args, vmap_method="broadcast_all")
    return _vary_like(out, args)


def _vary_like(out: Any, args: Any) -> Any:
    """Inside `shard_map`, results that differ between the devices over which the arguments do."""
    axes = frozenset().union(*map(_varying_axes, jax.tree.leaves(args)))
    return jax.tree.map(lambda leaf: jax.lax.pcast(leaf, tuple(sorted(axes)), to="varying"), out) if axes else out


def _varying_axes(leaf: Array) -> frozenset[str]:
    kind = jax.typeof(leaf)
    return frozenset(kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma)


class Pool:
    """A batch of simulations of one size, which one caller at a time may use."""

    def __init__(self, model: mujoco.MjModel, count: int, threads: int, model_fields: tuple[str, ...]) -> None:
        self.batch = Batch(model, count, nthread=min(count, threads))
        self._arrays = {name: self.batch.bind(name) for name in (*STATE_FIELDS, *READ)}  # live
        self._fields = {name: self.batch.expand(MODEL_INPUTS[name]) for name in model_fields}
        self._written = {name: np.full((count, field[0].size), np.nan) for name, field in self._fields.items()}

    def write(self, state: Arrays) -> None:
        """Take over states, (N, ...) each."""
        for name, values in state.items():
            self._arrays[name][...] = values

    def randomize(self, model_fields: Arrays) -> None:
        """Give each simulation its own model; what derives from the fields is computed where one has changed."""
        count = self.batch.nsim
        changed = np.zeros(count, bool)
        for name, values in model_fields.items():
            values = values.reshape(count, -1)
            changed |= (self._written[name] != values).any(axis=1)
        rows = np.flatnonzero(changed)
        if not rows.size:
            return
        for name, values in model_fields.items():
            self._fields[name][rows] = values[rows].reshape(self._fields[name][rows].shape)
            self._written[name][rows] = values.reshape(count, -1)[rows]
        self.run(lambda batch: batch.set_const(rows))

    def run(self, function: Callable[[Batch], Any]) -> None:
        """Have MuJoCo work; PhysicsError names the environment where it raised."""
        try:
            function(self.batch)
        except SimulationError as error:
            first = int(error.ids[0])
            more = f" and {len(error.ids) - 1} more" if len(error.ids) > 1 else ""
            raise PhysicsError(
                f"MuJoCo stopped in environment {first}{more} of a batch of {self.batch.nsim} (counted on its device): "
                f"{self.batch.error(first)}"
            ) from None

    def read(self, out: Arrays) -> None:
        """Copy results into arrays (N, ...)."""
        for name, array in out.items():
            array[...] = self._arrays[name].reshape(array.shape)


class Pools:
    """Batches of any size, each lent to one caller at a time: callbacks of several devices come on several threads."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = copy.copy(model)
        end_at_divergence(self._model)
        self._threads = num_threads()
        self._idle: list[tuple[tuple, Pool]] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lend(self, count: int, model_fields: tuple[str, ...]) -> Iterator[Pool]:
        """A pool of `count` simulations, each of which has `model_fields` of its own."""
        kind = (count, model_fields)
        pool = self._take(kind) or Pool(self._model, count, self._threads, model_fields)
        yield pool  # one that has failed does not come back
        with self._lock:
            self._idle.append((kind, pool))
            del self._idle[:-IDLE_POOLS]

    def _take(self, kind: tuple) -> Pool | None:
        with self._lock:
            for index, (idle_kind, pool) in reversed(list(enumerate(self._idle))):
                if idle_kind == kind:
                    del self._idle[index]
                    return pool
        return None

    def __reduce__(self) -> Any:
        return Pools, (self._model,)  # a copy has simulations of its own
