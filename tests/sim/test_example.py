"""The custom task of examples/ works on both backends."""

import importlib.util
from pathlib import Path

import jax

from simscaleai_jax.sim import list_envs, make_functional_env


def test_custom_task_runs_on_the_host_and_builds_on_mjx():
    path = Path(__file__).parents[2] / "examples" / "custom_task.py"
    assert sum(bool(line.strip()) for line in path.read_text().splitlines()) < 100
    spec = importlib.util.spec_from_file_location("custom_task", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    assert "track" in list_envs()
    assert example.play() < 0.02
    env = make_functional_env("track", cameras=[], dt=0.01)
    state = jax.eval_shape(
        env.step, jax.eval_shape(env.reset, jax.random.key(0)), jax.ShapeDtypeStruct((4,), "float32")
    )
    assert set(state.obs) == {"ee_pos", "target_pos", "target_next"}
