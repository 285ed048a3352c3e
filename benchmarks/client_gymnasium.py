"""gymnasium's own checks and wrappers on our environments; prints what was run as JSON."""

import copy
import json
import pickle
import warnings
from typing import Any

import gymnasium
import numpy as np
from gymnasium import wrappers
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import vector as vector_wrappers

IDS = ("Reach-v0", "PickPlace-v0", "Lift-v0", "Push-v0", "Stack-v0")
FAST = {"dt": 0.01, "max_episode_steps": 20}
STEPS = 50


def main() -> None:
    """Runs everything; whatever fails raises."""
    result: dict[str, Any] = {"check_env": 0, "wrappers": 0, "vector_wrappers": 0}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in IDS:
            env = gymnasium.make(f"simscaleai_jax:simscaleai_jax/{name}", render_mode="rgb_array", **FAST)
            check_env(env.unwrapped, skip_render_check=True)  # it would open a window
            assert np.asarray(env.unwrapped.render()).dtype == np.uint8
            result["check_env"] += 1
        states = gymnasium.make("simscaleai_jax:simscaleai_jax/Reach-v0", cameras=[], **FAST)
        wrapped = [
            wrappers.FlattenObservation, wrappers.RecordEpisodeStatistics, wrappers.Autoreset,
            lambda env: wrappers.NormalizeObservation(wrappers.FlattenObservation(env)),
            lambda env: wrappers.NormalizeReward(env), lambda env: wrappers.ClipAction(env),
            lambda env: wrappers.RescaleAction(env, np.float32(0.0), np.float32(1.0)),
            lambda env: wrappers.TimeLimit(env, 5),
            lambda env: wrappers.FrameStackObservation(wrappers.FlattenObservation(env), 3),
        ]  # fmt: skip
        for wrap in wrapped:
            play(wrap(states))
            result["wrappers"] += 1
        for mode in ("NextStep", "SameStep"):
            batch = gymnasium.make_vec("simscaleai_jax/Reach-v0", 8, autoreset_mode=mode, cameras=[], **FAST)
            chain = vector_wrappers.RecordEpisodeStatistics(batch)
            if mode == "NextStep":  # the others refuse SAME_STEP
                chain = vector_wrappers.NormalizeObservation(vector_wrappers.FlattenObservation(chain))
                chain = vector_wrappers.NormalizeReward(vector_wrappers.ClipAction(chain))
            chain.reset(seed=0)
            for _ in range(STEPS):
                chain.step(chain.action_space.sample())
            result["vector_wrappers"] += 5 if mode == "NextStep" else 1
        for made in (copy.deepcopy(states), pickle.loads(pickle.dumps(states.unwrapped))):
            np.testing.assert_array_equal(made.reset(seed=3)[0]["ee_pos"], states.reset(seed=3)[0]["ee_pos"])
    result["warnings"] = sorted({str(each.message) for each in caught})
    print(json.dumps(result))


def play(env: Any) -> None:
    """Random actions over several episodes."""
    env.reset(seed=0)
    env.action_space.seed(0)
    is_over = False
    for _ in range(STEPS):
        if is_over and not isinstance(env, wrappers.Autoreset):
            env.reset()
        obs, _, terminated, truncated, _ = env.step(env.action_space.sample())
        assert env.observation_space.contains(obs), type(env)
        is_over = terminated or truncated


if __name__ == "__main__":
    main()
