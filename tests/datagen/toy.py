"""A tiny functional environment with the contract of the real ones: a point that moves to a goal."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from simscaleai_jax.datagen.rollout import RolloutPolicy
from simscaleai_jax.sim.config import CameraConfig, SimConfig

STEP = 0.1  # m per unit of action
REACHED = 0.05  # m
IMAGE_SIZE = 8


@struct.dataclass
class ToyPhysics:
    qpos: jax.Array
    qvel: jax.Array


@struct.dataclass
class ToyState:
    physics: ToyPhysics
    goal: jax.Array
    obs: dict[str, jax.Array]
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    info: dict[str, jax.Array]
    step: jax.Array
    key: jax.Array


class ToyEnv:
    """Three axes and a gripper; shares of episodes have a dead motor, a state that is not finite, a full buffer."""

    action_size = 4

    def __init__(
        self,
        max_steps: int = 20,
        failing: float = 0.0,
        nan_share: float = 0.0,
        overflow_share: float = 0.0,
        image: bool = False,
    ) -> None:
        cameras = [CameraConfig(width=IMAGE_SIZE, height=IMAGE_SIZE)] if image else []
        self.config = SimConfig(max_episode_steps=max_steps, cameras=cameras)
        self.max_episode_steps = max_steps
        self.failing, self.nan_share, self.overflow_share, self.image = failing, nan_share, overflow_share, image
        self.observation_spec = jax.eval_shape(self.reset, jax.random.key(0)).obs

    def reset(self, key: jax.Array) -> ToyState:
        key_start, key_goal = jax.random.split(key)
        position = jax.random.uniform(key_start, (3,), minval=-1.0, maxval=1.0)
        goal = jax.random.uniform(key_goal, (3,), minval=-1.0, maxval=1.0)
        physics = ToyPhysics(position, jnp.zeros(3))
        info = {name: jnp.bool_(False) for name in ("success", "nan", "overflow")}
        no = jnp.bool_(False)
        return ToyState(physics, goal, self._observe(physics, goal), jnp.float32(0), no, no, info, jnp.int32(0), key)

    def step(self, state: ToyState, action: jax.Array) -> ToyState:
        luck = jax.random.uniform(jax.random.fold_in(state.key, 77), (3,))
        alive = luck[0] >= self.failing
        move = STEP * jnp.clip(action[:3], -1.0, 1.0) * alive
        physics = ToyPhysics(state.physics.qpos + move, move)
        distance = jnp.linalg.norm(physics.qpos - state.goal)
        success = distance < REACHED
        nan = (luck[1] < self.nan_share) & (state.step == 1)
        step = state.step + 1
        return state.replace(
            physics=physics,
            obs=self._observe(physics, state.goal),
            reward=-distance,
            terminated=success | nan,
            truncated=(step >= self.max_episode_steps) & ~success & ~nan,
            info={
                "success": success & ~nan,
                "nan": nan,
                "overflow": (luck[2] < self.overflow_share) & (state.step == 0),
            },
            step=step,
        )

    def _observe(self, physics: ToyPhysics, goal: jax.Array) -> dict[str, jax.Array]:
        obs = {"ee_pos": physics.qpos, "target_pos": goal}
        if self.image:
            grid = jnp.arange(IMAGE_SIZE * IMAGE_SIZE * 3).reshape(IMAGE_SIZE, IMAGE_SIZE, 3)
            obs["image"] = (grid + (physics.qpos * 100).astype(jnp.int32)).astype(jnp.uint8)
        return obs


def toy_expert(state: Any, key: jax.Array) -> jax.Array:
    """Straight to the goal."""
    error = state["target_pos"] - state["ee_pos"]
    return jnp.append(jnp.clip(error / STEP, -1.0, 1.0), 1.0)


EXPERT = RolloutPolicy(lambda state, carry, key: (toy_expert(state.obs, key), carry))
