"""Episodes in MuJoCo's viewer, and videos of recorded episodes."""

import itertools
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from simscaleai_jax.core.streams import Stream, host_seed, seed_key


def play_live(
    env_name: str | None, num_episodes: int, max_steps: int | None, seed: int, checkpoint: str | None = None
) -> tuple[str, list[float]]:
    """Plays episodes in MuJoCo's viewer at the speed of the robot's clock: (name of the environment, returns).

    Actions are random, or a checkpoint's, which then also says which environment it is and how long its episodes are
    where `env_name` and `max_steps` are None.

    Raises:
      ValueError: unknown environment, a count below 1, or no display to show a window on.
    """
    from simscaleai_jax.sim import make_env

    for label, value in (("--n-episodes", num_episodes), ("--max-steps", max_steps)):
        if value is not None and value < 1:
            raise ValueError(f"{label} must be at least 1, got {value}")
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ValueError("viz-live shows a window and found no display; viz-env --save FILE draws frames without one")
    name, settings, begin = _policy(checkpoint, env_name, seed)
    if max_steps is not None:
        settings["max_episode_steps"] = max_steps
    env = make_env(name, render_mode="human", **settings)
    try:
        env.action_space.seed(host_seed(seed, Stream.ACTIONS))
        return name, [_episode(env, begin, host_seed(seed, Stream.VIEWER, number)) for number in range(num_episodes)]
    finally:
        env.close()


def write_episode_video(path: str | Path, episode: int, save: str | Path) -> Path:
    """Writes a recorded episode as a video: its own images where it has some, else its states drawn anew.

    States are drawn with the object, arm and target where they were; a table that was moved by randomization is drawn
    at its nominal height.

    Raises:
      ValueError: no such episode, or one with neither images nor states of a known environment.
      FileNotFoundError: it was recorded in a scene that is no longer where it was.
    """
    from simscaleai_jax.core.demonstrations import DemonstrationFile
    from simscaleai_jax.sim.video import write_video

    demos = DemonstrationFile(path)
    if not 0 <= episode < len(demos.names):
        raise ValueError(f"{path} has episodes 0 to {len(demos.names) - 1}, not {episode}.")
    cameras = demos.image_keys
    frames = demos.read(episode, f"obs/{cameras[0]}") if cameras else _drawn_states(demos, episode)
    return write_video(save, frames)


def _policy(checkpoint: str | None, env_name: str | None, seed: int) -> tuple[str, dict[str, Any], Any]:
    """Name and settings of the environment, and `begin(env) -> act(obs)` for one episode."""
    if checkpoint is None:
        return env_name or "reach", {"cameras": []}, lambda env: lambda obs: env.action_space.sample()
    import jax

    from simscaleai_jax.core.checkpoint import read_manifest
    from simscaleai_jax.policy import load_policy
    from simscaleai_jax.rl.evaluator import PlannedEpisode
    from simscaleai_jax.tools.arguments import recorded_env

    name, settings = recorded_env(read_manifest(checkpoint).env, env_name)
    keys = map(partial(jax.random.fold_in, seed_key(seed, Stream.ACTIONS)), itertools.count())
    policy = load_policy(checkpoint)
    return name, {"cameras": [], **settings}, lambda env: PlannedEpisode(policy, keys)


def _episode(env: Any, begin: Any, seed: int) -> float:
    obs, _ = env.reset(seed=seed)
    act = begin(env)
    total, done = 0.0, False
    while not done:
        started = time.perf_counter()
        obs, reward, terminated, truncated, _ = env.step(act(obs))
        total, done = total + float(reward), terminated or truncated
        time.sleep(max(0.0, env.unwrapped.config.control_dt - (time.perf_counter() - started)))
    return total


def _drawn_states(demos: Any, episode: int) -> list[np.ndarray]:
    """Frames of the front camera from the recorded joint states, in the scene and task that they were recorded in."""
    import mujoco

    from simscaleai_jax.sim import make_env
    from simscaleai_jax.tools.arguments import check_scene_file, demonstrated_env

    name, settings = demonstrated_env(demos.attributes)
    name = name or demos.attributes.get("env_name")
    if name is None or "states" not in demos.specs:
        raise ValueError(
            f"{demos.path}: episode {episode} has neither images nor states of a named environment to draw"
        )
    states = demos.read(episode, "states")
    goals = demos.read(episode, "obs/target_pos") if "target_pos" in demos.obs_keys else None
    check_scene_file(settings, demos.path)
    env = make_env(name, render_mode="rgb_array", **settings | {"cameras": []})
    try:
        env.reset(seed=0)
        model, data = env.unwrapped.model, env.unwrapped.data
        if states.shape[1] != model.nq + model.nv:
            raise ValueError(f"{demos.path}: states of {states.shape[1]} numbers, {name!r} has {model.nq + model.nv}")
        target = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY.value, "target")
        mocap = model.body_mocapid[target] if target >= 0 else -1
        frames = []
        for step, state in enumerate(states):
            data.qpos[:] = state[: model.nq]
            if goals is not None and mocap >= 0:
                data.mocap_pos[mocap] = goals[step]
            mujoco.mj_forward(model, data)
            frames.append(np.asarray(env.render()))
    finally:
        env.close()
    return frames
