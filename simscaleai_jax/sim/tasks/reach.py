"""Reach: bring the end effector to a point in space.

Success within 5 cm; the episode ends for good within 2 cm, and then pays the success bonus of all the steps that
were left, so that arriving is never worth less than hovering next to the target.
"""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from simscaleai_jax.core.config import settle
from simscaleai_jax.sim import exact_random
from simscaleai_jax.sim.control import STEP
from simscaleai_jax.sim.rewards import ActionPenalty, DistanceReward, SuccessBonus
from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.robot.ik import check_reachable
from simscaleai_jax.sim.tasks.base import BaseTask, Start, joints_near_home
from simscaleai_jax.sim.tasks.expert import OPEN, Expert
from simscaleai_jax.sim.tasks.snapshot import Snapshot

INSTRUCTIONS = (
    "reach the target",
    "move the gripper to the target",
    "bring the hand to the green ball",
    "touch the target with the end effector",
    "go to the goal position",
    "move your hand to the marked point",
)
CANDIDATES = 8  # targets drawn per episode, of which the first that is far enough is taken


@dataclasses.dataclass(frozen=True)
class ReachConfig:
    """Targets are uniform in the box `target_low`..`target_high` (metres, world frame)."""

    target_low: tuple[float, float, float] = (0.35, -0.3, 0.08)
    target_high: tuple[float, float, float] = (0.65, 0.3, 0.5)
    min_distance: float = 0.1  # m between the target and the end effector's home, near which every start is
    joint_noise: float = 0.05  # rad, uniform either way around the home pose
    success_distance: float = 0.05  # m
    termination_distance: float = 0.02  # m
    distance_weight: float = 1.0  # per metre
    success_bonus: float = 1.0  # per step within success_distance
    action_penalty: float = 0.0  # per squared unit of action

    @classmethod
    def for_workspace(cls, low: tuple[float, ...], high: tuple[float, ...]) -> dict[str, Any]:
        """Settings for an arm that reaches the box `low`..`high` (m); a small one has to come nearer."""
        far = min(cls.min_distance, 0.4 * float(np.min(np.subtract(high, low))))
        near = min(cls.success_distance, 0.5 * far)
        ranges = {"target_low": tuple(low), "target_high": tuple(high), "min_distance": far}
        return ranges | {"success_distance": near, "termination_distance": min(cls.termination_distance, near)}

    def __post_init__(self) -> None:
        settle(self)
        if not all(low < high for low, high in zip(self.target_low, self.target_high, strict=True)):
            raise ValueError(f"target_low must lie below target_high, got {self.target_low} and {self.target_high}")
        for name in ("min_distance", "joint_noise", "distance_weight", "success_bonus", "action_penalty"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0.0 < self.termination_distance <= self.success_distance:
            raise ValueError(
                "wanted 0 < termination_distance <= success_distance, "
                f"got {self.termination_distance} and {self.success_distance}"
            )


@struct.dataclass
class ReachState:
    """Goal of one episode."""

    target_pos: Float[Array, "3"]  # m


class ReachTask(BaseTask):
    """The task behind `ReachEnv`; see `Task` for what each function means."""

    name = "reach"

    def __init__(self, robot: Robot, config: ReachConfig | None = None) -> None:
        super().__init__(robot, config or ReachConfig())
        sides = zip(self.config.target_low, self.config.target_high, strict=True)
        self._corners = np.array(list(itertools.product(*sides)))
        tolerance = self.config.termination_distance
        check_reachable(robot, self._corners, tolerance, "move or shrink target_low..target_high")
        self._check_distance()
        self._distance = DistanceReward(scale=self.config.distance_weight)
        self._success = SuccessBonus(threshold=self.config.success_distance, bonus=self.config.success_bonus)
        self._effort = ActionPenalty(scale=self.config.action_penalty, squared=True)

    def sample(self, key: PRNGKeyArray, overrides: dict[str, Array]) -> tuple[Start, ReachState]:
        key_joints, key_target = jax.random.split(key)
        joints = joints_near_home(self.robot, key_joints, self.config.joint_noise)
        target = self._sample_target(key_target)
        return self.robot.start(joints, target_pos=target, overrides=overrides), ReachState(target_pos=target)

    def reward_terms(
        self, snapshot: Snapshot, task_state: ReachState, action: Float[Array, "4"], steps_left: Int[Array, ""]
    ) -> dict[str, Float[Array, ""]]:
        obs = self.observe(snapshot, task_state)
        arrived = self.terminated(snapshot, task_state)
        return {
            "distance": self._distance.compute(obs, action, {}),
            "success": self._success.compute(obs, action, {}),
            "arrival": jnp.where(arrived, self.config.success_bonus * steps_left, 0.0),
            "action": self._effort.compute(obs, action, {}),
        }

    def terminated(self, snapshot: Snapshot, task_state: ReachState) -> Bool[Array, ""]:
        return self._error(snapshot, task_state) < self.config.termination_distance

    def info(self, snapshot: Snapshot, task_state: ReachState) -> dict[str, Array]:
        distance = self._error(snapshot, task_state)
        return {"distance": distance, "success": distance < self.config.success_distance}

    def _error(self, snapshot: Snapshot, task_state: ReachState) -> Float[Array, ""]:
        return jnp.linalg.norm(snapshot.ee_pos - task_state.target_pos)

    def _check_distance(self) -> None:
        farthest = float(np.max(np.linalg.norm(self._corners - self.robot.home_ee_pos, axis=1)))
        if farthest < self.config.min_distance:
            raise ValueError(
                f"no target is min_distance={self.config.min_distance} m from the home pose: the farthest corner of "
                f"target_low..target_high is {farthest:.3f} m away"
            )

    def _sample_target(self, key: PRNGKeyArray) -> Float[Array, "3"]:
        """At least `min_distance` from the home pose; the corners are the last resort, one of them is far enough."""
        low, high = jnp.array(self.config.target_low), jnp.array(self.config.target_high)
        drawn = exact_random.uniform(key, (CANDIDATES, 3), low, high)
        candidates = jnp.concatenate([drawn, jnp.asarray(self._corners, jnp.float32)])
        return candidates[exact_random.first_far(candidates, self.robot.home_ee_pos, self.config.min_distance)]


def reach_expert(snapshot: Snapshot, task_state: ReachState, phase: Any) -> tuple[Float[Array, "4"], Any]:
    """Straight to the target."""
    move = 0.4 * (task_state.target_pos - snapshot.ee_pos) / STEP
    return jnp.append(jnp.clip(move, -1.0, 1.0), OPEN), phase


def make_expert(task: ReachTask) -> Expert:
    """The expert of reach, the same for every arm."""
    return Expert(reach_expert)
