"""What gymnasium asks of an environment: ids, specs, vector environments with each way to reset, worker processes."""

import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import vector as vector_wrappers

import simscaleai_jax.sim as sim
from simscaleai_jax.core import forks
from simscaleai_jax.sim.envs.reach_env import ReachEnv
from simscaleai_jax.sim.envs.vector_env import BatchedVectorEnv

from .conftest import MAX_STEPS, NUM_ENVS

STILL = np.zeros((NUM_ENVS, 4), np.float32)


@pytest.fixture(scope="module")
def next_step(batched):
    return BatchedVectorEnv(batched, NUM_ENVS, AutoresetMode.NEXT_STEP)


@pytest.fixture(scope="module")
def disabled(batched, next_step):
    envs = BatchedVectorEnv(batched, NUM_ENVS, "Disabled")
    envs._init, envs._step = next_step._init, next_step._step  # compiled once
    return envs


@pytest.fixture(scope="module")
def same_step(batched, init, step):
    envs = BatchedVectorEnv(batched, NUM_ENVS)
    envs._init, envs._step = init, step
    return envs


def steps_until_an_end(envs):
    """Steps until some episode has ended, and the last of them."""
    for count in range(1, MAX_STEPS + 2):
        step = envs.step(STILL)
        if (step[2] | step[3]).any():
            return count, step
    raise AssertionError("no episode ended")


def test_tasks_have_ids():
    ids = {gymnasium.spec(name).kwargs["env_name"] for name in gymnasium.registry if name.startswith("simscaleai_jax/")}
    assert {"reach", "pick_place", "lift", "push", "stack"} <= ids <= set(sim.list_envs())
    env = gymnasium.make("simscaleai_jax/Stack-v0", cameras=[])
    assert env.unwrapped.spec.id == "simscaleai_jax/Stack-v0"


@pytest.mark.parametrize(
    "code",
    [
        "import simscaleai_jax, gymnasium; gymnasium.spec('simscaleai_jax/Reach-v0')",
        "import gymnasium, simscaleai_jax; gymnasium.spec('simscaleai_jax/PickPlace-v0')",
    ],
)
def test_ids_are_known_once_the_package_is_imported(code):
    code += "; import sys; assert not {'jax', 'mujoco'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_id_with_its_module_needs_no_import():
    code = "import gymnasium as g; g.make('simscaleai_jax:simscaleai_jax/Reach-v0', cameras=[]).reset(seed=0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_does_not_need_gymnasium():
    hide = "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n: None if n == 'gymnasium' else f(n)"
    code = f"import sys; sys.modules['gymnasium'] = None; {hide}; import simscaleai_jax"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_make_env_knows_its_spec_and_makes_the_same_again():
    env = sim.make_env("reach", cameras=[], control_dt=0.1, max_episode_steps=7)
    assert env.spec is not None
    assert env.spec.id == "simscaleai_jax/Reach-v0"
    again = gymnasium.make(env.spec)
    assert isinstance(again.unwrapped, ReachEnv)
    assert again.unwrapped.config == env.config
    assert sim.make_env("reach", cameras=[]).spec.kwargs == {"env_name": "reach", "cameras": []}


def test_frames_per_second_follow_the_control_rate():
    env = sim.make_env("reach", cameras=[], control_dt=0.1)
    assert env.metadata["render_fps"] == 10
    assert ReachEnv.metadata["render_fps"] == 20, "the documented default stays"


def test_a_window_without_a_display_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    env = sim.make_env("reach", cameras=[], render_mode="human")
    with pytest.raises(RuntimeError, match=r"no display; use 'rgb_array'"):
        env.reset(seed=0)


def test_make_vec_gives_the_batch_and_passes_options_on():
    fast = {"dt": 0.01, "cameras": [], "max_episode_steps": 4}
    envs = gymnasium.make_vec("simscaleai_jax/Reach-v0", 3, autoreset_mode=AutoresetMode.NEXT_STEP, **fast)
    assert isinstance(envs, BatchedVectorEnv)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert envs.batched.max_episode_steps == 4
    with pytest.raises(ValueError, match=r"Unknown autoreset_mode 'NextStepp'.*Did you mean 'NextStep'"):
        sim.make_vec_env("reach", 3, autoreset_mode="NextStepp")


def test_next_step_shows_the_end_and_then_begins_anew(next_step):
    start, _ = next_step.reset(seed=0)
    count, (end, _, _, truncated, info) = steps_until_an_end(next_step)
    assert count == MAX_STEPS, "episodes begin at age 0"
    assert truncated.all()
    assert info["distance"].shape == (NUM_ENVS,)
    np.testing.assert_array_equal(end["target_pos"], start["target_pos"])
    begun, reward, terminated, truncated, _ = next_step.step(np.ones_like(STILL))
    assert not (terminated | truncated).any()
    np.testing.assert_array_equal(reward, 0.0)
    assert (begun["target_pos"] != start["target_pos"]).any(axis=1).all()
    np.testing.assert_array_equal(begun["joint_vel"], 0.0)
    assert steps_until_an_end(next_step)[0] == MAX_STEPS


