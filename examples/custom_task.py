"""A task of your own in one file: sweep the cube to a goal on the table with the gripper closed.

python examples/custom_task.py                                                      plays its expert, on MuJoCo
simscale datagen --import examples/custom_task.py --env-name sweep --policy scripted
simscale rl --import examples/custom_task.py --env-name sweep
simscale eval --import examples/custom_task.py checkpoints/ppo_sweep
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from simscaleai_jax.sim import TaskEntry, exact_random, make_env, register_task
from simscaleai_jax.sim.registry import asset
from simscaleai_jax.sim.robot import PICKING
from simscaleai_jax.sim.tasks.base import BaseTask, joints_near_home
from simscaleai_jax.sim.tasks.expert import CLOSED, Expert


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    low: tuple[float, float] = (0.45, -0.15)  # m, where the cube and its goal may be
    high: tuple[float, float] = (0.6, 0.15)
    success_distance: float = 0.03


@struct.dataclass
class SweepState:
    target_pos: Float[Array, "3"]  # m


class SweepTask(BaseTask):
    name = "sweep"

    def sample(self, key, overrides):
        robot, low, high = self.robot, jnp.array(self.config.low), jnp.array(self.config.high)
        key_joints, key_cube, key_goal = jax.random.split(key, 3)
        height = overrides.get("table_height", robot.table_height) + robot.object_half_size[0, 2]
        cube = jnp.append(exact_random.uniform(key_cube, (2,), low, high), height)
        goal = jnp.append(exact_random.uniform(key_goal, (2,), low, high), height)
        joints, pose = joints_near_home(robot, key_joints, 0.05), jnp.append(cube, jnp.array([1.0, 0.0, 0.0, 0.0]))
        return robot.start(joints, 0.0, pose[None], goal, overrides), SweepState(goal)

    def control(self, snapshot, task_state, action):
        return super().control(snapshot, task_state, action.at[3].set(CLOSED))

    def reward_terms(self, snapshot, task_state, action, steps_left):
        to_cube = jnp.linalg.norm(snapshot.object_pos[0] - snapshot.ee_pos)
        info = self.info(snapshot, task_state)
        bonus = jnp.where(info["success"], 1.0 + steps_left, 0.0)
        return {"reach": -0.2 * to_cube, "push": -info["distance"], "arrival": bonus}

    def terminated(self, snapshot, task_state):
        return self.info(snapshot, task_state)["success"]

    def info(self, snapshot, task_state):
        distance = jnp.linalg.norm((snapshot.object_pos[0] - task_state.target_pos)[:2])
        return {"distance": distance, "success": distance < self.config.success_distance}


def sweep_expert(snapshot, task_state, is_low):
    """Above the far side of the cube, down, and through it towards the goal; up again when it slips away."""
    ee, cube = snapshot.ee_pos, snapshot.object_pos[0]
    way = (task_state.target_pos - cube)[:2]
    along = way / (jnp.linalg.norm(way) + 1e-6)
    offset = (cube - ee)[:2]
    aside = offset - along * jnp.dot(offset, along)
    is_behind = (jnp.linalg.norm(aside) < 0.015) & (jnp.dot(offset, along) > 0.02)
    is_low = jnp.where(is_low, jnp.linalg.norm(aside) < 0.025, is_behind)
    is_down = is_low & (ee[2] < cube[2] + 0.015)
    sideways = jnp.where(is_down, 0.02 * along + 0.6 * aside, offset - 0.055 * along)
    move = jnp.append(sideways, cube[2] + jnp.where(is_low, 0.0, 0.08) - ee[2])
    return jnp.append(jnp.clip(0.4 * move / 0.05, -0.6, 0.6), CLOSED), is_low


def play(episodes: int = 10) -> float:
    """Share of the expert's episodes that succeed on MuJoCo."""
    env = make_env("sweep", cameras=[])
    act = jax.jit(sweep_expert)
    successes = 0
    for seed in range(episodes):
        env.reset(seed=seed)
        is_low, is_over, info = False, False, {}
        while not is_over:
            action, is_low = act(env.unwrapped.snapshot, env.unwrapped.task_state, is_low)
            *_, terminated, truncated, info = env.step(action)
            is_over = terminated or truncated
        successes += info["success"]
    return successes / episodes


SCENE, SAYINGS = asset("pick_place.xml"), ("push the red cube to the green ball", "sweep the cube to the goal")
EXPERT = Expert(sweep_expert, first_phase=False)
register_task("sweep", TaskEntry(SweepTask, SweepConfig, SCENE, PICKING, lambda task: EXPERT, SAYINGS))

if __name__ == "__main__":
    print(f"success rate {play():.0%}")
