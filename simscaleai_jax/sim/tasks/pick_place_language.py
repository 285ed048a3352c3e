"""Pick and place by instruction: three coloured cubes, two marked pads, and a sentence that says which goes where.

Success is the cube that is meant, lifted in this episode, resting on the pad that is meant, slow and touched by no
finger. Lifting another cube, letting the cube go on the other pad, or losing one from the workspace is failure; all of
them end the episode for good. The left pad is the one to the robot's left. Nothing but the instruction tells what is
meant: the observation holds the poses of all three cubes, in the order of `COLOURS`.
"""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from simscaleai_jax.core.text import LENGTH, SYMBOLS
from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.robot.feasibility import check_fits_gripper
from simscaleai_jax.sim.tasks.base import (
    MAX_REACH,
    BaseTask,
    Bounds,
    Start,
    arm_bounds,
    arm_observation,
    joints_near_home,
)
from simscaleai_jax.sim.tasks.expert import CLOSED, OPEN, Expert, Stage, StagePhase, first_phase, follow
from simscaleai_jax.sim.tasks.grasping.expert import grasp_stages, is_lost, opened
from simscaleai_jax.sim.tasks.grasping.stages import clearance, grasp_progress, grasped
from simscaleai_jax.sim.tasks.instructions import Instructions, check_phrases, sentences
from simscaleai_jax.sim.tasks.progress import advance, closeness, no_progress, weighted
from simscaleai_jax.sim.tasks.snapshot import Snapshot
from simscaleai_jax.sim.tasks.tabletop import (
    TabletopConfig,
    check_area,
    check_settings,
    draw_yaw,
    has_left,
    is_slow,
    pose,
    scatter,
)

COLOURS = ("red", "blue", "green")  # of the scene's objects, in their order
SIDES = ("left", "right")  # of the scene's targets, in their order
GOALS = tuple(itertools.product(COLOURS, SIDES))  # a goal's number is 2 * cube + pad
# For training many sentences that differ in where the words stand that matter, as in `reach_language`.
LONGEST = 50
NOUNS = ("the {colour} cube", "the {colour} block", "the {colour} one", "the cube that is {colour}")
ORDERS = (
    ("", "please ", "robot, ", "now ", "next, "),
    ("put ", "place ", "move ", "set ", "bring ", "carry "),
    NOUNS,
    (" on the {side} pad", " onto the {side} pad", " to the {side}", " on the {side}"),
)
STATEMENTS = (
    ("", "now ", "robot, "),
    NOUNS,
    (
        " belongs on the {side} pad",
        ", {side} pad",
        " to the {side}, please",
        " must lie on the {side}",
        " should be {side}",
    ),
)
PLACES = (("", "robot, ", "now "), ("{side} pad, ", "to the {side} with ", "over to the {side}, "), NOUNS)
HELD_OUT = (
    "the {colour} cube goes on the {side} pad",
    "take the {colour} cube to the {side} pad",
    "i want the {colour} block on the {side}",
    "on the {side} pad, put the {colour} cube",
    "pick the {colour} one and place it {side}",
    "drop the {colour} cube on the {side} pad",
)
STAGES = ("reach", "grasp", "lift", "place", "release")
RISE = 5.0  # half heights of a cube above where it rests that the arm must reach
CARRIED = 3.75  # half heights of clearance before moving sideways, over the other cubes
OVER = 4.0  # half heights above where it will rest, at which the cube is carried
ALIGNED = 0.012  # m sideways from which on it is lowered
LANDED = 0.003  # m above where it rests from which on it is let go
RELEASE_STEPS = 25  # control steps after which a cube that does not rest is grasped anew


