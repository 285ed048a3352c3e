"""Plain-array snapshots of the tabletop scenes, and whole episodes of a task's reward terms over them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from simscaleai_jax.sim.registry import find_task
from simscaleai_jax.sim.robot import find_robot, load_model
from simscaleai_jax.sim.tasks.snapshot import Snapshot

HALF = 0.02  # m
PRESSED, FREE = (3.0, 3.0), (0.0, 0.0)  # N on each pad


@functools.cache
def task(name, **settings):
    entry = find_task(name)
    robot = find_robot(load_model(entry.xml_path, 0.01), entry.needs)
    return entry.make_task(robot, entry.config_cls(**settings))


def scene(of, *objects, ee_pos=(0.5, 0.0, 0.4), vel=(0.0, 0.0, 0.0), touch=FREE, gripper=0.04) -> Snapshot:
    """The task's robot with its objects (upright) and its tool where the test wants them."""
    home, count = of.robot, len(objects)
    velocity = np.zeros((count, 6), np.float32)
    velocity[:1, :3] = vel
    touches = np.zeros((count, 2), np.float32)
    touches[:1] = touch
    return Snapshot(
        joint_pos=jnp.asarray(home.home_qpos[:7], jnp.float32),
        joint_vel=jnp.zeros(7),
        ctrl=jnp.asarray(home.home_ctrl, jnp.float32),
        ee_pos=jnp.array(ee_pos, jnp.float32),
        ee_mat=jnp.asarray(home.home_ee_mat, jnp.float32),
        ee_jac=jnp.zeros((6, 7)),
        gripper=jnp.array([gripper], jnp.float32),
        object_pos=jnp.array(objects, jnp.float32),
        object_quat=jnp.tile(jnp.array([1.0, 0.0, 0.0, 0.0]), (count, 1)),
        object_vel=jnp.asarray(velocity),
        touch=jnp.asarray(touches),
    )


def fresh_state(of, target_pos):
    """The state of an episode that begins plainly, with that goal."""
    _, state = of.sample(jax.random.key(0), {})
    return state.replace(target_pos=jnp.array(target_pos, jnp.float32))


def play(of, state, scenes):
    """Total of each reward term over a sequence of scenes, the last scene's info, and whether it ended an episode."""
    action, totals = jnp.zeros(4), {}
    for index, now in enumerate(scenes):
        state = of.update(now, state, action)
        terms = of.reward_terms(now, state, action, jnp.int32(100 - index))
        totals = {name: totals.get(name, 0.0) + float(value) for name, value in terms.items()}
    info = {name: np.asarray(value).item() for name, value in of.info(now, state).items()}
    return totals, info, bool(of.terminated(now, state))


def starts(of, overrides=None, number=1000):
    """Starts and states of that many episodes."""
    keys = jax.random.split(jax.random.key(3), number)
    start, state = jax.jit(jax.vmap(lambda key: of.sample(key, overrides or {})))(keys)
    return jax.tree.map(np.asarray, (start, state))


def assert_inside(obs, bounds):
    assert set(bounds) == set(obs)
    for key, (low, high) in bounds.items():
        assert np.shape(low) == np.shape(high) == obs[key].shape
        assert np.all(np.isfinite(low) & np.isfinite(high))
        assert np.all((low <= np.asarray(obs[key])) & (np.asarray(obs[key]) <= high)), key
