"""Expert episodes on host physics: their actions, to be replayed elsewhere."""

import jax
import numpy as np

from simscaleai_jax.sim.registry import find_expert


def host_expert(env):
    """A `(task_state, phase) -> (action, phase)` that sees the adapter's MuJoCo data."""
    expert = jax.jit(find_expert(env.task_name, env.task).act)
    return lambda task_state, phase: expert(env.snapshot, task_state, phase)


def play(env, act, num_steps=None, **reset):
    """One episode: actions [T, 4], object positions [T, 3], infos."""
    env.reset(**reset)
    phase = find_expert(env.task_name, env.task).first_phase
    actions, positions, infos = [], [], []
    while num_steps is None or len(actions) < num_steps:
        action, phase = act(env.task_state, phase)
        actions.append(np.asarray(action))
        _, _, terminated, truncated, info = env.step(actions[-1])
        if env.task_name == "pick_place":
            positions.append(env.data.body("object").xpos.copy())
        infos.append(info)
        if num_steps is None and (terminated or truncated):
            break
    return np.array(actions), np.array(positions), infos
