"""A run's checkpoints: what goes in, what has to agree when it comes out, and which one a restart takes."""

import os
from pathlib import Path
from typing import Any

from simscaleai_jax.core import checkpoint, distributed
from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.core.checkpoint_series import CheckpointSeries
from simscaleai_jax.core.config import to_dict
from simscaleai_jax.core.plain import plain
from simscaleai_jax.models.normalization import Statistics
from simscaleai_jax.training.config import TrainConfig
from simscaleai_jax.training.step import TrainState

KIND = "model"
STATISTICS = ("state_mean", "state_std", "action_mean", "action_std")
LOWER_IS_BETTER = ("loss", "mse", "mae", "error", "length")


def make_tree(state: TrainState, statistics: Statistics | None) -> dict[str, Any]:
    """The arrays of a checkpoint."""
    tree = {"params": state.params, "opt_state": state.opt_state, "step": state.step, "key": state.key}
    tree |= {} if state.ema_params is None else {"ema_params": state.ema_params}
    return (
        tree if statistics is None else tree | {"statistics": {name: getattr(statistics, name) for name in STATISTICS}}
    )


def make_manifest(
    config: TrainConfig, model: tuple[str, dict[str, Any]], observations: dict[str, Any], action_dim: int,
    statistics: Statistics | None, env: dict[str, Any], step: int, extra: dict[str, Any],
) -> Manifest:  # fmt: skip
    """What a checkpoint says about itself; policy.load_policy and `simscale eval` need nothing else."""
    return Manifest(
        kind=KIND,
        model_name=model[0],
        model_kwargs=model[1],
        observation_spec=observations,
        action_spec={"shape": [action_dim], "dtype": "float32", "low": -1.0, "high": 1.0},
        statistics={} if statistics is None else {name: f"statistics/{name}" for name in STATISTICS},
        env=env,
        step=step,
        config=to_dict(config),
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
    arrays, _ = checkpoint.load(path)
    if "opt_state" in arrays:
        tree, _ = checkpoint.load(path, target)
        return tree, True
    from simscaleai_jax.core import flat_tree

    weights = flat_tree.restore(flat_tree.host_arrays(arrays["params"]), target["params"], str(path))
    return target | {"params": weights}, False


def open_series(config: TrainConfig, metric_name: str | None) -> CheckpointSeries:
    """The run's folder, made and tried out.

    Raises:
      ValueError: it cannot be written.
    """
    folder = Path(config.checkpoint_dir).absolute()
    try:
        if distributed.is_main():
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".probe-{os.getpid()}"
            probe.write_text("")
            probe.unlink()
    except OSError as error:
        raise ValueError(f"checkpoint_dir {str(folder)!r} cannot be written: {error}.") from error
    is_higher = metric_name is None or _is_higher_better(metric_name)
    return CheckpointSeries(folder, config.keep_checkpoints, higher_is_better=is_higher)


def find_resume(config: TrainConfig, series: CheckpointSeries) -> Path | None:
    """The checkpoint to continue: of `resume_from`, else the newest complete one in `checkpoint_dir`, else None.

    Process 0 decides where there are several.

    Raises:
      FileNotFoundError, ValueError: `resume_from` holds no checkpoint, or the folder holds a run although
        auto_resume=False.
    """
    if config.resume_from is not None:
        path = Path(config.resume_from).absolute()
        inside = sorted(path.glob("step_*")) if path.is_dir() and not (path / checkpoint.MANIFEST).is_file() else []
        return _newest(inside) or path
    newest = series.latest() if distributed.is_main() else None
    step = distributed.agree(-1 if newest is None else int(newest.name.removeprefix("step_")))
    if step < 0:
        return None
    if not config.auto_resume:
        raise ValueError(
            f"{series.folder} holds the checkpoints of a run (the newest is step_{step:09d}); with auto_resume=False "
            "a new run needs another checkpoint_dir."
        )
    return series.folder / f"step_{step:09d}"


def best_metric_name(config: TrainConfig, has_eval_fn: bool, has_eval_loader: bool) -> str | None:
    """The number that decides which checkpoint is best: as configured, else eval/success_rate, else eval/loss."""
    if config.best_metric is not None or not (has_eval_fn or has_eval_loader):
        return config.best_metric
    return "eval/success_rate" if has_eval_fn else "eval/loss"


def is_better(name: str, new: float, old: float | None) -> bool:
    """Whether `new` is at least as good as `old`; losses and errors are better when they are lower."""
    if old is None:
        return True
    return new >= old if _is_higher_better(name) else new <= old


def _is_higher_better(name: str) -> bool:
    return not any(word in name for word in LOWER_IS_BETTER)


def _newest(paths: list[Path]) -> Path | None:
    for path in reversed(paths):
        try:
            checkpoint.read_manifest(path)
        except (OSError, ValueError):
            continue
        return path
    return None


def _call(name: str, kwargs: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in sorted(kwargs.items()))})"