@dataclasses.dataclass(frozen=True)
class PickPlaceLanguageConfig(TabletopConfig):
    """Metres and m/s; see `TabletopConfig` for the area of the cubes and the workspace.

    `phrases` chooses the sentences: "train", or "held_out", which no demonstration has. `observe_goal` adds what the
    instruction means to the observation, for policies that read no text and as targets for those that do: "goal", one
    hot, and in metres "object_pos" of the cube that is meant and "target_pos" where it belongs.
    """

    area_low: tuple[float, float] = (0.4, -0.14)
    area_high: tuple[float, float] = (0.62, 0.14)
    min_distance: float = 0.11
    pad_pos: tuple[float, float] = (0.5, 0.25)  # of the left pad's centre; the right one is opposite
    pad_size: float = 0.06  # half the side of the square that a cube's centre must lie over
    height_tolerance: float = 0.01
    lift_height: float = 0.02  # m between a cube's lowest corner and the table from which on it counts as lifted
    success_speed: float = 0.1
    phrases: str = "train"
    observe_goal: bool = False
    reach_weight: float = 1.0
    grasp_weight: float = 1.0
    lift_weight: float = 1.0
    place_weight: float = 4.0
    release_weight: float = 2.0
    success_bonus: float = 8.0
    failure_penalty: float = 1.0
    action_penalty: float = 0.002  # per squared unit of action and step

    @classmethod
    def for_workspace(cls, low: tuple[float, ...], high: tuple[float, ...]) -> dict[str, Any]:
        """Settings for an arm that reaches the box `low`..`high` (m): the pads at its sides, the cubes between them."""
        (left, near), (right, far) = low[:2], high[:2]
        middle, half = 0.5 * (near + far), 0.5 * (far - near)
        pad = min(cls.pad_size, 0.25 * half)
        side = half - 0.5 * pad
        inner = side - 1.8 * pad
        apart = min(cls.min_distance, 0.5 * min(right - left, 2.0 * inner))
        return {
            "area_low": (left, middle - inner),
            "area_high": (right, middle + inner),
            "min_distance": apart,
            "pad_pos": (0.5 * (left + right), middle + side),
            "pad_size": pad,
            "workspace_low": (left - 0.2, near - 0.25, cls.workspace_low[2]),
            "workspace_high": (right + 0.2, far + 0.25, cls.workspace_high[2]),
        }

    def __post_init__(self) -> None:
        weights = ("success_bonus", "failure_penalty", "action_penalty", *(f"{name}_weight" for name in STAGES))
        check_settings(self, ("pad_size", "height_tolerance", "lift_height", "success_speed"), weights)
        check_phrases(self.phrases)
        half = 0.5 * float(np.min(np.subtract(self.area_high, self.area_low)))
        if self.min_distance > half + 1e-9:
            raise ValueError(f"min_distance must be at most half the area's shorter side, {half:.3f} m, got "
                             f"{self.min_distance}")  # fmt: skip
        if self.pad_pos[1] - self.pad_size <= self.area_high[1] or -self.pad_pos[1] + self.pad_size >= self.area_low[1]:
            raise ValueError(f"the pads at y = ±{self.pad_pos[1]} m must lie outside area_low..area_high")


@struct.dataclass
class PickPlaceLanguageState:
    """Goal and latches of one episode."""

    goal: Int[Array, ""]  # number in GOALS
    sentence: Int[Array, ""]  # what is said of it, by its number
    target_pos: Float[Array, "3"]  # m, where the cube's centre belongs
    table_height: Float[Array, ""]  # m, top of the table
    half_size: Float[Array, "3"]  # m, of the cube that is meant
    lifted: Bool[Array, ""]  # it has left the table in this episode
    has_potential: Bool[Array, ""]
    potential: dict[str, Float[Array, ""]]
    progress: dict[str, Float[Array, ""]]


