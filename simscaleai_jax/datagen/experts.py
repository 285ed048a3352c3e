"""Scripted experts: pure, vmappable functions `(snapshot, task_state, phase) -> (action, phase)`.

They see what the tasks see, so the same expert acts in MJX and on host physics.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.datagen.rollout import RolloutPolicy
from simscaleai_jax.sim.control import STEP
from simscaleai_jax.sim.tasks.pick_place.stages import grasped
from simscaleai_jax.sim.tasks.snapshot import Snapshot

# (snapshot, task_state, phase) -> (action (4,), phase), unbatched
ExpertFn = Callable[[Snapshot, Any, Any], tuple[Array, Any]]

OPEN, CLOSED = 1.0, -1.0
ABOVE, DESCEND, CLOSE, LIFT, CARRY = range(5)  # stages of pick_place

OPENED = 0.875  # share of the gripper's opening from which on it may descend
HOVER = 0.08  # m above the object before descending
GRIP_STEPS = 3  # control steps both pads must press before lifting
CLOSE_PATIENCE = 12  # control steps after which a grasp that does not come is tried anew
LIFTED = 0.03  # m of clearance before moving sideways
LOST = 0.035  # m between tool and object at which a carried object counts as lost


@struct.dataclass
class PickPhase:
    """Where the pick-and-place expert is."""

    stage: Int[Array, ""]  # ABOVE .. CARRY
    waited: Int[Array, ""]  # control steps in this stage
    grip: Int[Array, ""]  # control steps for which both pads have pressed


def reach_expert(snapshot: Snapshot, task_state: Any, phase: Any) -> tuple[Float[Array, "4"], Any]:
    """Straight to the target."""
    move = 0.4 * (task_state.target_pos - snapshot.ee_pos) / STEP
    return jnp.append(jnp.clip(move, -1.0, 1.0), OPEN), phase


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

    over = obj.at[2].add(HOVER)
    goals = jnp.stack(
        [over - ee, obj - ee, obj - ee, jnp.array([0.0, 0.0, LIFTED + 0.02]), task_state.target_pos - obj]
    )
    gains = jnp.array([0.35, 0.35, 0.2, 0.5, 0.35])
    speeds = jnp.array([1.0, 0.5, 0.1, 0.4, 0.5])  # largest action per axis
    move = gains[stage] * goals[stage] / STEP
    move = move * jnp.minimum(1.0, speeds[stage] / jnp.maximum(jnp.max(jnp.abs(move)), 1e-6))
    gripper = jnp.where(stage >= CLOSE, CLOSED, OPEN)
    return jnp.append(move, gripper), PickPhase(stage, waited, grip)


def _next_stage(snapshot: Snapshot, task_state: Any, phase: PickPhase, opened: float) -> Int[Array, ""]:
    ee, obj = snapshot.ee_pos, snapshot.object_pos[0]
    offset = obj - ee
    sideways, height = jnp.linalg.norm(offset[:2]), obj[2] - task_state.half_size[2] - task_state.table_height
    distance = jnp.linalg.norm(offset)
    stage, slow = phase.stage, jnp.linalg.norm(snapshot.object_vel[0, :3]) < 0.05
    advance = jnp.stack([
        (sideways < 0.01) & (jnp.abs(ee[2] - obj[2] - HOVER) < 0.03) & (snapshot.gripper[0] > opened) & slow,
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


def first_phase(task_name: str) -> Any:
    """The phase at the start of an episode."""
    if task_name == "pick_place":
        return PickPhase(jnp.int32(ABOVE), jnp.int32(0), jnp.int32(0))
    return jnp.int32(0)


def expert_fn(task: Any) -> ExpertFn:
    """The expert of a task, for its gripper and settings; ValueError where there is none."""
    if task.name == "reach":
        return reach_expert
    if task.name == "pick_place":
        opened = OPENED * float(task.robot.finger_range[1])
        return functools.partial(pick_place_expert, opened=opened, touch_force=task.config.touch_force)
    raise unknown_name("scripted expert", task.name, ("pick_place", "reach"))


def make_expert(env_name: str, env: Any) -> RolloutPolicy:
    """The expert of an environment's task as a policy of data generation; ValueError where there is none."""
    if not hasattr(env, "task"):
        raise ValueError(f"environment {env_name!r} has no task for a scripted expert to solve")
    act = expert_fn(env.task)

    def act_fn(state: Any, carry: Any, key: Any) -> tuple[Array, Any]:
        return act(state.snapshot, state.task_state, carry)

    return RolloutPolicy(act_fn, lambda state: first_phase(env.task.name))
