"""Eased starts of a task that grasps: the arm hovers over the object, is around it, or already holds it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from simscaleai_jax.sim import exact_random
from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.robot.ik import solve_poses
from simscaleai_jax.sim.tasks.grasping.config import GraspConfig

POSTURES = 192  # arm postures of each kind
HIGH = (0.08, 0.2)  # m above the table, heights of the end effector that holds or hovers
AROUND = (0.0, 0.015)  # m above the resting object's centre, heights of the end effector around it
HOVER_OFFSET, AROUND_OFFSET = 0.04, 0.005  # m the object may lie aside of the end effector, either way
PAD_ROOM = 0.012  # m between the end effector and what its pads must not touch: half a pad, TOLERANCE and some air
TOLERANCE = 2e-3  # m by which a posture may miss its place

# joints (7,), object position (3,), object yaw [], finger opening []
Eased = tuple[Array, Array, Array, Array]


class EasedStarts:
    """Starts drawn from postures that are found once; the same ones every time."""

    def __init__(self, robot: Robot, config: GraspConfig) -> None:
        self.config, self.opened = config, float(robot.finger_range[1])
        low, high = [*config.area_low, robot.table_height], [*config.area_high, robot.table_height]
        rest = float(robot.object_half_size[0][2])
        random = np.random.default_rng(0)
        self.high = _postures(robot, random, low, high, HIGH)
        self.around = _postures(robot, random, low, high, (rest + AROUND[0], rest + AROUND[1]))

    def draw(
        self, key: PRNGKeyArray, object_pos: Float[Array, "3"], yaw: Float[Array, ""], half_size: Float[Array, "3"]
    ) -> tuple[Eased, Bool[Array, ""], Bool[Array, ""]]:
        """An eased start from a plain one, whether it holds the object, and whether there is room for it at all.

        Where a randomized table leaves no room around the object on it, the arm hovers instead. It hovers and holds
        at heights above the nominal table: a higher one may be too high for that.
        """
        key_kind, key_row, key_offset = jax.random.split(key, 3)
        kind = exact_random.uniform(key_kind)
        is_held = kind < self.config.curriculum_held
        is_around = ~is_held & (kind < self.config.curriculum_held + self.config.curriculum_around)
        around, around_pos = _row(key_row, *self.around)
        is_around &= around_pos[2] > object_pos[2] - 0.005
        high, high_pos = _row(key_row, *self.high)
        joints, ee = jnp.where(is_around, around, high), jnp.where(is_around, around_pos, high_pos)
        reach = jnp.where(is_around, AROUND_OFFSET, HOVER_OFFSET)
        offset = exact_random.uniform(key_offset, (2,), -reach, reach)
        aside = jnp.clip(ee[:2] + offset, jnp.array(self.config.area_low), jnp.array(self.config.area_high))
        position = jnp.where(is_held, ee, jnp.append(aside, object_pos[2]))
        fingers = jnp.where(is_held, jnp.min(half_size[:2]), self.opened)
        lowest = object_pos[2] + jnp.where(is_held, 0.0, half_size[2]) + PAD_ROOM
        has_room = is_around | (ee[2] > lowest)
        return (joints, position, jnp.where(is_held, 0.0, yaw), fingers), is_held, has_room


def _postures(
    robot: Robot, random: np.random.Generator, low: list[float], high: list[float], heights: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Postures (K, 7) rad over the table, and where each holds the end effector (K, 3) m."""
    positions = random.uniform([*low[:2], low[2] + heights[0]], [*high[:2], high[2] + heights[1]], (POSTURES, 3))
    joints, errors = solve_poses(robot, positions)
    is_good = errors < TOLERANCE
    return joints[is_good].astype(np.float32), positions[is_good].astype(np.float32)


def _row(key: PRNGKeyArray, joints: np.ndarray, positions: np.ndarray) -> tuple[Array, Array]:
    row = jax.random.randint(key, (), 0, len(joints))
    return jnp.asarray(joints)[row], jnp.asarray(positions)[row]
