"""Our environments in the form that other libraries take; none of them is needed until it is asked for.

to_sb3(envs)      stable_baselines3 VecEnv, of `sim.make_vec_env(name, num_envs)`
to_rsl_rl(envs)   rsl_rl VecEnv, of the same
to_skrl(envs)     skrl Wrapper (torch), of the same
to_brax(env)      brax Env, of `sim.make_functional_env(name)`
to_gymnax(env)    gymnax Environment, of the same; to_rejax(env) is that with the step which rejax 0.1 unpacks
"""

import importlib
from typing import Any

__all__ = ["to_brax", "to_gymnax", "to_rejax", "to_rsl_rl", "to_sb3", "to_skrl"]


def to_sb3(envs: Any, *, flatten: bool = True) -> Any:
    """A Stable-Baselines3 `VecEnv`; `flatten` gives the state vector ("MlpPolicy") instead of the dict."""
    return _module("sb3", "stable-baselines3").Sb3VecEnv(envs, flatten)


def to_rsl_rl(envs: Any, device: str = "cpu") -> Any:
    """An rsl_rl `VecEnv` with the observation group "policy", the state vector, on a torch device."""
    return _module("rsl_rl", "rsl-rl-lib").RslRlVecEnv(envs, device)


def to_skrl(envs: Any, device: str = "cpu") -> Any:
    """An skrl `Wrapper` for its torch agents: the state vector, and tensors on a torch device."""
    return _module("skrl", "skrl torch").SkrlEnv(envs, device)


def to_gymnax(env: Any) -> Any:
    """A gymnax `Environment` (1.0: termination and truncation apart), which draws a new start for every episode."""
    return _module("gymnax", "gymnax").GymnaxEnv(env)


def to_rejax(env: Any) -> Any:
    """The same for rejax 0.1, which unpacks one `done` and takes time limits for ends."""
    return _module("gymnax", "gymnax").RejaxEnv(env)


def to_brax(env: Any) -> Any:
    """A brax `Env`: train it with episode_length=env.max_episode_steps, for brax keeps the time limit itself.

    brax's own auto-reset goes back to the start that an environment began with, for as long as it is not reset from
    outside: train with many environments, and raise `num_resets_per_eval` so far that whole episodes still fit between
    two resets; what comes later in them is never seen otherwise.
    """
    return _module("brax", "brax").BraxEnv(env)


def _module(name: str, package: str) -> Any:
    try:
        return importlib.import_module(f"simscaleai_jax.adapters.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("simscaleai_jax"):
            raise
        raise ImportError(f"This adapter needs {error.name}: pip install {package}.") from error
