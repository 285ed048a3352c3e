"""Checkpoints and modules to torch weights and back; see `mapping` for the names and `files` for the formats."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simscaleai_jax.core import checkpoint, flat_tree
from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.core.config import from_dict
from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.interop import files, mapping
from simscaleai_jax.interop.acting import acting_record, head_type
from simscaleai_jax.interop.card import write_card
from simscaleai_jax.interop.files import TorchRecord
from simscaleai_jax.models import (
    ActionChunkingTransformer,
    BehaviorCloning,
    DiffusionActionHead,
    DiffusionPolicy,
    FlowActionHead,
    FlowPolicy,
    MLPActionHead,
    VisionLanguageAction,
)
from simscaleai_jax.models.policy_heads.schedule import betas
from simscaleai_jax.models.record import all_kwargs, changed_kwargs, flat_parameters, set_parameters
from simscaleai_jax.models.registry import BUILT_IN, check_arguments, model_class
from simscaleai_jax.rl.agents.ppo import ActorCritic

CLASSES: dict[str, type] = {
    "act": ActionChunkingTransformer,
    "bc": BehaviorCloning,
    "diffusion": DiffusionPolicy,
    "flow": FlowPolicy,
    "vla": VisionLanguageAction,
    "mlp_head": MLPActionHead,
    "diffusion_head": DiffusionActionHead,
    "flow_head": FlowActionHead,
    "actor_critic": ActorCritic,
}
FORMATS = {**files.SUFFIXES, ".onnx": "onnx", ".stablehlo": "stablehlo"}
# Arguments that torch modules do not have: how a model computes, not what.
OURS_ONLY = frozenset(
    {"dtype", "scan_layers", "remat", "attention", "log_std_init", "log_std_min", "log_std_max"}
    | {"critic_obs_dim", "image_shape", "auxiliary_dim"}
)


def export_torch(
    source: Any, path: str | Path, format: str | None = None, *, step: int = 0, use_ema: bool = True
) -> Path:
    """Writes torch weights of a checkpoint or of a module, and returns the path.

    Args:
      source: checkpoint directory, or a model, head or ActorCritic.
      path: file to write.
      format: "safetensors" or "pt"; None: by the suffix.
      step: training steps done, for a module (a checkpoint knows its own).
      use_ema: the averaged weights where the checkpoint has them.
    Raises:
      ValueError: no torch layout for this model, or an unknown format.
    """
    files.file_format(path, format)
    if isinstance(source, str | Path):
        return files.write(path, _record_of_checkpoint(source, use_ema), format)
    return files.write(path, torch_record(*_describe(source), flat_parameters(source), step=step), format)


def export_policy(
    source: str | Path,
    path: str | Path,
    format: str | None = None,
    *,
    use_ema: bool = True,
    results: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a checkpoint's policy in a form that stands alone, with a card (NAME.md) beside it; returns the path.

    Args:
      source: checkpoint directory.
      path: file to write.
      format: "safetensors", "pt", "onnx" or "stablehlo"; None: by the suffix.
      use_ema: the averaged weights where the checkpoint has them.
      results: {"success_rate", "n_episodes", "env"} for the card.
    Raises:
      ValueError: no such layout for this model, or an unknown format.
    """
    chosen = export_format(path, format)
    tree, manifest = checkpoint.load(source)
    if chosen == "stablehlo":
        from simscaleai_jax.interop.stablehlo import write_stablehlo

        cls = CLASSES.get(manifest.model_name) or model_class(manifest.model_name)
        policy = acting_record(manifest, statistics_of(tree, manifest), cls)
        written = write_stablehlo(path, source, policy, use_ema=use_ema)
    else:
        record = _record_of_checkpoint(source, use_ema)
        policy = record.policy
        if chosen == "onnx":
            from simscaleai_jax.interop.onnx_export import write_onnx

            written = write_onnx(path, record, all_kwargs(CLASSES[manifest.model_name], manifest.model_kwargs))
        else:
            written = files.write(path, record, chosen)
    write_card(written, chosen, manifest, policy, results)
    return written


def export_format(path: str | Path, given: str | None = None) -> str:
    """The format as given ("torch" is "pt") or by the suffix; a ValueError names the choices."""
    chosen = {"torch": "pt"}.get(given or "", given) or FORMATS.get(Path(path).suffix, "")
    if chosen not in FORMATS.values():
        raise unknown_name(f"format of {path}:", given or Path(path).suffix, {*FORMATS.values()})
    return chosen


