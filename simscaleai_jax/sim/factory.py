"""Environments by name: gymnasium adapters, functional environments and batches."""

import dataclasses
from typing import Any

from simscaleai_jax.core import compile_cache
from simscaleai_jax.core.errors import check_names, unknown_name
from simscaleai_jax.registration import spec_of
from simscaleai_jax.sim.config import SimConfig
from simscaleai_jax.sim.envs.batched import BatchedEnv
from simscaleai_jax.sim.envs.functional import FunctionalEnv
from simscaleai_jax.sim.physics import choose_impl, make_physics
from simscaleai_jax.sim.registry import USER_ENVS, build_config, find_task, tasks
from simscaleai_jax.sim.scene import load_scene


def register_env(name: str, cls: type) -> None:
    """Make a gymnasium environment class known to `make_env`; a built-in name is refused.

    A subclass of BaseRobotEnv is built as `cls(config=SimConfig, render_mode=...)`, any other class as
    `cls(render_mode=..., **kwargs)`.
    """
    if name in tasks():
        raise ValueError(f"{name!r} is a task already, built in or of register_task; choose another name")
    if not isinstance(cls, type):
        raise ValueError(f"register_env wants a class, got {cls!r}")
    USER_ENVS[name] = cls


def list_envs() -> list[str]:
    """Names that `make_env` knows, sorted."""
    return sorted({*tasks(), *USER_ENVS})


def make_env(env_name: str, render_mode: str | None = None, **kwargs: Any) -> Any:
    """Build a gymnasium environment on host physics.

    Args:
      env_name: one of `list_envs()`.
      render_mode: None, "rgb_array" or "human".
      **kwargs: `config=SimConfig(...)` and any field of SimConfig or of the task's config, e.g. `cameras=[]`,
      `dt=0.01`.

    Raises:
      ValueError: unknown environment or option (with the nearest valid name), or a value out of range.
    """
    from simscaleai_jax.sim.base_env import BaseRobotEnv
    from simscaleai_jax.sim.envs.task_env import task_env_class

    options = kwargs | ({} if render_mode is None else {"render_mode": render_mode})
    config = kwargs.pop("config", None)
    if env_name in USER_ENVS:
        cls = USER_ENVS[env_name]
        if not issubclass(cls, BaseRobotEnv):
            return cls(render_mode=render_mode, **({"config": config} if config is not None else {}), **kwargs)
        return cls(config=build_config(config, None, kwargs), render_mode=render_mode)
    if env_name not in tasks():
        raise unknown_name("env", env_name, list_envs())
    settings = build_config(config, find_task(env_name).config_cls, kwargs)
    env = task_env_class(env_name)(config=settings, render_mode=render_mode)
    env.spec = spec_of(env_name, options)
    return env


def make_functional_env(env_name: str, config: SimConfig | None = None, **kwargs: Any) -> FunctionalEnv:
    """Build the pure `reset`/`step` environment of a task on the engine `impl`; options as in `make_env`.

    Raises:
      ValueError: as `make_env`; or pictures of MuJoCo's own renderer, which cannot draw inside a jitted step.
    """
    compile_cache.enable()
    entry = find_task(env_name)
    config = build_config(config, entry.config_cls, kwargs)
    config = dataclasses.replace(config, impl=choose_impl(config.impl))
    if config.cameras and config.renderer != "jax":
        raise ValueError(
            f"renderer={config.renderer!r} draws for host adapters (make_env) only; a functional environment's cameras "
            "take renderer='jax'"
        )
    model, robot = load_scene(entry, config)
    task = entry.make_task(robot, config.task)
    camera_fn = None
    if config.cameras:
        from simscaleai_jax.sim.cameras import make_camera_fn

        camera_fn = make_camera_fn(model, config.cameras)
    physics = make_physics(model, robot, config.substeps, config.impl, config.ramp_steps)
    return FunctionalEnv(config, task, physics, camera_fn)


def make_batched_env(env_name: str, config: SimConfig | None = None, **kwargs: Any) -> BatchedEnv:
    """Build the auto-resetting batch of a task; the number of environments is chosen by `init`. Options as in
    `make_env`.
    """
    return BatchedEnv(make_functional_env(env_name, config, **kwargs))


def make_vec_env(
    env_name: str, num_envs: int, config: SimConfig | None = None, *, autoreset_mode: Any = "SameStep", **kwargs: Any
) -> Any:
    """Build a `gymnasium.vector.VectorEnv` of `num_envs` copies stepping together in one jitted call.

    `autoreset_mode` is a `gymnasium.vector.AutoresetMode` or its value, see `BatchedVectorEnv`. Without `cameras` the
    observations hold no images (one picture per environment and step is asked for explicitly).
    """
    from simscaleai_jax.sim.envs.vector_env import BatchedVectorEnv

    check_names("env", [env_name], tasks())
    if config is None:
        kwargs.setdefault("cameras", [])
    return BatchedVectorEnv(make_batched_env(env_name, config, **kwargs), num_envs, autoreset_mode)
