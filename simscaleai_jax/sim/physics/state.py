"""What every physics engine shares: the slim state between control steps, what is read off a scene, the interface.

Between control steps only what MuJoCo needs to go on is kept (`PhysicsState`, about 60 floats); an engine's own data, a
thousand times that, never enters a training loop's carry.
"""

from typing import Protocol

import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float

from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.tasks.base import Start

# Parts of MuJoCo's integration state that `PhysicsState` does not carry, with what makes a model have them. The other
# parts are carried or stay as the model has them (applied forces, active equalities, user data).
NOT_CARRIED = {
    mujoco.mjtState.mjSTATE_HISTORY: "delays of actuators or sensors",
    mujoco.mjtState.mjSTATE_PLUGIN: "plugins with a state",
    mujoco.mjtState.mjSTATE_PLASTIC: "plastic deformation",
}


@struct.dataclass
class PhysicsState:
    """What MuJoCo carries from one control step to the next."""

    time: Float[Array, "*B"]  # s since the start
    qpos: Float[Array, "*B nq"]  # m, rad, quaternions wxyz
    qvel: Float[Array, "*B nv"]  # m/s, rad/s
    act: Float[Array, "*B na"]  # activations of actuators that have a state of their own
    ctrl: Float[Array, "*B U"]  # actuator targets reached at the end of the last step
    qacc_warmstart: Float[Array, "*B nv"]  # the solver's first guess
    mocap_pos: Float[Array, "*B M 3"]  # m
    mocap_quat: Float[Array, "*B M 4"]


STATE_FIELDS = tuple(PhysicsState.__dataclass_fields__)


@struct.dataclass
class Kinematics:
    """What snapshots and pictures are made of, under MuJoCo's names; positions and orientations belong to `qpos`."""

    qpos: Float[Array, "*B nq"]
    qvel: Float[Array, "*B nv"]
    ctrl: Float[Array, "*B U"]
    xpos: Float[Array, "*B bodies 3"]  # m
    xquat: Float[Array, "*B bodies 4"]
    xmat: Float[Array, "*B bodies 9"]
    site_xpos: Float[Array, "*B sites 3"]  # m
    site_xmat: Float[Array, "*B sites 9"]
    xanchor: Float[Array, "*B joints 3"]  # m
    xaxis: Float[Array, "*B joints 3"]
    sensordata: Float[Array, "*B S"]  # of the last physics step; zero where none was made


KINEMATICS_FIELDS = tuple(Kinematics.__dataclass_fields__)
POSE_FIELDS = ("xpos", "xquat", "xmat", "site_xpos", "site_xmat", "xanchor", "xaxis")  # those that follow from qpos


class Physics(Protocol):
    """One scene on one engine; every function is pure, unbatched and ready for `vmap`."""

    impl: str  # "c", "jax" or "warp"
    host_model: mujoco.MjModel
    robot: Robot

    def reset(self, start: Start) -> PhysicsState:
        """State at rest."""
        ...

    def kinematics(self, state: PhysicsState) -> Kinematics:
        """Poses that belong to `state`; `sensordata` is zero."""
        ...

    def step(
        self, state: PhysicsState, ctrl: Float[Array, "U"], overrides: dict[str, Array]
    ) -> tuple[PhysicsState, Kinematics, Bool[Array, ""]]:
        """Advance one control step, moving the targets to `ctrl` in equal steps.

        Args:
          state: where to start.
          ctrl: actuator targets at the end of the step.
          overrides: model fields of this one environment, {} for the nominal model.

        Returns:
          The new state, what is read off it, and whether a full buffer may have cost contacts or constraints.
        """
        ...


def at_rest(model: mujoco.MjModel, start: Start) -> PhysicsState:
    """The state that an episode starts from: no velocities, no activations."""

    def zeros(count: int) -> Array:
        return jnp.zeros(count, jnp.float32)

    return PhysicsState(
        time=jnp.float32(0.0),
        qpos=start.qpos,
        qvel=zeros(model.nv),
        act=zeros(model.na),
        ctrl=start.ctrl,
        qacc_warmstart=zeros(model.nv),
        mocap_pos=start.mocap_pos,
        mocap_quat=start.mocap_quat,
    )


def check_state(model: mujoco.MjModel) -> None:
    """ValueError for a model with a state that would be forgotten between control steps."""
    if model.opt.enableflags & mujoco.mjtEnableBit.mjENBL_SLEEP:
        raise ValueError("a functional environment does not carry which bodies sleep; turn <flag sleep> off")
    lost = [why for part, why in NOT_CARRIED.items() if mujoco.mj_stateSize(model, int(part))]
    if lost:
        raise ValueError(
            f"a functional environment does not carry all of this model's state: it has {' and '.join(lost)}; remove "
            "them, or use the gymnasium adapter (make_env)"
        )


def ramp(ramp_steps: int) -> np.ndarray:
    """Shares (ramp_steps,) of the way from the old control targets to the new ones, the last of them 1."""
    return np.linspace(1.0 / ramp_steps, 1.0, ramp_steps)
