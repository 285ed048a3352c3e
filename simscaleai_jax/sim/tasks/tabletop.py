"""What tasks on a table share: where things may be, how they are laid there, when they have left, what is near what."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from simscaleai_jax.core.config import settle
from simscaleai_jax.sim import exact_random
from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.robot.feasibility import REACH_TOLERANCE
from simscaleai_jax.sim.robot.ik import check_reachable
from simscaleai_jax.sim.tasks.base import MAX_REACH, Bounds
from simscaleai_jax.sim.tasks.snapshot import Snapshot

NEARBY = 0.03  # m, scale of the finer of the two relative observations
CANDIDATES = 12  # places drawn for a second thing, of which the first that is far enough from the first is taken
RELATIVE = ("ee_to_object", "object_to_target")


@dataclasses.dataclass(frozen=True)
class TabletopConfig:
    """Metres and radians; positions are of the object's centre.

    Things are laid uniformly in the rectangle `area_low`..`area_high` of the table, at least `min_distance` apart. The
    object may be anywhere in the box `workspace_low`..`workspace_high` (heights above the table); outside it the
    episode has failed.

    `relative_observations` adds ee_to_object and object_to_target (m, (3,)), both once more as tanh(x / 0.03 m) under
    the names with `_near`, and touch (2,), 1 for each pad that presses.
    """

    area_low: tuple[float, float] = (0.4, -0.2)
    area_high: tuple[float, float] = (0.65, 0.2)
    min_distance: float = 0.1
    object_yaw: float = 0.2  # the object starts turned by up to this much either way
    joint_noise: float = 0.05  # rad, uniform either way around the home pose
    workspace_low: tuple[float, float, float] = (0.2, -0.45, -0.05)
    workspace_high: tuple[float, float, float] = (0.85, 0.45, 0.6)
    touch_force: float = 0.05  # N with which a pad presses
    relative_observations: bool = False


def fit_workspace(config_cls: Any, low: tuple[float, ...], high: tuple[float, ...]) -> dict[str, Any]:
    """Settings of a `TabletopConfig` for an arm that reaches the box `low`..`high` (m)."""
    half_diagonal = 0.5 * float(np.hypot(*np.subtract(high[:2], low[:2])))
    return {
        "area_low": tuple(low[:2]),
        "area_high": tuple(high[:2]),
        "min_distance": min(config_cls.min_distance, 0.7 * half_diagonal),
        "workspace_low": (low[0] - 0.2, low[1] - 0.25, config_cls.workspace_low[2]),
        "workspace_high": (high[0] + 0.2, high[1] + 0.25, config_cls.workspace_high[2]),
    }


def check_settings(config: TabletopConfig, positive: tuple[str, ...] = (), not_negative: tuple[str, ...] = ()) -> None:
    """Settle the fields of a config and check what is told of them; ValueError with the value."""
    settle(config)
    for low, high in (("area_low", "area_high"), ("workspace_low", "workspace_high")):
        ranges = zip(getattr(config, low), getattr(config, high), strict=True)
        if not all(a < b for a, b in ranges):
            raise ValueError(f"{low} must lie below {high}, got {getattr(config, low)} and {getattr(config, high)}")
    for name in ("touch_force", *positive):
        if getattr(config, name) <= 0:
            raise ValueError(f"{name} must be positive, got {getattr(config, name)}")
    for name in ("joint_noise", "object_yaw", "min_distance", *not_negative):
        if getattr(config, name) < 0:
            raise ValueError(f"{name} must not be negative, got {getattr(config, name)}")
    half_diagonal = 0.5 * float(np.hypot(*np.subtract(config.area_high, config.area_low)))
    if config.min_distance >= half_diagonal:
        raise ValueError(
            f"min_distance must be less than half the diagonal of the area, {half_diagonal:.3f} m, so that every "
            f"object has a target; got {config.min_distance}"
        )


def area_corners(robot: Robot, config: TabletopConfig, table_height: float, rise: float) -> np.ndarray:
    """Corners (8, 3) m of where the object's centre may be wanted: over the area, from resting on the table, whose top
    is `table_height` m high, to `rise` m above that.
    """
    rest = table_height + robot.object_half_size[0][2]
    sides = zip((*config.area_low, rest), (*config.area_high, rest + rise), strict=True)
    return np.array(list(itertools.product(*sides)))


def check_area(robot: Robot, config: TabletopConfig, corners: np.ndarray, advice: str) -> None:
    """ValueError where a corner (K, 3) m of the area lies outside the workspace or out of the arm's reach."""
    low = np.add(config.workspace_low, (0, 0, robot.table_height))
    high = np.add(config.workspace_high, (0, 0, robot.table_height))
    outside = corners[np.any((corners < low) | (corners > high), axis=1)]
    if len(outside):
        raise ValueError(f"target range leaves the workspace {low.tolist()}..{high.tolist()} at {outside[0].tolist()}")
    check_reachable(robot, corners, REACH_TOLERANCE, advice)


