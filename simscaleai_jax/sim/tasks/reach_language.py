"""Reach by instruction: three coloured balls lie on the table, and the instruction says which of them to touch.

Touching it is success, touching another one is failure, and either ends the episode for good. Nothing but the
instruction tells which one is meant: the observation holds the places of all three, in the order of `COLOURS`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from simscaleai_jax.core.config import settle
from simscaleai_jax.core.text import LENGTH, SYMBOLS
from simscaleai_jax.sim.control import STEP
from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.robot.ik import check_reachable
from simscaleai_jax.sim.tasks.base import (
    MAX_REACH,
    BaseTask,
    Bounds,
    Start,
    arm_bounds,
    arm_observation,
    joints_near_home,
)
from simscaleai_jax.sim.tasks.expert import OPEN, Expert
from simscaleai_jax.sim.tasks.instructions import Instructions, check_phrases, sentences
from simscaleai_jax.sim.tasks.snapshot import Snapshot
from simscaleai_jax.sim.tasks.tabletop import scatter

COLOURS = ("green", "red", "blue")  # of the scene's targets, in their order
# For training many sentences that differ in where the colour stands and in what stands around it: a model that reads
# characters has no other way to learn that only the colour matters.
LONGEST = 42
NOUNS = (
    "the {colour} ball", "the ball that is {colour}", "the {colour} sphere", "the {colour} one", "that {colour} thing",
    "the one in {colour}",
)  # fmt: skip
ORDERS = (
    ("", "please ", "now ", "robot, ", "can you ", "next, ", "you should "),
    ("touch ", "tap ", "reach ", "reach for ", "move to ", "point at "),
    NOUNS,
    ("", " now", " on the table"),
)
STATEMENTS = (
    ("", "now ", "robot, ", "this time "),
    ("the {colour} ball", "the {colour} one", "the {colour} sphere", "{colour}"),
    (
        ", touch it", " is your goal", ", please", " is next", " it is", " should be touched", ", go there",
        " is what you tap", " is the right one",
    ),
)  # fmt: skip
WAYS = (("to ", "over to ", "straight to ", "of the balls, choose "), NOUNS, ("", " and stop there"))
HELD_OUT = (
    "bring your hand to the {colour} ball",
    "the {colour} ball is the one to touch",
    "i want the {colour} one touched",
    "could you touch the {colour} sphere?",
    "find the ball that is {colour} and tap it",
    "head for the {colour} ball",
)
RADIUS = 0.05  # m, of a ball
REACHED = 0.01  # m by which the arm may miss a corner of the area


@dataclasses.dataclass(frozen=True)
class ReachLanguageConfig:
    """Balls lie in the rectangle `area_low`..`area_high` of the table (m), their centres `min_distance` apart.

    `phrases` chooses the sentences: "train", or "held_out", which no demonstration has. `observe_goal` adds what the
    instruction means to the observation, for policies that read no text.
    """

    area_low: tuple[float, float] = (0.35, -0.3)
    area_high: tuple[float, float] = (0.65, 0.3)
    min_distance: float = 0.15
    joint_noise: float = 0.05  # rad, uniform either way around the home pose
    touch_distance: float = 0.05  # m between the tool and a ball's centre
    phrases: str = "train"
    observe_goal: bool = False
    distance_weight: float = 1.0  # per metre
    touch_bonus: float = 1.0  # per step that is left when the right ball is touched; lost when a wrong one is

    @classmethod
    def for_workspace(cls, low: tuple[float, ...], high: tuple[float, ...]) -> dict[str, Any]:
        """Settings for an arm that reaches the box `low`..`high` (m)."""
        apart = min(cls.min_distance, 0.5 * float(np.min(np.subtract(high[:2], low[:2]))))
        area = {"area_low": tuple(low[:2]), "area_high": tuple(high[:2])}
        return area | {"min_distance": apart, "touch_distance": min(cls.touch_distance, 0.35 * apart)}

    def __post_init__(self) -> None:
        settle(self)
        sides = np.subtract(self.area_high, self.area_low)
        if not np.all(sides > 0.0):
            raise ValueError(f"area_low must lie below area_high, got {self.area_low} and {self.area_high}")
        if not 0.0 < self.min_distance <= 0.5 * float(np.min(sides)) + 1e-9:
            half = f"half the shorter side of the area, {0.5 * np.min(sides):.3f} m"
            raise ValueError(f"min_distance must be positive and at most {half}; got {self.min_distance}")
        if not 0.0 < self.touch_distance < 0.5 * self.min_distance:
            half = 0.5 * self.min_distance
            raise ValueError(f"touch_distance must be positive and below {half} m, got {self.touch_distance}")
        for name in ("joint_noise", "distance_weight", "touch_bonus"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        check_phrases(self.phrases)


@struct.dataclass
class ReachLanguageState:
    """Goal of one episode."""

    balls_pos: Float[Array, "3 3"]  # m, centres
    goal: Int[Array, ""]  # which of them
    sentence: Int[Array, ""]  # what is said of it, by its number


class ReachLanguageTask(BaseTask):
    """See `Task` for what each function means."""

    name = "reach_language"
    instructions = Instructions(
        goals=tuple(f"touch the {colour} ball" for colour in COLOURS),
        train=tuple(
            tuple(
                text
                for parts in (ORDERS, STATEMENTS, WAYS)
                for text in sentences(*parts, longest=LONGEST, colour=colour)
            )
            for colour in COLOURS
        ),
        held_out=tuple(sentences(HELD_OUT, colour=colour) for colour in COLOURS),
    )

    def __init__(self, robot: Robot, config: ReachLanguageConfig | None = None) -> None:
        super().__init__(robot, config or ReachLanguageConfig())
        check_reachable(robot, self.goal_corners(robot.table_height), REACHED, "make area_low..area_high smaller")

    def goal_corners(self, table_height: float) -> np.ndarray:
        """Corners (4, 3) m of the range of the balls on a table of that height, m."""
        (left, near), (right, far) = self.config.area_low, self.config.area_high
        return np.array([[x, y, table_height + RADIUS] for x in (left, right) for y in (near, far)])

    def sample(self, key: PRNGKeyArray, overrides: dict[str, Array]) -> tuple[Start, ReachLanguageState]:
        config, keys = self.config, jax.random.split(key, 4)
        joints = joints_near_home(self.robot, keys[0], config.joint_noise)
        places = scatter(keys[1], config.area_low, config.area_high, len(COLOURS), config.min_distance)
        height = jnp.float32(overrides.get("table_height", self.robot.table_height)) + RADIUS
        balls = jnp.concatenate([places, jnp.full((len(COLOURS), 1), height)], axis=1)
        goal = jax.random.randint(keys[2], (), 0, len(COLOURS))
        sentence = self.instructions.draw(keys[3], goal, config.phrases)
        start = self.robot.start(joints, target_pos=balls, overrides=overrides)
        return start, ReachLanguageState(balls, goal, sentence)

    def observe(self, snapshot: Snapshot, task_state: ReachLanguageState) -> dict[str, Float[Array, "..."]]:
        """The arm, the balls' places one after the other (9,) m, and the instruction's token ids."""
        obs = arm_observation(self.robot, snapshot) | {
            "balls_pos": task_state.balls_pos.reshape(-1),
            "language": self.instructions.observe(task_state.sentence),
        }
        return obs | {"goal": jax.nn.one_hot(task_state.goal, len(COLOURS))} if self.config.observe_goal else obs

    def observation_bounds(self) -> dict[str, Bounds]:
        places = np.full(3 * len(COLOURS), MAX_REACH)
        bounds = arm_bounds(self.robot) | {
            "balls_pos": (-places, places),
            "language": (np.zeros(LENGTH), np.full(LENGTH, len(SYMBOLS))),
        }
        return bounds | {"goal": (np.zeros(3), np.ones(3))} if self.config.observe_goal else bounds

    def reward_terms(
        self, snapshot: Snapshot, task_state: ReachLanguageState, action: Float[Array, "A"], steps_left: Int[Array, ""]
    ) -> dict[str, Float[Array, ""]]:
        touched = self._touched(snapshot, task_state)
        right = touched[task_state.goal]
        bonus = self.config.touch_bonus * steps_left
        return {
            "distance": -self.config.distance_weight * self._distances(snapshot, task_state)[task_state.goal],
            "touch": jnp.where(right, bonus, jnp.where(jnp.any(touched), -bonus, 0.0)),
        }

    def terminated(self, snapshot: Snapshot, task_state: ReachLanguageState) -> Bool[Array, ""]:
        return jnp.any(self._touched(snapshot, task_state))

    def info(self, snapshot: Snapshot, task_state: ReachLanguageState) -> dict[str, Array]:
        touched = self._touched(snapshot, task_state)
        return {
            "distance": self._distances(snapshot, task_state)[task_state.goal],
            "goal": task_state.goal,
            "sentence": task_state.sentence,
            "failed": jnp.any(touched) & ~touched[task_state.goal],
            "success": touched[task_state.goal],
        }

    def _distances(self, snapshot: Snapshot, task_state: ReachLanguageState) -> Float[Array, "3"]:
        return jnp.linalg.norm(snapshot.ee_pos - task_state.balls_pos, axis=1)

    def _touched(self, snapshot: Snapshot, task_state: ReachLanguageState) -> Bool[Array, "3"]:
        return self._distances(snapshot, task_state) < self.config.touch_distance


def reach_expert(snapshot: Snapshot, task_state: ReachLanguageState, phase: Any) -> tuple[Float[Array, "4"], Any]:
    """Straight to the ball from above, which no other one is in the way of."""
    move = 0.4 * (task_state.balls_pos[task_state.goal] - snapshot.ee_pos) / STEP
    return jnp.append(move / jnp.maximum(1.0, jnp.max(jnp.abs(move))), OPEN), phase


def make_expert(task: ReachLanguageTask) -> Expert:
    """The expert, the same for every arm."""
    return Expert(reach_expert)
