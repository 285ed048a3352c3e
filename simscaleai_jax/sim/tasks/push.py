"""Push: slide a cube over the table to a goal, with the gripper closed.

Success is a cube within 3 cm of the goal and slower than 0.1 m/s; the episode then ends for good, and so it does, as a
failure, when the cube leaves the workspace.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.tasks.base import BaseTask, Bounds, Start, joints_near_home
from simscaleai_jax.sim.tasks.expert import CLOSED, Expert, Stage, StagePhase, first_phase, follow
from simscaleai_jax.sim.tasks.progress import advance, closeness, no_progress, weighted
from simscaleai_jax.sim.tasks.snapshot import Snapshot
from simscaleai_jax.sim.tasks.tabletop import (
    TabletopConfig,
    area_corners,
    check_area,
    check_settings,
    draw_yaw,
    fit_workspace,
    has_left,
    is_slow,
    place_apart,
    place_on_table,
    pose,
    relative_bounds,
    relative_observations,
    rest_height,
)

INSTRUCTIONS = (
    "push the red cube to the green ball",
    "slide the cube to the target",
    "push the block to the marked spot",
    "shove the cube over the table to the goal",
    "move the cube to the goal without grasping it",
    "push the object to the target position",
)
STAGES = ("reach", "push")
FINGERTIP = 0.012  # m between the tool and the object that it pushes: half of the closed fingers, and some air
CLEAR = 3.0  # half heights above the object's centre at which the expert goes round it
BEHIND = 0.025  # m from the object at which the expert comes down
SLIPPED = 0.6  # half widths from the line of the push at which it begins anew
PACES = (0.004, 0.015)  # m per control step at the goal, where the object must be slow, and far from it


@dataclasses.dataclass(frozen=True)
class PushConfig(TabletopConfig):
    """Metres and m/s; see `TabletopConfig` for the area."""

    success_distance: float = 0.03
    success_speed: float = 0.1
    reach_weight: float = 1.0
    push_weight: float = 6.0
    success_bonus: float = 8.0
    failure_penalty: float = 1.0
    action_penalty: float = 0.002  # per squared unit of action and step

    @classmethod
    def for_workspace(cls, low: tuple[float, ...], high: tuple[float, ...]) -> dict[str, Any]:
        """Settings for an arm that reaches the box `low`..`high` (m)."""
        return fit_workspace(cls, low, high)

    def __post_init__(self) -> None:
        weights = ("reach_weight", "push_weight", "success_bonus", "failure_penalty", "action_penalty")
        check_settings(self, ("success_distance", "success_speed"), weights)


@struct.dataclass
class PushState:
    """Goal of one episode, and progress."""

    target_pos: Float[Array, "3"]  # m, where the object's centre belongs
    table_height: Float[Array, ""]  # m, top of the table
    half_size: Float[Array, "3"]  # m, of the box around the object in its own frame
    has_potential: Bool[Array, ""]
    potential: dict[str, Float[Array, ""]]
    progress: dict[str, Float[Array, ""]]


class PushTask(BaseTask):
    """The gripper stays closed whatever the action says; see `Task` for what each function means."""

    name = "push"

    def __init__(self, robot: Robot, config: PushConfig | None = None) -> None:
        super().__init__(robot, config or PushConfig())
        check_area(robot, self.config, self.goal_corners(robot.table_height), "make area_low..area_high smaller")

    def goal_corners(self, table_height: float) -> np.ndarray:
        """Corners (8, 3) m of the range of objects and targets over a table of that height, m."""
        return area_corners(self.robot, self.config, table_height, 0.0)

    def sample(self, key: PRNGKeyArray, overrides: dict[str, Array]) -> tuple[Start, PushState]:
        keys = jax.random.split(key, 4)
        table, half_size = rest_height(self.robot, overrides)
        joints = joints_near_home(self.robot, keys[0], self.config.joint_noise)
        first = place_on_table(keys[1], self.config)
        spots = jnp.stack([first, place_apart(keys[2], self.config, first)])
        object_pos, target_pos = jnp.concatenate([spots, jnp.full((2, 1), table + half_size[2])], axis=1)
        objects = pose(object_pos, draw_yaw(keys[3], self.config))[None]
        start = self.robot.start(joints, self.robot.finger_range[0], objects, target_pos, overrides)
        zeros = no_progress(STAGES)
        return start, PushState(target_pos, table, half_size, jnp.bool_(False), zeros, zeros)

    def control(self, snapshot: Snapshot, task_state: PushState, action: Float[Array, "A"]) -> Float[Array, "U"]:
        return super().control(snapshot, task_state, action.at[-1].set(CLOSED))

    def update(self, snapshot: Snapshot, task_state: PushState, action: Float[Array, "A"]) -> PushState:
        return advance(task_state, self.potentials(snapshot, task_state))

    def potentials(self, snapshot: Snapshot, task_state: PushState) -> dict[str, Float[Array, ""]]:
        """How near the tool is to where it can push from, and the object to its goal, in [0, 1]; zero once the object
        has left the workspace.
        """
        spot = pushing_spot(snapshot, task_state, FINGERTIP)
        stages = {
            "reach": closeness(jnp.linalg.norm(snapshot.ee_pos - spot)),
            "push": closeness(self._distance(snapshot, task_state)),
        }
        failed = self.has_failed(snapshot, task_state)
        return {name: jnp.where(failed, 0.0, value) for name, value in stages.items()}

    def observe(self, snapshot: Snapshot, task_state: PushState) -> dict[str, Float[Array, "..."]]:
        obs = super().observe(snapshot, task_state)
        touches = snapshot.touch[0] > self.config.touch_force
        return obs | relative_observations(obs, touches) if self.config.relative_observations else obs

    def observation_bounds(self) -> dict[str, Bounds]:
        return super().observation_bounds() | (relative_bounds() if self.config.relative_observations else {})

    def reward_terms(
        self, snapshot: Snapshot, task_state: PushState, action: Float[Array, "A"], steps_left: Int[Array, ""]
    ) -> dict[str, Float[Array, ""]]:
        config = self.config
        return weighted(config, STAGES, task_state.progress) | {
            "success": jnp.where(self._has_arrived(snapshot, task_state), config.success_bonus, 0.0),
            "failure": jnp.where(self.has_failed(snapshot, task_state), -config.failure_penalty, 0.0),
            "action": -config.action_penalty * jnp.sum(action * action),
        }

    def terminated(self, snapshot: Snapshot, task_state: PushState) -> Bool[Array, ""]:
        return self._has_arrived(snapshot, task_state) | self.has_failed(snapshot, task_state)

    def info(self, snapshot: Snapshot, task_state: PushState) -> dict[str, Array]:
        return {
            "reach_dist": jnp.linalg.norm(snapshot.ee_pos - snapshot.object_pos[0]),
            "distance": self._distance(snapshot, task_state),
            "failed": self.has_failed(snapshot, task_state),
            "success": self._has_arrived(snapshot, task_state),
        }

    def has_failed(self, snapshot: Snapshot, task_state: PushState) -> Bool[Array, ""]:
        """Whether the object is outside the workspace."""
        return has_left(self.config, snapshot.object_pos[0], task_state.table_height)

    def _has_arrived(self, snapshot: Snapshot, task_state: PushState) -> Bool[Array, ""]:
        near = self._distance(snapshot, task_state) < self.config.success_distance
        return near & is_slow(snapshot, self.config.success_speed)

    def _distance(self, snapshot: Snapshot, task_state: PushState) -> Float[Array, ""]:
        return jnp.linalg.norm(snapshot.object_pos[0] - task_state.target_pos)


def pushing_spot(snapshot: Snapshot, task_state: PushState, gap: float) -> Float[Array, "3"]:
    """Where the tool is when it pushes the object straight to its goal from `gap` m away, m."""
    return snapshot.object_pos[0] - _way(snapshot, task_state) * (jnp.min(task_state.half_size[:2]) + gap)


def _way(snapshot: Snapshot, task_state: PushState) -> Float[Array, "3"]:
    """Direction from the object to its goal, along the table."""
    way = (task_state.target_pos - snapshot.object_pos[0]).at[2].set(0.0)
    return way / (jnp.linalg.norm(way) + 1e-6)


def push_expert(snapshot: Snapshot, task_state: PushState, phase: StagePhase) -> tuple[Float[Array, "4"], StagePhase]:
    """Above the far side of the object, down, and through it towards the goal; up again when it slips aside."""
    ee, obj, along = snapshot.ee_pos, snapshot.object_pos[0], _way(snapshot, task_state)
    behind = pushing_spot(snapshot, task_state, BEHIND)
    over = behind.at[2].add(CLEAR * task_state.half_size[2])
    offset = (obj - ee).at[2].set(0.0)
    ahead = jnp.dot(offset, along)
    aside = offset - along * ahead
    slipped = (jnp.linalg.norm(aside) > SLIPPED * task_state.half_size[0]) | (ahead < 0.0)
    pace = jnp.clip(jnp.linalg.norm(task_state.target_pos - obj) / 10.0, *PACES)
    through = (pace * along + aside).at[2].set(0.5 * (obj[2] - ee[2]))
    stages = [
        Stage(over - ee, 0.4, 1.0, CLOSED, jnp.linalg.norm(over - ee) < 0.01),
        Stage(behind - ee, 0.4, 0.3, CLOSED, ee[2] - obj[2] < 0.25 * task_state.half_size[2], slipped),
        Stage(through, 1.0, 1.0, CLOSED, False, slipped),
    ]
    return follow(stages, phase)


def make_expert(task: PushTask) -> Expert:
    """The expert of push, the same for every arm."""
    return Expert(push_expert, first_phase())
