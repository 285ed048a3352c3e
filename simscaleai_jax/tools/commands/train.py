"""`simscale train`: train a model on demonstrations."""

import dataclasses
import functools
import json
import logging
import shlex
from pathlib import Path
from typing import Annotated, Any

import tyro

from simscaleai_jax.core import paths
from simscaleai_jax.core.config import init_fields
from simscaleai_jax.tools.arguments import check_scene_file, demonstrated_env, given, parse
from simscaleai_jax.tools.distribution import JoinOptions
from simscaleai_jax.tools.films import evaluate_filmed, filming_folder
from simscaleai_jax.tools.model_options import model_options_class, named_model
from simscaleai_jax.tools.names import Names
from simscaleai_jax.tools.output import print_table
from simscaleai_jax.training.config import TrainConfig

DESCRIPTION = """Train a model on demonstrations (see simscale datagen).

The run's folder (--checkpoint-dir) gets checkpoints, metrics.jsonl, metrics.csv, run.json with the whole
configuration, and learning_curve.png; `simscale eval` takes it as it is. A run that was stopped (SIGTERM, Ctrl-C, a
crash) is continued by the same command. A preset's name may come first, or a YAML file with --config; options on the
command line win over it. --help lists the arguments of the model that --model names.

Examples:
  simscale train --dataset data/reach.h5 --max-steps 5000 --checkpoint-dir checkpoints/bc_reach
  simscale train bc_reach --lr 5e-4
  simscale train --model vla --model.embed-dim 128 --dataset data/reach.h5
  simscale train                                           random dummy data, to see that everything works
  simscale launch --num-processes 2 -- train bc_reach --distributed"""

DUMMY_SAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """What the model is trained on.

    Attributes:
      split: mask of the file to train on, for example "train"; default: all episodes.
      obs_keys: observations to train on; default: all.
      seq_len: actions per sample, for models that predict chunks.
      normalize: train on states with mean 0 and deviation 1; the statistics travel in the checkpoint.
    """

    split: str | None = None
    obs_keys: tuple[str, ...] | None = None
    seq_len: int = 1
    normalize: bool = True


@dataclasses.dataclass(frozen=True)
class TrainEvalOptions:
    """How the model is evaluated while it trains.

    Attributes:
      split: mask of the file to evaluate on, for example "valid"; default: no such evaluation.
      episodes: episodes of closed-loop evaluation in the data set's environment, on host physics.
    """

    split: str | None = None
    episodes: int = 0


