"""The expert of stack: grasp, carry over the base, lower, let go, rise."""

import functools
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from simscaleai_jax.sim.tasks.expert import CLOSED, OPEN, Expert, Stage, StagePhase, first_phase, follow
from simscaleai_jax.sim.tasks.grasping.expert import grasp_stages, is_lost, opened
from simscaleai_jax.sim.tasks.grasping.stages import grasped
from simscaleai_jax.sim.tasks.snapshot import Snapshot

OVER = 0.03  # m above where it will stand, height at which the cube is carried
ALIGNED = 0.005  # m sideways from which on it is lowered
LANDED = 0.002  # m above where it stands from which on it is let go
RELEASE_STEPS = 25  # control steps after which a cube that does not stand is grasped anew


def make_expert(task: Any) -> Expert:
    """The expert for a task's gripper and settings."""
    act = functools.partial(stack_expert, task=task, opened=opened(task))
    return Expert(act, first_phase())


def stack_expert(
    snapshot: Snapshot, task_state: Any, phase: StagePhase, *, task: Any, opened: float
) -> tuple[Float[Array, "4"], StagePhase]:
    """`opened` is the opening of one finger, m, from which on the gripper counts as open."""
    obj, target = snapshot.object_pos[0], task_state.target_pos
    way, gone = target - obj, is_lost(snapshot)
    over, sideways = way.at[2].add(OVER), jnp.linalg.norm(way[:2])
    is_over = (sideways < ALIGNED) & (obj[2] > target[2] + 0.5 * OVER)
    tried = phase.waited > RELEASE_STEPS
    stages = [
        *grasp_stages(snapshot, task_state, phase, opened),
        Stage(over, 0.35, 0.5, CLOSED, is_over, gone),
        Stage(way.at[2].add(-LANDED), 0.35, 0.1, CLOSED, -way[2] < LANDED, gone),
        Stage(jnp.zeros(3), 0.0, 0.0, OPEN, snapshot.gripper[0] > opened, tried),
        Stage(jnp.array([0.0, 0.0, 2.0 * OVER]), 0.5, 0.4, OPEN, False, tried),
    ]
    return follow(stages, phase, grasped(snapshot, task.config.touch_force))