def import_torch(
    file: str | Path,
    checkpoint_path: str | Path | None = None,
    *,
    model_name: str | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Reads torch weights into a module in eval mode; with `checkpoint_path` also writes it as a checkpoint.

    Args:
      file: .safetensors or .pt file.
      checkpoint_path: directory to write.
      model_name: what the file holds, where it does not say.
      model_kwargs: constructor arguments, where the file does not say or says wrong.
    Raises:
      FileNotFoundError, ValueError: no such file, unknown model or argument, or other tensors than the model has.
    """
    record = files.read(file)
    name = model_name or record.model_name
    if name not in CLASSES:
        raise unknown_name(f"model in {file}: name it with model_name;", name, CLASSES)
    record = dataclasses.replace(record, model_name=name, model_kwargs=record.model_kwargs | dict(model_kwargs or {}))
    kwargs, tensors = split_buffers(record)
    check_arguments(name, CLASSES[name], kwargs)
    model = CLASSES[name](**kwargs)
    entries = mapping.entries_for(name, all_kwargs(CLASSES[name], kwargs))
    set_parameters(model, mapping.from_torch(entries, tensors), str(file))
    model.eval()
    if checkpoint_path is not None:
        _write_checkpoint(checkpoint_path, model, dataclasses.replace(record, model_kwargs=kwargs))
    return model


def torch_record(
    model_name: str,
    kwargs: Mapping[str, Any],
    params: Mapping[str, np.ndarray],
    *,
    step: int = 0,
    statistics: Mapping[str, Any] | None = None,
) -> TorchRecord:
    """Torch weights of flat parameters, buffers included."""
    full = all_kwargs(CLASSES[model_name], kwargs)
    state_dict = mapping.to_torch(mapping.entries_for(model_name, full), params)
    prefix, buffers = _schedule_buffers(model_name, full)
    state_dict |= {f"{prefix}{name}": value for name, value in buffers.items()}
    public = {name: value for name, value in kwargs.items() if name not in OURS_ONLY}
    return TorchRecord(state_dict, model_name, public, step, dict(statistics or {}))


def split_buffers(record: TorchRecord) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(constructor arguments, tensors without buffers); the noise schedule is read off the buffer `betas`.

    Raises:
      ValueError: a schedule that is neither the cosine nor a linear one.
    """
    kwargs, tensors = dict(record.model_kwargs), dict(record.state_dict)
    prefix = "" if record.model_name == "diffusion_head" else "action_head."
    found = tensors.get(f"{prefix}betas")
    if found is None:
        return kwargs, tensors
    for name in BUFFERS:
        tensors.pop(f"{prefix}{name}", None)
    kwargs["num_diffusion_steps"] = len(found)
    if np.allclose(found, betas("cosine", len(found), 0.0, 0.0), atol=1e-6):
        return kwargs, tensors
    first, last = float(found[0]), float(found[-1])
    if not np.allclose(found, np.linspace(first, last, len(found)), atol=1e-6):
        raise ValueError("The noise schedule in the file is neither the squared cosine nor linear.")
    kwargs["schedule"] = "linear"
    if record.model_name == "diffusion_head":
        full = all_kwargs(DiffusionActionHead, kwargs)
        near = np.allclose([first, last], [full["beta_start"], full["beta_end"]], rtol=1e-5)
        kwargs |= {} if near else {"beta_start": first, "beta_end": last}
    return kwargs, tensors


BUFFERS = ("betas", "alphas", "alphas_cumprod", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod")


def _schedule_buffers(model_name: str, kwargs: Mapping[str, Any]) -> tuple[str, dict[str, np.ndarray]]:
    if model_name == "diffusion_head":
        prefix, limits = "", (float(kwargs["beta_start"]), float(kwargs["beta_end"]))
    elif model_name in BUILT_IN and head_type(model_name, kwargs) == "diffusion":
        defaults = all_kwargs(DiffusionActionHead, {})
        prefix, limits = "action_head.", (float(defaults["beta_start"]), float(defaults["beta_end"]))
    else:
        return "", {}
    noise = betas(kwargs["schedule"], kwargs["num_diffusion_steps"], *limits)
    signal = np.cumprod(1.0 - noise)
    values = (noise, 1.0 - noise, signal, np.sqrt(signal), np.sqrt(1.0 - signal))
    return prefix, {name: value.astype(np.float32) for name, value in zip(BUFFERS, values, strict=True)}


def _describe(module: Any) -> tuple[str, dict[str, Any]]:
    for name, cls in CLASSES.items():
        if type(module) is cls:
            return name, _actor_critic_kwargs(module) if cls is ActorCritic else changed_kwargs(module)
    raise ValueError(f"{type(module).__name__} has no torch layout. Available: {', '.join(CLASSES)}.")


def _actor_critic_kwargs(module: ActorCritic) -> dict[str, Any]:
    if module.encoder is not None or module.critic_net is not None:
        raise ValueError("An ActorCritic with an image encoder or its own critic network has no torch layout.")
    hidden = module.feature_net[0].kernel.shape[1]
    sizes = {"obs_dim": module.obs_dim, "action_dim": module.action_dim}
    return sizes | {"hidden_dim": hidden, "n_layers": len(module.feature_net)}


def _record_of_checkpoint(path: str | Path, use_ema: bool) -> TorchRecord:
    tree, manifest = checkpoint.load(path)
    if manifest.model_name not in CLASSES:
        raise unknown_name("model for torch", manifest.model_name, CLASSES)
    weights = tree["ema_params"] if use_ema and "ema_params" in tree else tree["params"]
    numbers = statistics_of(tree, manifest)
    params = flat_tree.host_arrays(weights)
    record = torch_record(manifest.model_name, manifest.model_kwargs, params, step=manifest.step, statistics=numbers)
    policy = acting_record(manifest, numbers, CLASSES[manifest.model_name])
    return dataclasses.replace(record, policy=policy, manifest=checkpoint.manifest_record(manifest))


def statistics_of(tree: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    """The normalisation statistics of a checkpoint as lists of numbers, {} where it uses none."""
    if manifest.kind == "ppo":
        is_normalized = manifest.config.get("normalize_observations", True)
        statistics = tree.get("normalizer", {}).get("state") if is_normalized else None
    else:
        statistics = tree.get("statistics")
    return {name: np.asarray(value).tolist() for name, value in (statistics or {}).items()}


def _write_checkpoint(path: str | Path, model: Any, record: TorchRecord) -> None:
    statistics = {name: np.asarray(value, np.float32) for name, value in record.statistics.items()}
    if record.model_name == "actor_critic":
        _write_ppo(path, model, record, statistics)
        return
    if record.model_name not in BUILT_IN:
        raise ValueError(f"A {record.model_name!r} alone is no policy; import it without a checkpoint path.")
    tree: dict[str, Any] = {"params": flat_tree.nest(flat_parameters(model))}
    tree |= {"statistics": statistics} if statistics else {}
    if record.manifest:
        fields = record.manifest | {"model_kwargs": record.model_kwargs}
        checkpoint.save(path, tree, from_dict(Manifest, fields))
        return
    spec = {"shape": [model.action_dim], "dtype": "float32", "low": -1.0, "high": 1.0}
    manifest = Manifest(
        kind="model",
        model_name=record.model_name,
        model_kwargs=record.model_kwargs,
        action_spec=spec,
        statistics={"statistics": "statistics"} if statistics else {},
        step=record.step,
    )
    checkpoint.save(path, tree, manifest)


def _write_ppo(path: str | Path, model: Any, record: TorchRecord, statistics: dict[str, np.ndarray]) -> None:
    """A PPO checkpoint with fresh optimizer state, from which training may go on; normalises only with statistics."""
    import jax.numpy as jnp
    from flax import nnx

    from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
    from simscaleai_jax.rl.ppo.actions import ActionBounds
    from simscaleai_jax.rl.ppo.normalize import RunningStats
    from simscaleai_jax.rl.ppo.storage import agent_from_manifest

    kwargs = _actor_critic_kwargs(model)
    if record.manifest:
        agent = agent_from_manifest(from_dict(Manifest, record.manifest), PPOAgent)
        agent.observation_spec, agent.env_record = record.manifest["observation_spec"], record.manifest["env"]
        agent.action_bounds = ActionBounds.from_record(record.manifest["action_spec"], kwargs["action_dim"])
    else:
        sizes = {name: kwargs[name] for name in ("hidden_dim", "n_layers")}
        config = PPOConfig(**sizes, normalize_observations=bool(statistics))
        agent = PPOAgent(kwargs["obs_dim"], kwargs["action_dim"], config)
    params = flat_tree.restore(flat_parameters(model), nnx.to_pure_dict(nnx.state(model, nnx.Param)), str(path))
    agent.state = agent.state.replace(params=params, update=jnp.int32(record.step))
    if statistics:
        agent.state = agent.state.replace(normalizer={"state": RunningStats(**statistics)})
    agent.save(str(path))
