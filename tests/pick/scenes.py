"""Plain-array snapshots of the pick-and-place scene, and the task they are put to."""

import functools

import jax.numpy as jnp
import numpy as np

from simscaleai_jax.sim.registry import asset
from simscaleai_jax.sim.robot import PICKING, Robot, find_robot, load_model
from simscaleai_jax.sim.tasks.grasping.task import GraspState
from simscaleai_jax.sim.tasks.pick_place.config import PickPlaceConfig
from simscaleai_jax.sim.tasks.pick_place.task import PickPlaceTask
from simscaleai_jax.sim.tasks.snapshot import Snapshot

HALF = 0.02  # m
TARGET = (0.5, 0.1, 0.12)
STILL = (0.0, 0.0, 0.0)


@functools.cache
def robot() -> Robot:
    return find_robot(load_model(asset("pick_place.xml"), 0.01), PICKING)


@functools.cache
def task(**settings) -> PickPlaceTask:
    return PickPlaceTask(robot(), PickPlaceConfig(**settings))


def snapshot(object_pos, ee_pos=(0.5, 0.0, 0.4), vel=STILL, touch=(0.0, 0.0), quat=(1.0, 0.0, 0.0, 0.0)) -> Snapshot:
    """A scene with the object and the tool where the test wants them."""
    home = robot()
    return Snapshot(
        joint_pos=jnp.asarray(home.home_qpos[:7], jnp.float32),
        joint_vel=jnp.zeros(7),
        ctrl=jnp.asarray(home.home_ctrl, jnp.float32),
        ee_pos=jnp.array(ee_pos, jnp.float32),
        ee_mat=jnp.asarray(home.home_ee_mat, jnp.float32),
        ee_jac=jnp.zeros((6, 7)),
        gripper=jnp.array([0.04]),
        object_pos=jnp.array([object_pos], jnp.float32),
        object_quat=jnp.array([quat], jnp.float32),
        object_vel=jnp.array([[*vel, 0.0, 0.0, 0.0]], jnp.float32),
        touch=jnp.array([touch], jnp.float32),
    )


def fresh_state(target=TARGET, lifted=False) -> GraspState:
    zeros = {name: jnp.float32(0.0) for name in ("reach", "grasp", "lift", "place")}
    no = jnp.bool_(False)
    return GraspState(
        target_pos=jnp.array(target, jnp.float32),
        table_height=jnp.float32(0.0),
        half_size=jnp.full(3, HALF, jnp.float32),
        lifted=jnp.bool_(lifted),
        assisted=no,
        has_potential=no,
        potential=zeros,
        progress=zeros,
    )


def play(snapshots, target=TARGET, **settings):
    """Total of each reward term over a sequence of scenes, the last scene's info, and whether it ended an episode."""
    of = task(**settings)
    state, action = fresh_state(target), jnp.zeros(4)
    totals: dict[str, float] = {}
    for index, scene in enumerate(snapshots):
        state = of.update(scene, state, action)
        terms = of.reward_terms(scene, state, action, jnp.int32(100 - index))
        totals = {name: totals.get(name, 0.0) + float(value) for name, value in terms.items()}
    info = {name: np.asarray(value).item() for name, value in of.info(snapshots[-1], state).items()}
    return totals, info, bool(of.terminated(snapshots[-1], state))
