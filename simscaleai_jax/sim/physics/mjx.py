"""MJX physics: a slim state in, one control step, a slim state and a snapshot out; pure, unbatched, ready for `vmap`.

Between control steps only what MuJoCo needs to go on is kept (`PhysicsState`, about 60 floats); MJX's own Data, a
thousand times that, lives inside the step and never in a training loop's carry.
"""

import contextlib
import functools
import io
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float

from simscaleai_jax.sim.physics import buffers
from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.tasks.base import Start
from simscaleai_jax.sim.tasks.snapshot import Snapshot, make_snapshot

with contextlib.redirect_stdout(io.StringIO()):  # mjx prints two lines when the optional warp is absent
    from mujoco import mjx


@struct.dataclass
class PhysicsState:
    """What MuJoCo carries from one control step to the next."""

    qpos: Float[Array, "*B nq"]  # m, rad, quaternions wxyz
    qvel: Float[Array, "*B nv"]  # m/s, rad/s
    ctrl: Float[Array, "*B U"]  # actuator targets reached at the end of the last step
    qacc_warmstart: Float[Array, "*B nv"]  # the solver's first guess
    mocap_pos: Float[Array, "*B M 3"]  # m
    mocap_quat: Float[Array, "*B M 4"]


def full_precision(function: Callable) -> Callable:
    """Decorator: matrix products in whole float32, where a GPU or TPU would take fewer bits."""

    @functools.wraps(function)
    def precise(*args, **kwargs):
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return precise


class MjxPhysics:
    """One scene on an MJX implementation ("jax" or "warp")."""

    def __init__(self, model: mujoco.MjModel, robot: Robot, substeps: int, impl: str, ramp_steps: int) -> None:
        self.host_model = model
        self.robot = robot
        self.ramp = np.repeat(np.linspace(1.0 / ramp_steps, 1.0, ramp_steps), substeps // ramp_steps)
        self.impl = impl
        if impl == "warp" and jax.default_backend() == "cpu":
            _compile_lightly()
        self.model: Any = mjx.put_model(model, own_device(), impl=impl)
        if impl == "warp":
            self._capacity = buffers.warp_capacity(model)
            self._lost_bits = buffers.lost_bits()
            # Solvers stop early on purpose here; only lost contacts and constraints are worth a line on stdout.
            self.model = self.model.tree_replace({"opt._impl.warn_overflow": self._lost_bits})
        else:
            buffers.check_pair_limit(model)

    def reset(self, start: Start) -> PhysicsState:
        """State at rest."""
        zeros = jnp.zeros(self.host_model.nv, jnp.float32)
        return PhysicsState(start.qpos, zeros, start.ctrl, zeros, start.mocap_pos, start.mocap_quat)

    @full_precision
    def snapshot(self, state: PhysicsState) -> Snapshot:
        """Kinematics only: touch reads zero."""
        return make_snapshot(self.robot, self.kinematics(state))

    def kinematics(self, state: PhysicsState) -> Any:
        """MJX data with the poses of bodies, geoms, sites and joints that belong to `state`."""
        return mjx.kinematics(self.model, self._data(state, worlds=1))

    def step(
        self, state: PhysicsState, ctrl: Float[Array, "U"], overrides: dict[str, Array]
    ) -> tuple[PhysicsState, Snapshot, Bool[Array, ""]]:
        """Advance one control step, moving the targets to `ctrl` in equal steps.

        Args:
          state: where to start.
          ctrl: actuator targets at the end of the step.
          overrides: model fields of this one environment, {} for the nominal model.

        Returns:
          The new state, its snapshot, and whether a full buffer may have cost contacts or constraints.
        """
        if self.impl == "warp":
            return self._sized(())(state, ctrl, overrides)
        return self._advance(state, ctrl, overrides, worlds=1)

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
    ) -> tuple[PhysicsState, Snapshot, Bool[Array, ""]]:
        model = self._override(overrides)

        def substep(data, share):
            data = mjx.step(model, data.replace(ctrl=state.ctrl + share * (ctrl - state.ctrl)))
            return data, self._has_overflowed(data)

        data, overflows = jax.lax.scan(substep, self._data(state, worlds), jnp.asarray(self.ramp, jnp.float32))
        after = PhysicsState(data.qpos, data.qvel, ctrl, data.qacc_warmstart, state.mocap_pos, state.mocap_quat)
        data = mjx.kinematics(model, data.replace(ctrl=ctrl))
        return after, make_snapshot(self.robot, data), jnp.any(overflows)

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
        fields = {field: getattr(state, field) for field in PhysicsState.__dataclass_fields__}
        return data.replace(**fields)

    def _override(self, overrides: dict[str, Array]) -> Any:
        if not overrides:
            return self.model
        from simscaleai_jax.sim.randomization import apply_to_mjx

        return apply_to_mjx(self.model, overrides)


def own_device() -> Any:
    """In a run over several processes a device of this one, where MJX would take the first of all; otherwise None."""
    return jax.local_devices()[0] if jax.process_count() > 1 else None


def choose_impl(impl: str) -> str:
    """Resolve "auto" and check that the implementation can run here.

    Raises:
      ValueError: "c" (host physics has no functional environment), or "warp" without the warp extra.
    """
    if impl == "c":
        raise ValueError(
            "impl='c' is host physics, for gymnasium adapters; a functional environment takes 'jax' or 'warp'"
        )
    has_warp = _has_warp()
    if impl == "auto":
        on_nvidia = jax.default_backend() == "gpu" and "nvidia" in jax.devices()[0].device_kind.lower()
        return "warp" if has_warp and on_nvidia else "jax"
    if impl == "warp" and not has_warp:
        raise ValueError("impl='warp' needs warp-lang: pip install 'simscaleai-jax[warp]'")
    return impl


def _compile_lightly() -> None:
    """Has warp compile for a CPU without its raised inlining limits, under which a collision kernel takes hours."""
    import warp

    warp.config.cpu_compiler_flags = "-march=native"
    warp.config.optimization_level = 1


def _has_warp() -> bool:
    import importlib.util

    return importlib.util.find_spec("warp") is not None
