"""A task of your own: follow a point that moves on a circle. Written once, it runs on MuJoCo and in thousands of MJX
copies.

python examples/custom_task.py                    plays it with a hand-written policy, on MuJoCo
python examples/custom_task.py --train            trains PPO on it, batched on MJX
"""

import sys

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from simscaleai_jax.sim import TaskEntry, exact_random, make_batched_env, make_env, register_task
from simscaleai_jax.sim.control import ACTION_SIZE, cartesian_control
from simscaleai_jax.sim.registry import asset
from simscaleai_jax.sim.tasks.base import Start
from simscaleai_jax.sim.tasks.reach import ReachConfig, ReachTask

CENTRE = np.array([0.5, 0.0, 0.3], np.float32)  # m
RADIUS = 0.12  # m
TURN = 0.1  # rad per control step


@struct.dataclass
class TrackState:
    angle: Float[Array, ""]  # rad, where on the circle the point is


def point(state: TrackState) -> Float[Array, "3"]:
    """Position of the moving point, m."""
    return CENTRE + RADIUS * jnp.stack([jnp.zeros_like(state.angle), jnp.cos(state.angle), jnp.sin(state.angle)])


class TrackTask:
    """Stay within 5 cm of the moving point; the reward is minus the distance to it."""

    name = "track"
    action_size = ACTION_SIZE

    def __init__(self, robot, config: ReachConfig) -> None:
        self.robot = robot
        self._reach = ReachTask(robot, config)  # starts like reach does

    def sample(self, key, overrides):
        start, _ = self._reach.sample(key, overrides)
        state = TrackState(exact_random.uniform(key, (), 0.0, 2 * jnp.pi))
        mocap_pos = start.mocap_pos.at[self.robot.target_mocap].set(point(state))
        return Start(start.qpos, start.ctrl, mocap_pos, start.mocap_quat), state

    def control(self, snapshot, state, action):
        return cartesian_control(self.robot, snapshot, action)

    def update(self, snapshot, state, action):
        return TrackState(state.angle + TURN)

    def observe(self, snapshot, state):
        return {
            "ee_pos": snapshot.ee_pos,
            "target_pos": point(state),
            "target_next": point(TrackState(state.angle + TURN)),
        }

    def observation_bounds(self):
        return {key: (np.full(3, -2.0), np.full(3, 2.0)) for key in ("ee_pos", "target_pos", "target_next")}

    def reward_terms(self, snapshot, state, action, steps_left):
        return {"distance": -jnp.linalg.norm(snapshot.ee_pos - point(state))}

    def terminated(self, snapshot, state):
        return jnp.bool_(False)

    def info(self, snapshot, state):
        distance = jnp.linalg.norm(snapshot.ee_pos - point(state))
        return {"distance": distance, "success": distance < 0.05}


register_task("track", TaskEntry(TrackTask, ReachConfig, asset("reach.xml")))


def play() -> float:
    """Mean distance (m) of the policy that heads for where the point will be."""
    env = make_env("track", cameras=[])
    obs, _ = env.reset(seed=0)
    distances: list[float] = []
    for _ in range(100):
        move = (obs["target_next"] - obs["ee_pos"]) / 0.05
        obs, _, _, _, info = env.step(np.append(move, 1.0))
        distances.append(info["distance"])
    return float(np.mean(distances[20:]))


def train() -> None:
    from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig

    env = make_batched_env("track", cameras=[], dt=0.01, max_episode_steps=100)
    PPOAgent.for_env(env, PPOConfig(num_envs=256, n_steps=8192, num_minibatches=8, total_timesteps=200_000)).train(env)


if __name__ == "__main__":
    if "--train" in sys.argv:
        train()
    else:
        print(f"mean distance {play() * 1000:.1f} mm")
