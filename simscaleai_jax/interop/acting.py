"""The acting record of an export: everything but the weights that playing a policy needs, as JSON values.

observations   raw key -> {"shape", "dtype"} of one observation, all that are read ({}: not known, every key is)
state_keys     those that make up the state vector, in the order of their concatenation
normalization  null, or {"mean", "scale", "clip"}: state = clip((state - mean) * scale, -clip, clip), clip may be
               null; for PPO scale = 1 / sqrt(variance + epsilon), for models 1 / standard deviation
action         {"dim", "mean", "scale", "low", "high"}: action = clip(output * scale + mean, low, high), nulls where
               there is none of it
obs_horizon    observations that a plan reads, the latest ones; where it is more than 1 they are (B, k, ...)
horizon, execute_steps, ensemble   actions per plan, how many of them are executed before the next one, and the weight
               decay of temporal ensembling, which plans at every step; null without
instruction, tokens      what a model that reads language is told, null without, or where each episode has its own
text_len       characters of an instruction that it reads, whose ids are then an input; null where it reads none
noise          whether plans are drawn from standard normal noise (B, horizon, dim)
env            {"name", "config"} of the environment, cameras included
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.core.observations import colour_keys, image_keys, state_keys
from simscaleai_jax.models.language import tokenize
from simscaleai_jax.models.record import all_kwargs
from simscaleai_jax.models.registry import BUILT_IN
from simscaleai_jax.rl.ppo.actions import ActionBounds
from simscaleai_jax.rl.ppo.normalize import CLIP, EPSILON

FORMAT_VERSION = 1


def acting_record(manifest: Manifest, statistics: Mapping[str, Any], model_cls: type) -> dict[str, Any]:
    """The record of a checkpoint.

    Args:
      manifest: of the checkpoint.
      statistics: name -> numbers of its normalisation, {} without any.
      model_cls: the class that `manifest.model_name` names.
    """
    kwargs = all_kwargs(model_cls, manifest.model_kwargs)
    is_ppo = manifest.kind == "ppo"
    names = _observation_names(manifest, kwargs)
    horizon = 1 if is_ppo else int(kwargs.get("action_horizon") or 1)
    instruction = manifest.extra.get("language") if kwargs.get("use_language") else None
    execution = manifest.extra.get("execution") or {}
    tokens = None
    if instruction is not None:
        tokens = np.asarray(tokenize([instruction], kwargs["max_text_len"]))[0].tolist()
    return {
        "format_version": FORMAT_VERSION,
        "model_name": manifest.model_name,
        "observations": {name: dict(manifest.observation_spec[name]) for name in names},
        "state_keys": state_keys(names) if names else [],
        "normalization": _running(statistics) if is_ppo else _standard(statistics),
        "action": _action(manifest, kwargs, {} if is_ppo else statistics),
        "horizon": horizon,
        "obs_horizon": int(kwargs.get("obs_horizon") or 1),
        "execute_steps": execution.get("execute_steps") or horizon,
        "ensemble": execution.get("ensemble"),
        "instruction": instruction,
        "tokens": tokens,
        "text_len": kwargs["max_text_len"] if kwargs.get("use_language") else None,
        "noise": head_type(manifest.model_name, kwargs) in ("diffusion", "flow"),
        "env": dict(manifest.env),
    }


def head_type(model_name: str, kwargs: Mapping[str, Any]) -> str | None:
    """ "mlp", "diffusion" or "flow" of a model with a head; a policy named after its head has that one."""
    return model_name if model_name in ("diffusion", "flow") else kwargs.get("action_head_type")


def _observation_names(manifest: Manifest, kwargs: Mapping[str, Any]) -> list[str]:
    """What the policy reads of its observation spec, sorted."""
    spec = manifest.observation_spec
    if manifest.kind == "ppo":
        states = list(manifest.config.get("actor_keys") or []) or state_keys(spec)
        return sorted(states) + (colour_keys(spec) if kwargs.get("image_shape") else [])
    if manifest.model_name not in BUILT_IN:
        return sorted(spec)
    pictures = [key for key in _pictures(kwargs) if key in image_keys(spec)]
    reads_state = bool(kwargs["state_dim"]) and bool(spec)
    return sorted(state_keys(spec) if reads_state else []) + pictures


def _pictures(kwargs: Mapping[str, Any]) -> list[str]:
    """Keys of the pictures that a model with these arguments looks at, in its order."""
    cameras = list(kwargs.get("cameras", ()))
    if "image_key" in kwargs and not cameras:
        cameras = [kwargs["image_key"]]
    return cameras if kwargs.get("use_image", True) else []


def _running(statistics: Mapping[str, Any]) -> dict[str, Any] | None:
    if not statistics:
        return None
    scale = 1.0 / np.sqrt(np.asarray(statistics["var"], np.float32) + np.float32(EPSILON))
    mean = np.asarray(statistics["mean"], np.float32)
    return {"mean": mean.tolist(), "scale": scale.tolist(), "clip": CLIP, "epsilon": EPSILON}


def _standard(statistics: Mapping[str, Any]) -> dict[str, Any] | None:
    if not statistics:
        return None
    scale = 1.0 / np.asarray(statistics["state_std"], np.float64)
    mean, clip = np.asarray(statistics["state_mean"]), statistics.get("state_clip")
    return {"mean": mean.tolist(), "scale": scale.tolist(), "clip": clip}


def _action(manifest: Manifest, kwargs: Mapping[str, Any], statistics: Mapping[str, Any]) -> dict[str, Any]:
    mean, scale = statistics.get("action_mean"), statistics.get("action_std")
    if mean is not None and not np.any(mean) and np.all(np.asarray(scale) == 1.0):
        mean = scale = None
    low, high = manifest.action_spec.get("low"), manifest.action_spec.get("high")
    if manifest.kind == "ppo":
        scale, mean, low, high = ActionBounds.from_record(manifest.action_spec, kwargs["action_dim"]).rows()
    numbers = {"mean": mean, "scale": scale, "low": low, "high": high}
    listed = {name: None if value is None else np.asarray(value).tolist() for name, value in numbers.items()}
    dim = kwargs["action_dim"] if "action_dim" in kwargs else manifest.action_spec["shape"][-1]
    return {"dim": int(dim), **listed}