def has_left(config: TabletopConfig, position: Float[Array, "3"], table_height: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether an object at `position` (m) is outside the workspace."""
    low, high = jnp.array(config.workspace_low), jnp.array(config.workspace_high)
    relative = position - jnp.zeros(3).at[2].set(table_height)
    return jnp.any((relative < low) | (relative > high))


def rest_height(robot: Robot, overrides: dict[str, Array]) -> tuple[Array, Float[Array, "3"]]:
    """Height of the table's top and half sides of the object, m, in an episode with these randomized fields."""
    table = jnp.float32(overrides.get("table_height", robot.table_height))
    return table, jnp.asarray(overrides.get("object_half_size", robot.object_half_size[0]), jnp.float32)


def place_on_table(key: PRNGKeyArray, config: TabletopConfig) -> Float[Array, "2"]:
    """A place for the first thing, m."""
    return exact_random.uniform(key, (2,), jnp.array(config.area_low), jnp.array(config.area_high))


def place_apart(key: PRNGKeyArray, config: TabletopConfig, first: Float[Array, "2"]) -> Float[Array, "2"]:
    """A place for the second thing, m, at least `min_distance` from the first."""
    low, high = jnp.array(config.area_low), jnp.array(config.area_high)
    drawn = exact_random.uniform(key, (CANDIDATES, 2), low, high)
    corners = jnp.array([low, high, [low[0], high[1]], [high[0], low[1]]])  # the last resort; one of them is far enough
    spots = jnp.concatenate([drawn, corners])
    return spots[exact_random.first_far(spots, first, config.min_distance)]


def scatter(
    key: PRNGKeyArray, low: tuple[float, ...], high: tuple[float, ...], count: int, apart: float
) -> Float[Array, "N 2"]:
    """`count` places (m) in the rectangle `low`..`high`, up to four of them at least `apart` from one another where
    that is at most half its shorter side.
    """
    ends = jnp.array([low, high], jnp.float32)
    corners = jnp.stack([ends[0], ends[1], jnp.diagonal(ends), jnp.diagonal(ends[::-1])])  # a place is near one at most
    keys = jax.random.split(key, count)
    places = exact_random.uniform(keys[0], (1, 2), ends[0], ends[1])
    for one in keys[1:]:
        spots = jnp.concatenate([exact_random.uniform(one, (CANDIDATES, 2), ends[0], ends[1]), corners])
        places = jnp.concatenate([places, spots[exact_random.first_far(spots, places, apart)][None]])
    return places


def draw_yaw(key: PRNGKeyArray, config: TabletopConfig) -> Float[Array, ""]:
    """How far an object is turned about the vertical, rad."""
    return exact_random.uniform(key, (), -config.object_yaw, config.object_yaw)


def pose(position: Float[Array, "3"], yaw: Float[Array, ""]) -> Float[Array, "7"]:
    """Position (m) and orientation (wxyz) of an object turned by `yaw` rad about the vertical."""
    return jnp.append(position, jnp.array([jnp.cos(yaw / 2), 0.0, 0.0, jnp.sin(yaw / 2)]))


def relative_observations(obs: dict[str, Array], touches: Bool[Array, "2"]) -> dict[str, Array]:
    """What `relative_observations` adds: differences in metres and, finer, squashed beyond NEARBY; pads' touch."""
    differences = (obs["object_pos"] - obs["ee_pos"], obs["target_pos"] - obs["object_pos"])
    added = dict(zip(RELATIVE, differences, strict=True))
    near = {name + "_near": jnp.tanh(value / NEARBY) for name, value in added.items()}
    return added | near | {"touch": touches.astype(jnp.float32)}


def relative_bounds() -> dict[str, Bounds]:
    """Bounds of `relative_observations`."""
    bounds: dict[str, Bounds] = {}
    for name in RELATIVE:
        bounds[name] = (np.full(3, -2 * MAX_REACH), np.full(3, 2 * MAX_REACH))
        bounds[name + "_near"] = (np.full(3, -1.0), np.full(3, 1.0))
    return bounds | {"touch": (np.zeros(2), np.ones(2))}


def is_slow(snapshot: Snapshot, speed: float) -> Bool[Array, ""]:
    """Whether the object moves slower than `speed` m/s."""
    return jnp.linalg.norm(snapshot.object_vel[0, :3]) < speed
