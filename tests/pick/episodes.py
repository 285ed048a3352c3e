"""Expert episodes on host physics: their actions, to be replayed elsewhere."""

import types

import jax
import numpy as np

from simscaleai_jax.datagen.experts import expert_fn, first_phase
from simscaleai_jax.sim.physics.state import KINEMATICS_FIELDS
from simscaleai_jax.sim.tasks.snapshot import make_snapshot


def host_expert(env):
    """A jitted `(task_state, phase) -> (action, phase)` that reads the adapter's MuJoCo data."""
    expert = expert_fn(env.task)

    @jax.jit
    def act(fields, task_state, phase):
        return expert(make_snapshot(env.task.robot, types.SimpleNamespace(**fields)), task_state, phase)

    def read_and_act(task_state, phase):
        fields = {name: np.asarray(getattr(env.data, name), np.float32) for name in KINEMATICS_FIELDS}
        return act(fields, task_state, phase)

    return read_and_act


def play(env, act, num_steps=None, **reset):
    """One episode: actions [T, 4], object positions [T, 3], infos."""
    env.reset(**reset)
    phase = first_phase(env.task_name)
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
