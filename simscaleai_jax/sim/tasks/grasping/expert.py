"""How the object is grasped by hand, lifted and carried to its target."""

import functools
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from simscaleai_jax.sim.tasks.expert import CLOSED, OPEN, Expert, Stage, StagePhase, first_phase, follow
from simscaleai_jax.sim.tasks.grasping.stages import grasped
from simscaleai_jax.sim.tasks.snapshot import Snapshot

ABOVE, DESCEND, CLOSE, LIFT = range(4)

OPENED = 0.875  # share of the gripper's opening from which on it may descend
HOVER = 0.08  # m above the object before descending, at most
HOVER_HALF_HEIGHTS = 4.0  # of the object, likewise
GRIP_STEPS = 3  # control steps both pads must press before lifting
CLOSE_PATIENCE = 12  # control steps after which a grasp that does not come is tried anew
LIFTED = 0.03  # m of clearance before moving sideways
LOST = 0.035  # m between tool and object at which a carried object counts as lost


def make_carry_expert(task: Any) -> Expert:
    """The expert of a task whose object is carried to a target, for its gripper and settings."""
    act = functools.partial(carry_expert, opened=opened(task), touch_force=task.config.touch_force)
    return Expert(act, first_phase())


def carry_expert(
    snapshot: Snapshot, task_state: Any, phase: StagePhase, *, opened: float, touch_force: float
) -> tuple[Float[Array, "4"], StagePhase]:
    """Hover, descend, close until both pads press, lift straight up, carry; starts over when the object is lost.

    `opened` is the opening of one finger, m, from which on the gripper counts as open; a pad presses with more than
    `touch_force` newtons.
    """
    way = task_state.target_pos - snapshot.object_pos[0]
    carry = Stage(way, 0.35, 0.5, CLOSED, False, is_lost(snapshot))
    stages = [*grasp_stages(snapshot, task_state, phase, opened), carry]
    return follow(stages, phase, grasped(snapshot, touch_force))


def opened(task: Any) -> float:
    """Opening of one finger, m, from which on the task's gripper counts as open."""
    return OPENED * float(task.robot.finger_range[1])


def grasp_stages(snapshot: Snapshot, task_state: Any, phase: StagePhase, opened: float) -> list[Stage]:
    """From anywhere to a lifted object; every stage but the first starts over when the object slips away."""
    ee, obj = snapshot.ee_pos, snapshot.object_pos[0]
    offset, hover = obj - ee, _hover(task_state)
    sideways, height = jnp.linalg.norm(offset[:2]), obj[2] - task_state.half_size[2] - task_state.table_height
    distance, slow = jnp.linalg.norm(offset), jnp.linalg.norm(snapshot.object_vel[0, :3]) < 0.05
    hovers = jnp.abs(ee[2] - obj[2] - hover) < 0.03
    is_over = (sideways < 0.01) & hovers & (snapshot.gripper[0] > opened) & slow
    gone = is_lost(snapshot)
    return [
        Stage(obj.at[2].add(hover) - ee, 0.35, 1.0, OPEN, is_over),
        Stage(offset, 0.35, 0.5, OPEN, distance < 0.006, sideways > 0.02),
        Stage(offset, 0.2, 0.1, CLOSED, phase.grip >= GRIP_STEPS, (phase.waited > CLOSE_PATIENCE) | gone),
        Stage(jnp.array([0.0, 0.0, LIFTED + 0.02]), 0.5, 0.4, CLOSED, height > LIFTED, gone),
    ]


def is_lost(snapshot: Snapshot) -> Bool[Array, ""]:
    """Whether a carried object is no longer where the tool is."""
    return jnp.linalg.norm(snapshot.object_pos[0] - snapshot.ee_pos) > LOST


def _hover(task_state: Any) -> Float[Array, ""]:
    """Height above the object before descending, m: less for a small one, whose arm is small, too."""
    return jnp.minimum(HOVER, HOVER_HALF_HEIGHTS * task_state.half_size[2])
