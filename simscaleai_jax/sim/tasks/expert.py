"""What a scripted expert is: a pure function that sees what its task sees, so that it acts on every physics alike."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Array

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