class PickPlaceLanguageTask(BaseTask):
    """See `Task` for what each function means."""

    name = "pick_place_language"
    instructions = Instructions(
        goals=tuple(f"put the {colour} cube on the {side} pad" for colour, side in GOALS),
        train=tuple(
            tuple(
                text
                for parts in (ORDERS, STATEMENTS, PLACES)
                for text in sentences(*parts, longest=LONGEST, colour=colour, side=side)
            )
            for colour, side in GOALS
        ),
        held_out=tuple(sentences(HELD_OUT, colour=colour, side=side) for colour, side in GOALS),
    )

    def __init__(self, robot: Robot, config: PickPlaceLanguageConfig | None = None) -> None:
        super().__init__(robot, config or PickPlaceLanguageConfig())
        check_fits_gripper(robot)
        check_area(
            robot, self.config, self.goal_corners(robot.table_height), "bring area_low..area_high and pads nearer"
        )

    def goal_corners(self, table_height: float) -> np.ndarray:
        """Corners (K, 3) m of the range of cubes and pads over a table of that height, m."""
        x, y = self.config.pad_pos
        places = [*itertools.product(*zip(self.config.area_low, self.config.area_high, strict=True)), (x, y), (x, -y)]
        half = float(self.robot.object_half_size[0][2])
        return np.array([(*place, table_height + half + rise) for place in places for rise in (0.0, RISE * half)])

    def sample(self, key: PRNGKeyArray, overrides: dict[str, Array]) -> tuple[Start, PickPlaceLanguageState]:
        config, robot, keys = self.config, self.robot, jax.random.split(key, 5)
        table = jnp.float32(overrides.get("table_height", robot.table_height))
        sizes = jnp.asarray(robot.object_half_size[: len(COLOURS)], jnp.float32)
        sizes = sizes.at[0].set(overrides.get("object_half_size", sizes[0]))
        joints = joints_near_home(robot, keys[0], config.joint_noise)
        spots = scatter(keys[1], config.area_low, config.area_high, len(COLOURS), config.min_distance)
        cubes = jnp.concatenate([spots, table + sizes[:, 2:]], axis=1)
        yaws = jax.vmap(lambda one: draw_yaw(one, config))(jax.random.split(keys[2], len(COLOURS)))
        x, y = config.pad_pos
        pads = jnp.stack([jnp.stack([jnp.float32(x), jnp.float32(side), table]) for side in (y, -y)])
        goal = jax.random.randint(keys[3], (), 0, len(GOALS))
        half_size = sizes[goal // 2]
        zeros = no_progress(STAGES)
        state = PickPlaceLanguageState(
            goal=goal,
            sentence=self.instructions.draw(keys[4], goal, config.phrases),
            target_pos=pads[goal % 2].at[2].set(table + half_size[2]),
            table_height=table,
            half_size=half_size,
            lifted=jnp.bool_(False),
            has_potential=jnp.bool_(False),
            potential=zeros,
            progress=zeros,
        )
        objects = jax.vmap(pose)(cubes, yaws)
        return robot.start(joints, robot.finger_range[1], objects, pads, overrides), state

    def update(
        self, snapshot: Snapshot, task_state: PickPlaceLanguageState, action: Float[Array, "A"]
    ) -> PickPlaceLanguageState:
        height = clearance(meant(snapshot, task_state), task_state.half_size, task_state.table_height)
        state = task_state.replace(lifted=task_state.lifted | (height > self.config.lift_height))
        return advance(state, self.potentials(snapshot, state))

    def potentials(self, snapshot: Snapshot, task_state: PickPlaceLanguageState) -> dict[str, Float[Array, ""]]:
        """How far along each stage is, in [0, 1]; all zero after a failure. A cube that rests on its pad has the grasp
        behind it, and only letting it go is left.
        """
        view, config = meant(snapshot, task_state), self.config
        is_held, rests = grasped(view, config.touch_force), self._rests(view, task_state, task_state.target_pos)
        half_width, widest = jnp.min(task_state.half_size[:2]), float(self.robot.finger_range[1])
        height = clearance(view, task_state.half_size, task_state.table_height)
        rises = jnp.clip(height / config.lift_height, 0.0, 1.0)
        openness = jnp.clip((view.gripper[0] - half_width) / (widest - half_width), 0.0, 1.0)
        goal_dist = jnp.linalg.norm(view.object_pos[0] - task_state.target_pos)
        stages = {
            "reach": closeness(jnp.linalg.norm(view.ee_pos - view.object_pos[0])),
            "grasp": grasp_progress(view, half_width, widest, is_held),
            "lift": jnp.where(is_held, jnp.where(task_state.lifted, 1.0, rises), 0.0),
        }
        stages = {name: jnp.where(rests, 1.0, value) for name, value in stages.items()}
        stages["place"] = jnp.where((is_held & task_state.lifted) | rests, closeness(goal_dist), 0.0)
        stages["release"] = jnp.where(rests, openness, 0.0)
        failed = self.has_failed(snapshot, task_state)
        return {name: jnp.where(failed, 0.0, value) for name, value in stages.items()}

    def observe(self, snapshot: Snapshot, task_state: PickPlaceLanguageState) -> dict[str, Float[Array, "..."]]:
        """The arm, the cubes' positions (9,) m and orientations (12,), and the instruction's token ids."""
        arm = arm_observation(self.robot, snapshot)
        obs = {name: value for name, value in arm.items() if not name.startswith("object_")} | {
            "cubes_pos": jnp.clip(snapshot.object_pos[: len(COLOURS)], -MAX_REACH, MAX_REACH).reshape(-1),
            "cubes_quat": jnp.clip(snapshot.object_quat[: len(COLOURS)], -1.0, 1.0).reshape(-1),
            "language": self.instructions.observe(task_state.sentence),
        }
        if not self.config.observe_goal:
            return obs
        place = meant(snapshot, task_state).object_pos[0]
        goal = {"goal": jax.nn.one_hot(task_state.goal, len(GOALS)), "target_pos": task_state.target_pos}
        return obs | goal | {"object_pos": jnp.clip(place, -MAX_REACH, MAX_REACH)}

    def observation_bounds(self) -> dict[str, Bounds]:
        places, turns = np.full(3 * len(COLOURS), MAX_REACH), np.ones(4 * len(COLOURS))
        arm = {name: value for name, value in arm_bounds(self.robot).items() if not name.startswith("object_")}
        bounds: dict[str, Bounds] = arm | {
            "cubes_pos": (-places, places),
            "cubes_quat": (-turns, turns),
            "language": (np.zeros(LENGTH), np.full(LENGTH, len(SYMBOLS))),
        }
        if not self.config.observe_goal:
            return bounds
        place = np.full(3, MAX_REACH)
        return (
            bounds | {"goal": (np.zeros(6), np.ones(6))} | dict.fromkeys(("object_pos", "target_pos"), (-place, place))
        )

    def reward_terms(
        self,
        snapshot: Snapshot,
        task_state: PickPlaceLanguageState,
        action: Float[Array, "A"],
        steps_left: Int[Array, ""],
    ) -> dict[str, Float[Array, ""]]:
        config = self.config
        return weighted(config, STAGES, task_state.progress) | {
            "success": jnp.where(self.has_arrived(snapshot, task_state), config.success_bonus, 0.0),
            "failure": jnp.where(self.has_failed(snapshot, task_state), -config.failure_penalty, 0.0),
            "action": -config.action_penalty * jnp.sum(action * action),
        }

    def terminated(self, snapshot: Snapshot, task_state: PickPlaceLanguageState) -> Bool[Array, ""]:
        return self.has_arrived(snapshot, task_state) | self.has_failed(snapshot, task_state)

    def info(self, snapshot: Snapshot, task_state: PickPlaceLanguageState) -> dict[str, Array]:
        view = meant(snapshot, task_state)
        return {
            "reach_dist": jnp.linalg.norm(view.ee_pos - view.object_pos[0]),
            "place_dist": jnp.linalg.norm(view.object_pos[0] - task_state.target_pos),
            "grasped": grasped(view, self.config.touch_force),
            "lifted": task_state.lifted,
            "goal": task_state.goal,
            "sentence": task_state.sentence,
            "failed": self.has_failed(snapshot, task_state),
            "success": self.has_arrived(snapshot, task_state),
        }

    def has_arrived(self, snapshot: Snapshot, task_state: PickPlaceLanguageState) -> Bool[Array, ""]:
        """Whether the cube that is meant was put on its pad."""
        return self._is_put(meant(snapshot, task_state), task_state, task_state.target_pos)

    def has_failed(self, snapshot: Snapshot, task_state: PickPlaceLanguageState) -> Bool[Array, ""]:
        """Whether another cube was lifted, the cube was put on the other pad, or any of them left the workspace."""
        others = [meant(snapshot, task_state, number) for number in range(1, len(COLOURS))]
        half_size, table = jnp.asarray(self.robot.object_half_size[0], jnp.float32), task_state.table_height
        lifted = [clearance(view, half_size, table) > self.config.lift_height for view in others]
        gone = [has_left(self.config, place, table) for place in snapshot.object_pos[: len(COLOURS)]]
        mistaken = self._is_put(meant(snapshot, task_state), task_state, task_state.target_pos * jnp.array([1, -1, 1]))
        return jnp.any(jnp.stack([*lifted, *gone, mistaken]))

    def _is_put(self, view: Snapshot, task_state: PickPlaceLanguageState, place: Float[Array, "3"]) -> Bool[Array, ""]:
        is_free = jnp.all(view.touch[0] == 0.0)
        return self._rests(view, task_state, place) & is_free & is_slow(view, self.config.success_speed)

    def _rests(self, view: Snapshot, task_state: PickPlaceLanguageState, place: Float[Array, "3"]) -> Bool[Array, ""]:
        """Whether the cube, lifted in this episode, lies on the pad around `place`, held or not."""
        miss = jnp.abs(view.object_pos[0] - place)
        is_over = jnp.all(miss[:2] < self.config.pad_size)
        return task_state.lifted & is_over & (miss[2] < self.config.height_tolerance)


def meant(snapshot: Snapshot, task_state: PickPlaceLanguageState, number: int = 0) -> Snapshot:
    """The snapshot with the cube first that is meant, or the `number`-th after it, as tasks with one object have it."""
    first = task_state.goal // 2 + number
    names = ("object_pos", "object_quat", "object_vel", "touch")
    return snapshot.replace(**{name: jnp.roll(getattr(snapshot, name), -first, axis=0) for name in names})


def make_expert(task: PickPlaceLanguageTask) -> Expert:
    """The expert for a task's gripper and settings."""
    return Expert(functools.partial(language_expert, task=task, opened=opened(task)), first_phase())


def language_expert(
    snapshot: Snapshot, task_state: PickPlaceLanguageState, phase: StagePhase, *, task: Any, opened: float
) -> tuple[Float[Array, "4"], StagePhase]:
    """Grasp, raise above the other cubes, carry over the pad, lower, let go, rise.

    `opened` is the opening of one finger, m, from which on the gripper counts as open.
    """
    view = meant(snapshot, task_state)
    way, gone = task_state.target_pos - view.object_pos[0], is_lost(view)
    height = clearance(view, task_state.half_size, task_state.table_height)
    over, carried = (halves * task_state.half_size[2] for halves in (OVER, CARRIED))
    tried = phase.waited > RELEASE_STEPS
    stages = [
        *grasp_stages(view, task_state, phase, opened),
        Stage(jnp.zeros(3).at[2].set(over - height), 0.5, 0.5, CLOSED, height > carried, gone),
        Stage(way.at[2].add(over), 0.35, 0.6, CLOSED, jnp.linalg.norm(way[:2]) < ALIGNED, gone),
        Stage(way.at[2].add(-LANDED), 0.35, 0.3, CLOSED, -way[2] < LANDED, gone),
        Stage(jnp.zeros(3), 0.0, 0.0, OPEN, view.gripper[0] > opened, tried),
        Stage(jnp.zeros(3).at[2].set(over), 0.5, 0.4, OPEN, False, tried),
    ]
    return follow(stages, phase, grasped(view, task.config.touch_force))