def test_disabled_waits_for_a_reset_of_those_that_ended(disabled):
    disabled.reset(seed=0)
    _, (obs, _, _, truncated, _) = steps_until_an_end(disabled)
    assert truncated.all()
    mask = np.arange(NUM_ENVS) != 2
    after, _ = disabled.reset(options={"reset_mask": mask})
    assert (after["target_pos"] != obs["target_pos"]).any(axis=1).tolist() == mask.tolist()
    with pytest.raises(RuntimeError, match=r"environments \[2\] have ended"):
        disabled.step(STILL)
    disabled.reset(options={"reset_mask": ~mask})
    assert not disabled.step(STILL)[3].any()


def test_same_step_resets_those_that_a_mask_names(same_step):
    before, _ = same_step.reset(seed=0)
    mask = np.arange(NUM_ENVS) == 1
    after, _ = same_step.reset(seed=5, options={"reset_mask": mask})
    assert (after["target_pos"] != before["target_pos"]).any(axis=1).tolist() == mask.tolist()
    flags = [bool(same_step.step(STILL)[3][1]) for _ in range(MAX_STEPS)]
    assert flags == [False] * (MAX_STEPS - 1) + [True], "a single copy begins at age 0"


def test_a_mask_and_options_are_checked(batched, disabled):
    with pytest.raises(RuntimeError, match="without a reset_mask first"):
        BatchedVectorEnv(batched, 3).reset(options={"reset_mask": np.ones(3, bool)})
    for mask in (np.ones(2, bool), np.ones(NUM_ENVS), np.zeros(NUM_ENVS, bool)):
        with pytest.raises(ValueError, match="reset_mask must be a bool array of shape"):
            disabled.reset(options={"reset_mask": mask})
    with pytest.raises(ValueError, match=r"Unknown reset option 'reset_maks'.*Did you mean 'reset_mask'"):
        disabled.reset(options={"reset_maks": np.ones(3, bool)})


def test_each_copy_may_have_its_seed(next_step):
    def targets(*seeds):
        return next_step.reset(seed=[*seeds, *range(NUM_ENVS - len(seeds))])[0]["target_pos"]

    first = targets(4, 9, 4)
    np.testing.assert_array_equal(first[0], first[2])
    assert (first[0] != first[1]).any()
    np.testing.assert_array_equal(targets(9, 4, None)[:2], first[[1, 0]])
    with pytest.raises(ValueError, match="one for each of 8 environments, got 2"):
        next_step.reset(seed=[1, 2])


@pytest.mark.parametrize("mode", ["same_step", "next_step", "disabled"])
def test_arrays_are_the_callers_own(mode, request):
    envs = request.getfixturevalue(mode)
    obs, _ = envs.reset(seed=0)
    kept = obs["target_pos"].copy()
    obs["target_pos"][:] = 7.0
    later, reward, terminated, truncated, info = envs.step(STILL)
    for array in (*later.values(), reward, terminated, truncated, info["success"]):
        assert array.flags.writeable
        array[:] = 0
    if mode != "same_step":
        np.testing.assert_array_equal(envs.step(STILL)[0]["target_pos"], kept)


def test_gymnasiums_vector_wrappers_take_it(next_step):
    envs = vector_wrappers.NormalizeObservation(vector_wrappers.FlattenObservation(next_step))
    envs = vector_wrappers.RecordEpisodeStatistics(envs)
    obs, _ = envs.reset(seed=0)
    assert obs.shape == (NUM_ENVS, 20)
    _, (*_, info) = steps_until_an_end(envs)
    assert info["episode"]["l"].tolist() == [MAX_STEPS] * NUM_ENVS


def test_a_fork_of_a_process_that_uses_jax_is_told_what_to_do(monkeypatch):
    forks.check_not_forked()
    monkeypatch.setattr(forks, "_started_in", [os.getpid() + 1])
    with pytest.raises(RuntimeError, match=r"forked.*'context': 'spawn'.*make_vec_env"):
        sim.make_env("reach", cameras=[])


@pytest.mark.wide
def test_worker_processes_by_spawn():
    spawn = {"context": "spawn"}
    envs = gymnasium.make_vec(
        "simscaleai_jax/Reach-v0", 2, vectorization_mode="async", vector_kwargs=spawn, cameras=[], max_episode_steps=3
    )
    alone = sim.make_env("reach", cameras=[])
    try:
        obs, _ = envs.reset(seed=[3, 4])
        np.testing.assert_array_equal(obs["target_pos"][1], alone.reset(seed=4)[0]["target_pos"])
        assert [envs.step(STILL[:2])[3].all() for _ in range(3)] == [False, False, True]
    finally:
        envs.close()
