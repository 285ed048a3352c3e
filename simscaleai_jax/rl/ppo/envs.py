"""What `PPOAgent.train` makes of the environment that it is given."""

import dataclasses
from typing import Any

import numpy as np

from simscaleai_jax.core.config import to_dict
from simscaleai_jax.core.observations import colour_keys, state_size
from simscaleai_jax.core.paths import locate
from simscaleai_jax.rl.ppo.actions import ActionBounds
from simscaleai_jax.rl.ppo.config import PPOConfig


def find_batched_env(env: Any, needs_images: bool = False) -> Any:
    """The batched environment behind `env`, or None where a Python loop must step it.

    Taken as they are: batched environments (`init`, `step`). Functional environments are batched. A vector environment
    gives the batch it wraps, an adapter whose documented hooks are not overridden its `functional_env()`; both only
    where the images they render are wanted or can be left out.
    """
    if callable(getattr(env, "init", None)) and hasattr(env, "observation_spec"):
        return _without_unused_images(env, needs_images)
    if hasattr(env, "batched"):
        return _without_unused_images(env.batched, needs_images)
    functional = env if hasattr(env, "observation_spec") else _functional(env)
    if functional is None:
        return None
    from simscaleai_jax.sim.envs.batched import BatchedEnv

    return _without_unused_images(BatchedEnv(functional), needs_images)


def _functional(env: Any) -> Any:
    base = getattr(env, "unwrapped", env)
    if base is not env and not _is_transparent(env):
        return None  # a wrapper may change what the agent sees; only a Python loop respects that
    return base.functional_env() if hasattr(base, "functional_env") else None


def _is_transparent(env: Any) -> bool:
    """Whether every wrapper is one that gymnasium.make adds by itself and that changes no number."""
    while hasattr(env, "env"):
        if type(env).__name__ not in ("OrderEnforcing", "PassiveEnvChecker"):
            return False
        env = env.env
    return True


def _without_unused_images(env: Any, needs_images: bool) -> Any:
    functional = getattr(env, "functional", None)
    if needs_images or functional is None or not functional.config.cameras:
        return env
    from simscaleai_jax.sim.envs.batched import BatchedEnv
    from simscaleai_jax.sim.envs.functional import FunctionalEnv

    config = dataclasses.replace(functional.config, cameras=[])
    return BatchedEnv(FunctionalEnv(config, functional.task, functional.physics))


def observation_spec(env: Any) -> dict[str, Any]:
    """Unbatched shape and dtype of every observation key; a plain array observation is called "state"."""
    if hasattr(env, "observation_spec"):
        return dict(env.observation_spec)
    space = getattr(env, "single_observation_space", None) or env.observation_space
    spaces = getattr(space, "spaces", None)
    named = dict(spaces) if spaces is not None else {"state": space}
    for key, box in named.items():
        if getattr(box, "shape", None) is None or getattr(box, "dtype", None) is None or hasattr(box, "n"):
            raise ValueError(f"PPO needs array observations; {key!r} is {box}.")
    return named


def action_size(env: Any) -> int:
    """Length of one action.

    Raises:
      ValueError: actions are not one vector of numbers.
    """
    if hasattr(env, "action_size"):
        return env.action_size
    space = getattr(env, "single_action_space", None) or env.action_space
    if getattr(space, "shape", None) is None or len(space.shape) != 1 or hasattr(space, "n"):
        raise ValueError(f"PPO needs a Box action space with one axis; got {space}.")
    return int(space.shape[0])


def action_bounds(env: Any) -> ActionBounds:
    """What an environment's actions may be; [-1, 1] for the batched ones of this package.

    Raises:
      ValueError: a number of an action that is bounded on one side only.
    """
    if hasattr(env, "action_size"):
        return ActionBounds.unit(env.action_size)
    return ActionBounds.of_space(getattr(env, "single_action_space", None) or env.action_space)


def model_kwargs_for(env: Any, config: PPOConfig) -> dict[str, Any]:
    """Sizes of the network that fits an environment: obs_dim, action_dim, critic_obs_dim, image_shape,
    auxiliary_dim.

    Raises:
      ValueError: an actor, critic or auxiliary key, or the image, that the environment does not give.
    """
    from simscaleai_jax.core.errors import check_names

    spec = observation_spec(env)
    check_names("observation key", [*config.actor_keys, *config.critic_keys, *config.auxiliary_keys], spec)
    return {
        "obs_dim": state_size(spec, config.actor_keys),
        "action_dim": action_size(env),
        "critic_obs_dim": state_size(spec, config.critic_keys) if config.critic_keys else None,
        "image_shape": _image_shape(spec, config.encoder) if config.encoder != "none" else None,
        "auxiliary_dim": state_size(spec, config.auxiliary_keys) if config.auxiliary_keys else None,
    }


def _image_shape(spec: dict[str, Any], encoder: str) -> tuple[int, int, int]:
    """(H, W, channels of all cameras)."""
    shapes = [tuple(spec[key].shape) for key in colour_keys(spec)]
    if not shapes:
        raise ValueError(f"encoder {encoder!r} needs obs['image']; the environment gives {', '.join(spec)}.")
    if len({shape[:2] for shape in shapes}) > 1:
        raise ValueError(f"encoder {encoder!r} needs cameras of one size; the environment's give {shapes}.")
    return (*shapes[0][:2], sum(shape[2] for shape in shapes))


def spec_record(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec as JSON values for a manifest."""
    return {key: {"shape": list(box.shape), "dtype": str(np.dtype(box.dtype))} for key, box in spec.items()}


def check_engine(recorded: dict[str, Any], wanted: dict[str, Any]) -> None:
    """ValueError where a run would go on on another physics engine than the one it was on."""
    before, now = (record.get("config", {}).get("impl") for record in (recorded, wanted))
    if before and now and before != now:
        raise ValueError(
            f"This run was trained on the physics engine {before!r} and would go on on {now!r}, which computes other "
            f"numbers. Go on with impl={before!r} (--env.impl {before}), or start a run of its own."
        )


def env_record(env: Any, name: str | None = None) -> dict[str, Any]:
    """Name and settings of one of our environments for a manifest: {"name", "config"}; empty for foreign ones.

    The config holds the cameras and the fields that differ from their defaults, so that `make_env(name, **config)`
    rebuilds it.
    """
    env = getattr(env, "unwrapped", env)
    name = getattr(env, "task_name", None) or name
    for inner in ("batched", "functional"):
        env = getattr(env, inner, env)
    name = name or getattr(getattr(env, "task", None), "name", None)
    config = getattr(env, "config", None)
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return {} if name is None else {"name": name, "config": {}}
    values, defaults = to_dict(config), to_dict(type(config)())
    changed = {key: value for key, value in values.items() if key == "cameras" or value != defaults[key]}
    for part in ("task", "randomization"):
        own = getattr(config, part, None)
        if own is None or own == type(own)():
            changed.pop(part, None)
    if changed.get("xml_path"):
        changed["xml_path"] = str(locate(changed["xml_path"]))  # it may be read from another folder
    return {"name": name, "config": changed}
