"""What a task is: pure functions of a snapshot, behind which no simulator shows.

A task is written once and runs everywhere: batched under `vmap` in MJX, and one at a time on plain MuJoCo behind the
gymnasium adapter. Its functions are unbatched.
"""

from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.tasks.snapshot import Snapshot

Bounds = tuple[np.ndarray, np.ndarray]  # lower, upper


@struct.dataclass
class Start:
    """Where an episode begins; velocities are zero."""

    qpos: Float[Array, "nq"]
    ctrl: Float[Array, "U"]
    mocap_pos: Float[Array, "M 3"]
    mocap_quat: Float[Array, "M 4"]


def scenery(robot: Robot, target_pos: Float[Array, "3"], overrides: dict[str, Array]) -> Float[Array, "M 3"]:
    """Positions of the movable scenery (mocap bodies), m: the target marker, and the table at this episode's height."""
    mocap_pos = jnp.asarray(robot.mocap_pos, jnp.float32).at[robot.target_mocap].set(target_pos)
    if robot.table_mocap >= 0 and "table_height" in overrides:
        mocap_pos = mocap_pos.at[robot.table_mocap, 2].set(overrides["table_height"] - robot.table_top)
    return mocap_pos


@runtime_checkable
class Task(Protocol):
    """Everything that makes a scene a task. `task_state` is the task's own frozen pytree: the goal and latches."""

    name: str
    robot: Robot
    action_size: int

    def sample(self, key: PRNGKeyArray, overrides: dict[str, Array]) -> tuple[Start, Any]:
        """Draw a start and a goal; `overrides` are the episode's randomized parameters ({} without randomization).

        What `sim.exact_random.uniform` draws is equal to the last bit in every batch size and on every mesh.
        """
        ...

    def control(self, snapshot: Snapshot, task_state: Any, action: Float[Array, "A"]) -> Float[Array, "U"]:
        """Actuator targets to be reached at the end of this control step."""
        ...

    def update(self, snapshot: Snapshot, task_state: Any, action: Float[Array, "A"]) -> Any:
        """Next task state, from the snapshot after the control step."""
        ...

    def observe(self, snapshot: Snapshot, task_state: Any) -> dict[str, Float[Array, "..."]]:
        """Observation, float32, inside `observation_bounds`."""
        ...

    def observation_bounds(self) -> dict[str, Bounds]:
        """Finite bounds of every observation key."""
        ...

    def reward_terms(
        self, snapshot: Snapshot, task_state: Any, action: Float[Array, "A"], steps_left: Int[Array, ""]
    ) -> dict[str, Float[Array, ""]]:
        """Weighted reward terms; their sum is the reward. `steps_left` counts the control steps the time limit still
        allows.
        """
        ...

    def terminated(self, snapshot: Snapshot, task_state: Any) -> Bool[Array, ""]:
        """Whether the episode ends here for good (the time limit is not the task's affair)."""
        ...

    def info(self, snapshot: Snapshot, task_state: Any) -> dict[str, Array]:
        """The documented info keys but `step`; `success` is always there."""
        ...
