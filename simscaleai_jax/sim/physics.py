"""MJX physics: a slim state in, one control step, a slim state and a snapshot out; pure, unbatched, ready for `vmap`.

Between control steps only what MuJoCo needs to go on is kept (`PhysicsState`, about 60 floats); MJX's own Data, a
thousand times that, lives inside the step and never in a training loop's carry.
"""

import contextlib
import io
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
from flax import struct
from jaxtyping import Array, Float

from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.snapshot import Snapshot, make_snapshot
from simscaleai_jax.sim.task import Start

with contextlib.redirect_stdout(io.StringIO()):  # mjx prints two lines when the optional warp is absent
    from mujoco import mjx

WARP_CONTACTS_PER_WORLD = 24  # room for every contact point that the explicit pairs of our scenes can make
WARP_CONSTRAINTS_PER_WORLD = 128


@struct.dataclass
class PhysicsState:
    """What MuJoCo carries from one control step to the next."""

    qpos: Float[Array, "*B nq"]  # m, rad, quaternions wxyz
    qvel: Float[Array, "*B nv"]  # m/s, rad/s
    ctrl: Float[Array, "*B U"]  # actuator targets reached at the end of the last step
    qacc_warmstart: Float[Array, "*B nv"]  # the solver's first guess
    mocap_pos: Float[Array, "*B M 3"]  # m
    mocap_quat: Float[Array, "*B M 4"]


class MjxPhysics:
    """One scene on an MJX implementation ("jax" or "warp")."""

    def __init__(self, model: mujoco.MjModel, robot: Robot, substeps: int, impl: str) -> None:
        self.host_model = model
        self.robot = robot
        self.substeps = substeps
        self.impl = impl
        self.model = mjx.put_model(model, own_device(), impl=impl)

    def reset(self, start: Start) -> PhysicsState:
        """State at rest."""
        zeros = jnp.zeros(self.host_model.nv, jnp.float32)
        return PhysicsState(start.qpos, zeros, start.ctrl, zeros, start.mocap_pos, start.mocap_quat)

    def snapshot(self, state: PhysicsState) -> Snapshot:
        """Kinematics only: touch reads zero."""
        with jax.default_matmul_precision("highest"):
            return make_snapshot(self.robot, self.kinematics(state))

    def kinematics(self, state: PhysicsState) -> Any:
        """MJX data with the poses of bodies, geoms, sites and joints that belong to `state`."""
        return mjx.kinematics(self.model, self._data(state))

    def step(
        self, state: PhysicsState, ctrl: Float[Array, "U"], overrides: dict[str, Array]
    ) -> tuple[PhysicsState, Snapshot]:
        """Advance one control step, ramping the targets linearly to `ctrl` over the substeps.

        Args:
          state: where to start.
          ctrl: actuator targets at the end of the step.
          overrides: model fields of this one environment, {} for the nominal model.
        """
        with jax.default_matmul_precision("highest"):
            model = self._override(overrides)
            ramp = (jnp.arange(self.substeps, dtype=jnp.float32) + 1.0) / self.substeps

            def substep(data, share):
                return mjx.step(model, data.replace(ctrl=state.ctrl + share * (ctrl - state.ctrl))), None

            data, _ = jax.lax.scan(substep, self._data(state), ramp)
            after = PhysicsState(data.qpos, data.qvel, ctrl, data.qacc_warmstart, state.mocap_pos, state.mocap_quat)
            data = mjx.kinematics(model, data.replace(ctrl=ctrl))
            return after, make_snapshot(self.robot, data)

    def _data(self, state: PhysicsState) -> Any:
        if self.impl == "warp":
            data = mjx.make_data(
                self.host_model,
                own_device(),
                impl="warp",
                naconmax=WARP_CONTACTS_PER_WORLD,
                njmax=WARP_CONSTRAINTS_PER_WORLD,
            )
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


def _has_warp() -> bool:
    import importlib.util

    return importlib.util.find_spec("warp") is not None
