"""The expert of pick and place: hover, descend, grasp, lift, carry, and begin again when the object is lost."""

import functools
from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from simscaleai_jax.sim.control import STEP
from simscaleai_jax.sim.tasks.expert import CLOSED, OPEN, Expert
from simscaleai_jax.sim.tasks.pick_place.stages import grasped
from simscaleai_jax.sim.tasks.snapshot import Snapshot

ABOVE, DESCEND, CLOSE, LIFT, CARRY = range(5)

OPENED = 0.875  # share of the gripper's opening from which on it may descend
HOVER = 0.08  # m above the object before descending, at most
HOVER_HALF_HEIGHTS = 4.0  # of the object, likewise
GRIP_STEPS = 3  # control steps both pads must press before lifting
CLOSE_PATIENCE = 12  # control steps after which a grasp that does not come is tried anew
LIFTED = 0.03  # m of clearance before moving sideways
LOST = 0.035  # m between tool and object at which a carried object counts as lost


@struct.dataclass
class PickPhase:
    """Where the expert is."""

    stage: Int[Array, ""]  # ABOVE .. CARRY
    waited: Int[Array, ""]  # control steps in this stage
    grip: Int[Array, ""]  # control steps for which both pads have pressed


def make_expert(task: Any) -> Expert:
    """The expert for a task's gripper and settings."""
    opened = OPENED * float(task.robot.finger_range[1])
    act = functools.partial(pick_place_expert, opened=opened, touch_force=task.config.touch_force)
    return Expert(act, PickPhase(*jnp.array([ABOVE, 0, 0], jnp.int32)))


def pick_place_expert(
    snapshot: Snapshot, task_state: Any, phase: PickPhase, *, opened: float, touch_force: float
) -> tuple[Float[Array, "4"], PickPhase]:
    """Hover, descend, close until both pads press, lift straight up, carry; starts over when the object is lost.

    `opened` is the opening of one finger, m, from which on the gripper counts as open; a pad presses with more than
    `touch_force` newtons.
    """
    ee, obj = snapshot.ee_pos, snapshot.object_pos[0]
    stage = _next_stage(snapshot, task_state, phase, opened)
    grip = jnp.where(grasped(snapshot, touch_force), phase.grip + 1, 0)
    grip = jnp.where(stage >= CLOSE, grip, 0)
    waited = jnp.where(stage == phase.stage, phase.waited + 1, 0)

    over = obj.at[2].add(_hover(task_state))
    goals = jnp.stack(
        [over - ee, obj - ee, obj - ee, jnp.array([0.0, 0.0, LIFTED + 0.02]), task_state.target_pos - obj]
    )
    gains = jnp.array([0.35, 0.35, 0.2, 0.5, 0.35])
    speeds = jnp.array([1.0, 0.5, 0.1, 0.4, 0.5])  # largest action per axis
    move = gains[stage] * goals[stage] / STEP
    move = move * jnp.minimum(1.0, speeds[stage] / jnp.maximum(jnp.max(jnp.abs(move)), 1e-6))
    gripper = jnp.where(stage >= CLOSE, CLOSED, OPEN)
    return jnp.append(move, gripper), PickPhase(stage, waited, grip)


def _hover(task_state: Any) -> Float[Array, ""]:
    """Height above the object before descending, m: less for a small one, whose arm is small, too."""
    return jnp.minimum(HOVER, HOVER_HALF_HEIGHTS * task_state.half_size[2])


def _next_stage(snapshot: Snapshot, task_state: Any, phase: PickPhase, opened: float) -> Int[Array, ""]:
    ee, obj = snapshot.ee_pos, snapshot.object_pos[0]
    offset = obj - ee
    sideways, height = jnp.linalg.norm(offset[:2]), obj[2] - task_state.half_size[2] - task_state.table_height
    distance = jnp.linalg.norm(offset)
    hovers = jnp.abs(ee[2] - obj[2] - _hover(task_state)) < 0.03
    stage, slow = phase.stage, jnp.linalg.norm(snapshot.object_vel[0, :3]) < 0.05
    advance = jnp.stack([
        (sideways < 0.01) & hovers & (snapshot.gripper[0] > opened) & slow,
        distance < 0.006,
        phase.grip >= GRIP_STEPS,
        height > LIFTED,
        jnp.bool_(False),
    ])  # fmt: skip
    back = jnp.stack([
        jnp.bool_(False),
        sideways > 0.02,
        (phase.waited > CLOSE_PATIENCE) | (distance > LOST),
        distance > LOST,
        distance > LOST,
    ])  # fmt: skip
    return jnp.where(back[stage], ABOVE, stage + advance[stage])
