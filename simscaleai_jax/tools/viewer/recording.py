"""What a viewer shows: whole episodes of a policy with the physics, reward terms and results of every step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import mujoco
import numpy as np

from simscaleai_jax.core.streams import Stream, seed_key


@dataclasses.dataclass(frozen=True)
class Recording:
    """K episodes of at most T control steps; entry t of an episode is what its step t led to.

    Attributes:
      model: MuJoCo's model of the scene.
      lengths: control steps of each episode [K].
      successes: whether the last step of each was a success [K].
      terms: weighted reward terms [T, K] by name.
      qpos: joint positions [T, K, nq], m and rad.
      mocap_pos: positions of mocap bodies [T, K, M, 3], m.
      mocap_quat: their orientations [T, K, M, 4], wxyz.
      seconds_per_step: of the robot's clock.
    """

    model: mujoco.MjModel
    lengths: np.ndarray
    successes: np.ndarray
    terms: dict[str, np.ndarray]
    qpos: np.ndarray
    mocap_pos: np.ndarray
    mocap_quat: np.ndarray
    seconds_per_step: float

    @property
    def num_episodes(self) -> int:
        """K."""
        return len(self.lengths)

    def pose(self, data: mujoco.MjData, episode: int, step: int) -> None:
        """Puts `data` where the scene was after a step of an episode."""
        data.qpos[:] = self.qpos[step, episode]
        data.mocap_pos[:] = self.mocap_pos[step, episode]
        data.mocap_quat[:] = self.mocap_quat[step, episode]
        mujoco.mj_kinematics(self.model, data)
        mujoco.mj_camlight(self.model, data)

    def returns(self, episode: int) -> np.ndarray:
        """Undiscounted return after each step of an episode [its length]."""
        length = self.lengths[episode]
        return np.cumsum(sum(values[:length, episode] for values in self.terms.values()))


def record(env: Any, policy: Any, num_episodes: int, seed: int, max_steps: int | None = None) -> Recording:
    """Plays one episode for each of `num_episodes` starts, all at once.

    Args:
      env: a functional environment.
      policy: one that carries its plan (`simscaleai_jax.policy.Policy`); None acts at random.
      num_episodes: K.
      seed: of the starts and of what is drawn on the way.
      max_steps: control steps after which an episode is cut; None for the environment's own limit.
    """
    from simscaleai_jax.sim.envs.episodes import rollout

    num_steps = min(max_steps or env.max_episode_steps, env.max_episode_steps)
    act, carry = _acting(env, policy, num_episodes)

    def keep(before: Any, action: Any, after: Any) -> tuple:
        physics = after.physics
        return after.reward_terms, (physics.qpos, physics.mocap_pos, physics.mocap_quat)

    @jax.jit
    def play(keys: jax.Array) -> tuple:
        last, kept, valid = rollout(env, act, carry, keys, num_steps, keep)
        return last.info["success"], valid.sum(0), kept

    keys = jax.random.split(seed_key(seed, Stream.VIEWER), num_episodes)
    successes, lengths, (terms, (qpos, mocap_pos, mocap_quat)) = jax.tree.map(np.asarray, play(keys))
    model, seconds = env.physics.host_model, env.config.control_dt
    return Recording(model, lengths, successes, terms, qpos, mocap_pos, mocap_quat, seconds)


def _acting(env: Any, policy: Any, num_episodes: int) -> tuple[Callable, Any]:
    """(act(state, carry, key) -> (action, carry), the first carry)."""
    if policy is None:
        return lambda state, carry, key: (jax.random.uniform(key, (env.action_size,), minval=-1, maxval=1), carry), ()

    def act(state: Any, carry: Any, key: jax.Array) -> tuple[Any, Any]:
        return policy.step(carry, state.obs, key, state.terminated | state.truncated)

    return act, policy.init(num_episodes)
