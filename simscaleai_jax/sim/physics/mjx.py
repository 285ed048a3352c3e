"""MJX physics, in XLA ("jax") or on MuJoCo Warp ("warp")."""

import contextlib
import functools
import io
import math
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Bool, Float

from simscaleai_jax.core.batch_last import on_lanes
from simscaleai_jax.core.precision import full_precision
from simscaleai_jax.sim.physics import buffers
from simscaleai_jax.sim.physics.state import (
    KINEMATICS_FIELDS,
    STATE_FIELDS,
    Kinematics,
    PhysicsState,
    at_rest,
    check_state,
    ramp,
)
from simscaleai_jax.sim.physics.support import check_supported
from simscaleai_jax.sim.randomization import apply_to_mjx
from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.tasks.base import Start

with contextlib.redirect_stdout(io.StringIO()):  # mjx prints two lines when the optional warp is absent
    from mujoco import mjx


class MjxPhysics:
    """One scene on an MJX implementation ("jax" or "warp"); see `Physics` for what each function means."""

    def __init__(self, model: mujoco.MjModel, robot: Robot, substeps: int, impl: str, ramp_steps: int) -> None:
        check_state(model)
        self.host_model = model
        self.robot = robot
        self.ramp = np.repeat(ramp(ramp_steps), substeps // ramp_steps)
        self.impl = impl
        if impl == "warp" and jax.default_backend() == "cpu":
            _compile_lightly()
        check_supported(model, impl)
        self.model: Any = mjx.put_model(model, own_device(), impl=impl)
        if impl == "warp":
            self._capacity = buffers.warp_capacity(model)
            self._lost_bits = buffers.lost_bits()
            # Solvers stop early on purpose here; only lost contacts and constraints are worth a line on stdout.
            self.model = self.model.tree_replace({"opt._impl.warn_overflow": self._lost_bits})
        else:
            buffers.check_pair_limit(model)

    def reset(self, start: Start) -> PhysicsState:
        return at_rest(self.host_model, start)

    @full_precision
    def kinematics(self, state: PhysicsState) -> Kinematics:
        data = mjx.kinematics(self.model, self._data(state, worlds=1))
        return self._read(data).replace(sensordata=jnp.zeros_like(data.sensordata))

    def step(
        self, state: PhysicsState, ctrl: Float[Array, "U"], overrides: dict[str, Array]
    ) -> tuple[PhysicsState, Kinematics, Bool[Array, ""]]:
        if self.impl == "warp":
            return self._sized(())(state, ctrl, overrides)
        return on_lanes(functools.partial(self._advance, worlds=1))(state, ctrl, overrides)

    def _sized(self, batch: tuple[int, ...]) -> Any:
        """`step` over leading axes `batch`, that learns of every further `vmap`: warp's worlds share one list of
        contacts, whose length must be known before the batch is.
        """
        worlds = math.prod(batch)

        def plain(*args):
            function = functools.partial(self._advance, worlds=worlds)
            for _ in batch:
                function = jax.vmap(function)
            return function(*args)

        sized = jax.custom_batching.custom_vmap(plain)

        @sized.def_vmap
        def batched(axis_size, is_batched, *args):
            spread = jax.tree.map(
                lambda leaf, has_axis: leaf if has_axis else jnp.broadcast_to(leaf, (axis_size, *jnp.shape(leaf))),
                args, tuple(is_batched),
            )  # fmt: skip
            out = self._sized((axis_size, *batch))(*spread)
            return out, jax.tree.map(lambda leaf: True, out)

        return sized

    @full_precision
    def _advance(
        self, state: PhysicsState, ctrl: Float[Array, "U"], overrides: dict[str, Array], worlds: int
    ) -> tuple[PhysicsState, Kinematics, Bool[Array, ""]]:
        model = apply_to_mjx(self.model, overrides) if overrides else self.model

        def substep(data, share):
            data = mjx.step(model, data.replace(ctrl=state.ctrl + share * (ctrl - state.ctrl)))
            return data, self._has_overflowed(data)

        data, overflows = jax.lax.scan(substep, self._data(state, worlds), jnp.asarray(self.ramp, jnp.float32))
        after = PhysicsState(**{name: getattr(data, name) for name in STATE_FIELDS}).replace(ctrl=ctrl)
        data = mjx.kinematics(model, data.replace(ctrl=ctrl))
        return after, self._read(data), jnp.any(overflows)

    def _has_overflowed(self, data: Any) -> Bool[Array, ""]:
        if self.impl == "warp":
            return (data._impl.overflow & self._lost_bits) != 0
        return buffers.is_jax_buffer_full(self.host_model, data)

    def _data(self, state: PhysicsState, worlds: int) -> Any:
        """MJX data of one world; under warp its contact list has room for `worlds` of them."""
        if self.impl == "warp":
            contacts, rows = self._capacity
            data = mjx.make_data(self.host_model, own_device(), impl="warp", naconmax=contacts * worlds, njmax=rows)
        else:
            data = mjx.make_data(self.host_model, own_device(), impl=self.impl)
        return data.replace(**{name: getattr(state, name) for name in STATE_FIELDS})

    def _read(self, data: Any) -> Kinematics:
        values = {name: getattr(data, name) for name in KINEMATICS_FIELDS}
        flat = {name: values[name].reshape(-1, 9) for name in ("xmat", "site_xmat")}
        return Kinematics(**{**values, **flat})


def own_device() -> Any:
    """In a run over several processes a device of this one, where MJX would take the first of all; otherwise None."""
    return jax.local_devices()[0] if jax.process_count() > 1 else None


def _compile_lightly() -> None:
    """Has warp compile for a CPU without its raised inlining limits, under which a collision kernel takes hours."""
    import warp

    warp.config.cpu_compiler_flags = "-march=native"
    warp.config.optimization_level = 1
