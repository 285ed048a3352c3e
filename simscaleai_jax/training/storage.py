"""A run's checkpoints: what goes in, what has to agree when it comes out, and which one a restart takes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simscaleai_jax.core import checkpoint, distributed, flat_tree, paths
from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.core.checkpoint_series import CheckpointSeries
from simscaleai_jax.core.plain import plain
from simscaleai_jax.core.runs.folder import RunFolder, RunRules, flat_settings
from simscaleai_jax.models.normalization import Statistics
from simscaleai_jax.training.config import TrainConfig
from simscaleai_jax.training.step import TrainState

KIND = "model"
PATHS = ("dataset_path", "checkpoint_dir", "resume_from", "init_from")
RULES = RunRules(
    may_change=(
        "lr", "max_steps", "save_every", "log_every", "eval_every", "log.*", "eval.*", "keep_checkpoints", "use_wandb",
        "wandb_*", "device", "num_devices", "fsdp", "keep_gathered", "distributed", "backend", "lost_peer_seconds",
        "num_workers", "device_mb", "max_steps_per_dispatch", "checkpoint_dir", "resume", "warmup_steps", "join.*",
        "config", "verbose", "execute_steps", "ensemble",
    ),
    origins=("resume_from", "init_from"),
    advice="choose another checkpoint_dir",
)  # fmt: skip
SUCCESS = "eval/success_rate"
JUDGED_EPISODES = 100
LOWER_IS_BETTER = ("loss", "mse", "mae", "error", "length")


def make_tree(state: TrainState, statistics: Statistics | None) -> dict[str, Any]:
    """The arrays of a checkpoint."""
    tree = {"params": state.params, "opt_state": state.opt_state, "step": state.step, "key": state.key}
    tree |= {} if state.ema_params is None else {"ema_params": state.ema_params}
    return tree if statistics is None else tree | {"statistics": statistics.arrays()}


def make_manifest(
    config: TrainConfig, model: tuple[str, dict[str, Any]], observations: dict[str, Any], action_spec: dict[str, Any],
    statistics: Statistics | None, env: dict[str, Any], step: int, extra: dict[str, Any],
) -> Manifest:  # fmt: skip
    """What a checkpoint says about itself; policy.load_policy and `simscale eval` need nothing else."""
    return Manifest(
        kind=KIND,
        model_name=model[0],
        model_kwargs=model[1],
        observation_spec=observations,
        action_spec=action_spec,
        statistics={} if statistics is None else {name: f"statistics/{name}" for name in statistics.arrays()},
        env=env,
        step=step,
        config=stored_config(config),
        extra=extra,
    )


def read_training_manifest(path: str | Path, model: tuple[str, dict[str, Any]]) -> Manifest:
    """The manifest of a checkpoint that continues training of `model`.

    Raises:
      FileNotFoundError, ValueError: no whole checkpoint, one of another kind, or of another model (both are named).
    """
    manifest = checkpoint.read_manifest(path)
    if manifest.kind != KIND:
        raise ValueError(
            f"Checkpoint {path} holds a {manifest.kind!r} agent ({manifest.model_name}); Trainer continues checkpoints "
            f"of kind {KIND!r}."
        )
    if (manifest.model_name, manifest.model_kwargs) != (model[0], plain(model[1], "model_kwargs")):
        raise ValueError(
            f"Checkpoint {path} holds the model {_call(manifest.model_name, manifest.model_kwargs)}; this run trains "
            f"{_call(*model)}. Resume with the same model, or choose another checkpoint_dir."
        )
    return manifest


def load_tree(path: str | Path, target: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """(tree like `target`, whether it holds a whole training state); from bare weights only "params" is taken."""
    arrays, _ = checkpoint.open_tree(path)
    if any(name.startswith("opt_state/") for name in arrays):
        return flat_tree.restore(arrays, target, str(path)), True
    return target | {"params": _weights(arrays, "params/", target["params"], path)}, False


def load_weights(path: str | Path, target: Any) -> Any:
    """The weights that a checkpoint deploys (averaged ones where it has them), placed like `target`."""
    arrays, _ = checkpoint.open_tree(path)
    part = "ema_params/" if any(name.startswith("ema_params/") for name in arrays) else "params/"
    return _weights(arrays, part, target, path)


def _weights(arrays: Mapping[str, Any], part: str, target: Any, path: str | Path) -> Any:
    own = {name.removeprefix(part): array for name, array in arrays.items() if name.startswith(part)}
    return flat_tree.restore(own, target, str(path))


def open_series(config: TrainConfig, metric_name: str | None) -> CheckpointSeries:
    """The run's folder, made and tried out.

    Raises:
      ValueError: it cannot be written.
    """
    folder = paths.locate(config.checkpoint_dir)
    try:
        if distributed.is_main():
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".probe.{os.getpid()}.tmp"
            probe.write_text("")
            probe.unlink()
    except OSError as error:
        raise ValueError(f"checkpoint_dir {str(folder)!r} cannot be written: {error}.") from error
    is_higher = metric_name is None or _is_higher_better(metric_name)
    return CheckpointSeries(folder, config.keep_checkpoints, higher_is_better=is_higher)


def make_run(config: TrainConfig, series: CheckpointSeries) -> RunFolder:
    """The run that `config` describes; a subclass's further fields (of the data, of evaluation) belong to it."""
    return RunFolder(series, KIND, stored_config(config), RULES)


def stored_config(config: TrainConfig) -> dict[str, Any]:
    """The config for a run's record and its checkpoints, flat, its paths absolute: it may be read from elsewhere."""
    values = flat_settings(config)
    return values | {name: str(paths.locate(values[name])) for name in PATHS if values[name]}


def resume_path(config: TrainConfig) -> Path | None:
    """The checkpoint that `resume_from` means: itself, or the newest complete one of a run's folder.

    Raises:
      FileNotFoundError, ValueError: there is none.
    """
    if config.resume_from is None:
        return None
    path = paths.locate(config.resume_from)
    is_folder = path.is_dir() and not (path / checkpoint.MANIFEST).is_file()
    newest = checkpoint.complete_steps(path)[-1:] if is_folder else []
    return newest[0] if newest else path


def best_metric_name(config: TrainConfig, has_eval_fn: bool, has_eval_loader: bool) -> str | None:
    """The number that decides which checkpoint is best: as configured, else eval/success_rate, else eval/loss."""
    if config.best_metric is not None or not (has_eval_fn or has_eval_loader):
        return config.best_metric
    return SUCCESS if has_eval_fn else "eval/loss"


def pooled(judged: list[list[float]]) -> list[list[float]]:
    """The latest of [success rate, episodes], as many as make up 100 episodes, or all there are."""
    count, first = 0.0, len(judged)
    while first > 0 and count < JUDGED_EPISODES:
        first -= 1
        count += judged[first][1]
    return judged[first:]


def judgement(judged: list[list[float]], is_last: bool) -> float | None:
    """Success rate over all these episodes; None where they are too few to tell, unless no others will come."""
    count = sum(episodes for _, episodes in judged)
    if count < JUDGED_EPISODES and not is_last:
        return None
    return sum(rate * episodes for rate, episodes in judged) / count


def is_better(name: str, new: float, old: float | None) -> bool:
    """Whether `new` is at least as good as `old`; losses and errors are better when they are lower."""
    if old is None:
        return True
    return new >= old if _is_higher_better(name) else new <= old


def _is_higher_better(name: str) -> bool:
    return not any(word in name for word in LOWER_IS_BETTER)


def _call(name: str, kwargs: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in sorted(kwargs.items()))})"
