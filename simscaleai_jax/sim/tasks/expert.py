"""What a scripted expert is: a pure function that sees what its task sees, so that it acts on every physics alike."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from simscaleai_jax.sim.control import STEP
from simscaleai_jax.sim.tasks.snapshot import Snapshot

# (snapshot, task_state, phase) -> (action (x, y, z, gripper), phase), unbatched; `registry.find_expert` says it in the
# actions of another controller
ExpertFn = Callable[[Snapshot, Any, Any], tuple[Array, Any]]

OPEN, CLOSED = 1.0, -1.0  # what the last number of an action says to the gripper


@dataclasses.dataclass(frozen=True)
class Expert:
    """How a task is solved by hand; vmappable.

    `act` maps (snapshot, task_state, phase) to (Cartesian action (4,), next phase); `first_phase` is the phase, any
    pytree, in which every episode begins.
    """

    act: ExpertFn
    first_phase: Any = dataclasses.field(default_factory=lambda: np.int32(0))


@struct.dataclass
class StagePhase:
    """Where an expert is that works in stages."""

    stage: Int[Array, ""]
    waited: Int[Array, ""]  # control steps in this stage
    grip: Int[Array, ""]  # control steps for which both pads have pressed while the gripper was told to close


class Stage(NamedTuple):
    """One stage of an expert: where to go, how fast, and what ends it."""

    move: Float[Array, "3"]  # m, what is left to go
    gain: float  # share of it that is gone per control step
    speed: float  # largest action per axis
    gripper: float  # OPEN or CLOSED
    is_done: Any  # on to the next stage
    is_lost: Any = False  # back to the first


def first_phase() -> StagePhase:
    """The first stage, just entered."""
    return StagePhase(*jnp.array([0, 0, 0], jnp.int32))


def next_stage(stages: Sequence[Stage], phase: StagePhase) -> Int[Array, ""]:
    """The stage that follows from what is done and lost."""
    done, lost = (jnp.stack([jnp.asarray(value) for value in column]) for column in list(zip(*stages, strict=True))[4:])
    return jnp.where(lost[phase.stage], 0, phase.stage + done[phase.stage])


def follow(
    stages: Sequence[Stage], phase: StagePhase, is_pressed: Bool[Array, ""] | bool = False
) -> tuple[Float[Array, "4"], StagePhase]:
    """The action of the stage that follows from `phase`, and the phase then; `is_pressed`: both pads press."""
    stage = next_stage(stages, phase)
    move, gain, speed, gripper = (jnp.stack([jnp.asarray(v) for v in c]) for c in list(zip(*stages, strict=True))[:4])
    grip = jnp.where(is_pressed & (gripper[stage] == CLOSED), phase.grip + 1, 0)
    waited = jnp.where(stage == phase.stage, phase.waited + 1, 0)
    step = gain[stage] * move[stage] / STEP
    step = step * jnp.minimum(1.0, speed[stage] / jnp.maximum(jnp.max(jnp.abs(step)), 1e-6))
    return jnp.append(step, gripper[stage]), StagePhase(stage, waited, grip)