@dataclasses.dataclass(frozen=True)
class TrainOptions(TrainConfig):
    """Options of `simscale train`: those of `TrainConfig`, and these.

    Attributes:
      max_steps: updates in all.
      warmup_steps: updates of linear warm-up; default: 500, at most a tenth of max_steps.
      data: what the model is trained on.
      eval: how it is evaluated.
      join: one of several processes, where no scheduler says which.
      config: YAML file with any of these options; a preset's name may stand first instead.
      verbose: show what libraries log.
    """

    max_steps: int = 1000
    warmup_steps: int | None = None  # type: ignore[assignment]
    data: DataOptions = dataclasses.field(default_factory=DataOptions)
    eval: TrainEvalOptions = dataclasses.field(default_factory=TrainEvalOptions)
    join: Annotated[JoinOptions, tyro.conf.arg(name="")] = dataclasses.field(default_factory=JoinOptions)
    config: str | None = None
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False

    def __post_init__(self) -> None:
        if self.warmup_steps is None:
            object.__setattr__(self, "warmup_steps", min(500, self.max_steps // 10))
        super().__post_init__()


KEPT = {"model": "model-name", "dataset": "dataset-path", "output": "checkpoint-dir"}
OLD = {
    "split": "data.split", "eval-split": "eval.split", "obs-keys": "data.obs-keys", "seq-len": "data.seq-len",
    "normalize": "data.normalize", "no-normalize": "data.no-normalize", "eval-episodes": "eval.episodes",
    "auto-resume": "resume", "no-auto-resume": "no-resume", "use-tensorboard": "log.trackers=tensorboard",
}  # fmt: skip
NAMES = Names(kept={}, old=OLD)
FILE_NAMES = Names(
    kept=KEPT | {name: f"join.{name}" for name in init_fields(JoinOptions)},
    old={name: new for name, new in OLD.items() if not name.startswith(("no-", "use-"))},
)


def parse_options(argv: list[str]) -> TrainOptions:
    """The options that the arguments say, the model's own among them under `model_kwargs`."""
    argv = _without_json(argv)
    model = model_options_class(named_model(argv, FILE_NAMES))
    extended = dataclasses.make_dataclass(
        "TrainOptions", [("model", model, dataclasses.field(default=model()))], bases=(TrainOptions,), frozen=True
    )
    extended.__doc__ = f"{TrainOptions.__doc__}\n    model: arguments of the model; sizes are taken from the data set."
    filled = parse(extended, argv, "train", DESCRIPTION, NAMES, FILE_NAMES)
    values = {name: getattr(filled, name) for name in init_fields(TrainOptions)}
    values["model_kwargs"] = dict(filled.model_kwargs) | given(dataclasses.asdict(filled.model))
    warmup, total = filled.warmup_steps, filled.max_steps
    if warmup > total:
        raise ValueError(f"--warmup-steps {warmup} is more than --max-steps {total}: lr is never reached.")
    return TrainOptions(**values)


def _without_json(argv: list[str]) -> list[str]:
    """--model-kwargs JSON, the old way to give a model's arguments, as --model.NAME VALUE."""
    names = ("--model-kwargs", "--model_kwargs")
    at = next((i for i, argument in enumerate(argv) if argument.partition("=")[0] in names), None)
    if at is None:
        return list(argv)
    _, is_joined, text = argv[at].partition("=")
    rest = argv[at + 1 :] if is_joined else argv[at + 2 :]
    text = text if is_joined else "".join(argv[at + 1 : at + 2])
    try:
        kwargs = dict(json.loads(text))
    except ValueError as error:
        raise ValueError(f"--model-kwargs is not JSON: {error}.") from None
    words = [word for name, value in kwargs.items() for word in _as_flag(f"model.{name.replace('_', '-')}", value)]
    Names(old={"model-kwargs": "model.NAME"}).in_arguments(["--model-kwargs"], "train")
    return [*argv[:at], *words, *rest]


def _as_flag(name: str, value: Any) -> list[str]:
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}", str(value)]


def main(argv: list[str]) -> None:
    """Parses the options, trains, prints where everything is."""
    options = parse_options(argv)
    if options.verbose:
        logging.basicConfig(level=logging.INFO)
    from simscaleai_jax.core import distributed

    try:
        numbers = train(options)
    except distributed.PeerLostError as error:
        distributed.leave_broken_run(error)
        raise
    if distributed.is_main():
        rows = [(name, value) for name, value in sorted(numbers.items())]
        rows += [("run", options.checkpoint_dir), ("next", shlex.join(["simscale", "eval", options.checkpoint_dir]))]
        print_table(f"{options.model_name} after {options.max_steps:,} updates", ("result", "value"), rows)


def train(options: TrainOptions) -> dict[str, float]:
    """Builds data, model and trainer; returns the trainer's latest numbers."""
    from simscaleai_jax.core import distributed
    from simscaleai_jax.models import create_model
    from simscaleai_jax.training.data import make_loader
    from simscaleai_jax.training.setup import dataset_statistics, model_kwargs_for
    from simscaleai_jax.training.trainer import Trainer

    if options.distributed:
        joined = (options.join.coordinator, options.join.num_processes, options.join.process_id)
        distributed.initialize(*joined, backend=options.backend, lost_peer_seconds=options.lost_peer_seconds)
    mesh = options.make_mesh()
    dataset = open_dataset(options, options.data.split)
    if options.augmentation and not dataset.image_keys:
        where = options.dataset_path or "the data"
        raise ValueError(f"{options.augmentation} varies images, and there are none in {where}.")
    kwargs = model_kwargs_for(options.model_name, dataset[0], options.model_kwargs)
    model = create_model(options.model_name, **kwargs, **_seeded(options.seed))
    statistics = dataset_statistics(dataset) if options.data.normalize else None
    settings: dict[str, Any] = {"mesh": mesh, "seed": options.seed, "num_workers": options.num_workers}
    settings |= {"device_mb": options.device_mb}
    loader = make_loader(dataset, options.batch_size, augmentation=options.augmentation, **settings)
    eval_loader = None
    if options.eval.split:
        eval_data = open_dataset(options, options.eval.split)
        eval_loader = make_loader(eval_data, min(options.batch_size, len(eval_data)), shuffle=False, **settings)
    env = env_record(dataset)
    eval_fn = None
    if options.eval.episodes:
        folder = filming_folder(options.checkpoint_dir, options.log.videos)
        eval_fn = make_eval_fn(env, options.eval.episodes, options.dataset_path, options.log.videos, folder)
    language = dataset.demos.language(0) or None if options.dataset_path else None
    trainer = Trainer(
        model, loader, options, eval_loader, eval_fn, statistics=statistics, env=env, language=language
    )  # fmt: skip
    return trainer.train()


def open_dataset(options: TrainOptions, split: str | None) -> Any:
    """The demonstrations, or, said loudly, random data of the documented shapes."""
    from simscaleai_jax.training.data import DummyTrajectoryDataset, TrajectoryDataset

    is_vla = options.model_name == "vla"
    if options.dataset_path:
        data = options.data
        return TrajectoryDataset(
            paths.local(options.dataset_path, "A data set"),
            data.seq_len,
            list(data.obs_keys) if data.obs_keys else None,
            include_language=is_vla,
            split=split,
            obs_horizon=1 if data.seq_len > 1 else None,
        )
    _warn("NO DATA SET WAS GIVEN (--dataset): training on RANDOM DUMMY DATA. The result is worth nothing.")
    return DummyTrajectoryDataset(DUMMY_SAMPLES, include_image=is_vla, include_language=is_vla, seed=options.seed)


def env_record(dataset: Any) -> dict[str, Any]:
    """{"name", "config"} of the environment that the demonstrations come from; {} where the file does not say."""
    name, config = demonstrated_env(dataset.demos.attributes if hasattr(dataset, "demos") else {})
    if not name:
        return {}
    if not dataset.image_keys:
        config["cameras"] = []
    return {"name": name, "config": config}


def make_eval_fn(
    env: dict[str, Any], num_episodes: int, dataset: str, num_videos: int = 0, folder: Path | None = None
) -> Any:
    """Closed-loop evaluation, all episodes at once: eval_fn(policy) -> success_rate, mean_reward, mean_length, videos.

    Args:
      env: `env_record` of the data set. num_episodes: of each evaluation.
      dataset: name of the data, for messages.
      num_videos: episodes to film. folder: `filming_folder`.
    Raises:
      ValueError, FileNotFoundError: the file `dataset` names no environment, one that there is not, or such a scene.
    """
    from simscaleai_jax.core.errors import check_names
    from simscaleai_jax.sim.factory import list_envs

    if not env:
        raise ValueError("--eval.episodes: the data set does not say which environment it comes from.")
    check_names(f"environment of {dataset}:", [env["name"]], list_envs())
    check_scene_file(env["config"], dataset)

    @functools.cache
    def environment() -> Any:
        from simscaleai_jax.sim.factory import make_functional_env

        return make_functional_env(env["name"], **env["config"])

    def evaluate(policy: Any) -> dict[str, Any]:
        from simscaleai_jax.core.streams import Stream
        from simscaleai_jax.rl.evaluator import EvalConfig

        config = EvalConfig(num_episodes, environment().max_episode_steps, stream=Stream.VALIDATION)
        found, videos = evaluate_filmed(environment(), policy, config, folder, num_videos)
        return {name: found[name] for name in ("success_rate", "mean_reward", "mean_length")} | {"videos": videos}

    return evaluate


def _seeded(seed: int) -> dict[str, Any]:
    from flax import nnx

    from simscaleai_jax.core.streams import Stream, seed_key

    return {"rngs": nnx.Rngs(seed_key(seed, Stream.WEIGHTS))}


def _warn(text: str) -> None:
    from rich.console import Console

    from simscaleai_jax.core import distributed

    if distributed.is_main():
        Console(stderr=True).print(f"\n!!! {text} !!!\n", style="bold red", markup=False)
