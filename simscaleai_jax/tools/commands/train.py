"""`simscale train`: train a model on demonstrations."""

import dataclasses
import functools
import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from simscaleai_jax.core import paths
from simscaleai_jax.core.config import init_fields
from simscaleai_jax.tools.arguments import check_scene_file, demonstrated_env, given, parse
from simscaleai_jax.tools.distribution import JoinOptions
from simscaleai_jax.tools.films import evaluate_filmed, filming_folder
from simscaleai_jax.tools.instructions import check_readable, common_instruction
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
      episodes: at least so many demonstrations there must be; default: one.
      obs_keys: observations to train on; default: all that the model reads.
      cameras: pictures to train on, by their observation keys; none: only states. Default: all that the model reads.
      auxiliary_keys: states that pictures, of `vla` with the instruction, learn to tell while it trains; not read.
      robot_only: of the states only what a real robot's own sensors tell, nothing of objects and targets.
      seq_len: actions per sample, for models that predict chunks; default: as the model plans.
      normalize: train on states with mean 0 and deviation 1; the statistics travel in the checkpoint.
      normalize_actions: train on actions whose range is [-1, 1]; default: as the model wants it.
    """

    split: str | None = None
    episodes: int = 1
    obs_keys: tuple[str, ...] | None = None
    cameras: tuple[str, ...] | None = None
    auxiliary_keys: tuple[str, ...] = ()
    robot_only: bool = False
    seq_len: int | None = None
    normalize: bool = True
    normalize_actions: bool | None = None


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
        if any(word.partition("=")[0].replace("_", "-") == "--warmup-steps" for word in argv):
            raise ValueError(f"--warmup-steps {warmup} is more than --max-steps {total}: lr is never reached.")
        values["warmup_steps"] = None  # the file's, for a longer run
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
    from simscaleai_jax.training.setup import action_limits, dataset_statistics
    from simscaleai_jax.training.trainer import Trainer

    if options.distributed:
        joined = (options.join.coordinator, options.join.num_processes, options.join.process_id)
        distributed.initialize(*joined, backend=options.backend, lost_peer_seconds=options.lost_peer_seconds)
    mesh = options.make_mesh()
    dataset = open_dataset(options, options.data.split)
    if options.augmentation and not dataset.image_keys:
        where = options.dataset_path or "the data"
        raise ValueError(f"{options.augmentation} varies images, and there are none in {where}.")
    model = make_model(options, dataset)
    check_readable(dataset, model)
    dataset = read_alone(dataset, model)
    scaling = chosen_scaling(options.data, model)
    statistics = None if scaling is None else dataset_statistics(dataset, scaling)
    settings: dict[str, Any] = {"mesh": mesh, "seed": options.seed, "num_workers": options.num_workers}
    settings |= {"device_mb": options.device_mb}
    told = options.data.auxiliary_keys
    loader = with_auxiliary(dataset, told, options.batch_size, augmentation=options.augmentation, **settings)
    eval_loader = None
    if options.eval.split:
        eval_data = read_alone(open_dataset(options, options.eval.split), model)
        eval_loader = with_auxiliary(eval_data, told, options.batch_size, shuffle=False, drop_last=False, **settings)
    env = env_record(dataset)
    eval_fn = None
    if options.eval.episodes:
        folder = filming_folder(options.checkpoint_dir, options.log.videos)
        eval_fn = make_eval_fn(env, options.eval.episodes, options.dataset_path, options.log.videos, folder)
    language = common_instruction(dataset, env)
    trainer = Trainer(
        model,
        loader,
        options,
        eval_loader,
        eval_fn,
        statistics=statistics,
        env=env,
        language=language,
        action_limits=action_limits(dataset),
    )
    return trainer.train()


def open_dataset(options: TrainOptions, split: str | None) -> Any:
    """The demonstrations in the windows that the model wants, or, said loudly, random data of the documented shapes.

    Raises:
      FileNotFoundError, ValueError: there are none, too few of them, or not with these observations.
    """
    from simscaleai_jax.models.record import all_kwargs
    from simscaleai_jax.models.registry import find_model
    from simscaleai_jax.training.data import DummyTrajectoryDataset, TrajectoryDataset

    model, data = find_model(options.model_name), options.data
    wanted = all_kwargs(model, options.model_kwargs)
    reads_language = bool(wanted.get("use_language", False))
    if not options.dataset_path:
        _warn("NO DATA SET WAS GIVEN (--dataset): training on RANDOM DUMMY DATA. The result is worth nothing.")
        has_image = getattr(model, "needs_picture", False)
        return DummyTrajectoryDataset(
            DUMMY_SAMPLES, include_image=has_image, include_language=reads_language, seed=options.seed
        )
    dataset = TrajectoryDataset(
        paths.local(options.dataset_path, "A data set"),
        _planned(data.seq_len, options.model_kwargs, wanted),
        list(data.obs_keys) if data.obs_keys else None,
        include_language=reads_language,
        split=split,
        obs_horizon=wanted.get("obs_horizon", 1),
    )
    if len(dataset.demos.names) < data.episodes:
        found = f"{options.dataset_path} holds {len(dataset.demos.names)} demonstrations"
        raise ValueError(f"{found}; wanted at least {data.episodes} (--data.episodes).")
    return dataset.reading(_chosen_keys(data, dataset))


def with_auxiliary(dataset: Any, keys: Sequence[str], batch_size: int, **settings: Any) -> Any:
    """The loader of a data set; with `keys` of its file as what is told apart (`training.data.auxiliary`)."""
    from simscaleai_jax.training.data import make_loader
    from simscaleai_jax.training.data.auxiliary import AuxiliaryLoader

    if not keys:
        return make_loader(dataset, batch_size, **settings)
    whole = dataset.reading([*dataset.obs_keys, *keys])
    return AuxiliaryLoader(make_loader(whole, batch_size, **settings), keys, dataset.stats(list(keys))["observations"])


def _planned(seq_len: int | None, given: Mapping[str, Any], wanted: Mapping[str, Any]) -> int:
    """Actions of a sample: as the data options say, or else as the model plans."""
    horizon = int(wanted.get("action_horizon", 1))
    if seq_len is None:
        return horizon
    if "action_horizon" in given and seq_len != horizon:
        raise ValueError(f"--data.seq-len {seq_len} and --model.action-horizon {horizon}: give one of them.")
    return seq_len


def _chosen_keys(data: DataOptions, dataset: Any) -> list[str]:
    """The observations that the options leave.

    Raises:
      ValueError: a camera that there is not, or no observation is left.
    """
    from simscaleai_jax.core.errors import check_names
    from simscaleai_jax.core.observations import is_own_state

    pictures = list(dataset.image_keys) if data.cameras is None else list(data.cameras)
    check_names("camera (--data.cameras):", pictures, dataset.image_keys)
    states = [key for key in dataset.obs_keys if key not in dataset.image_keys]
    if data.robot_only:
        states = [key for key in states if is_own_state(key)]
    states = [key for key in states if key not in data.auxiliary_keys]
    if not states and not pictures:
        raise ValueError(f"No observation is left of {', '.join(dataset.obs_keys)}.")
    return [key for key in dataset.obs_keys if key in states or key in pictures]


def make_model(options: TrainOptions, dataset: Any) -> Any:
    """The model that the options name, in the sizes of the data set."""
    from simscaleai_jax.models import create_model
    from simscaleai_jax.training.setup import data_spec, model_arguments

    kwargs = model_arguments(options.model_name, data_spec(dataset), options.model_kwargs)
    if told := options.data.auxiliary_keys:
        kwargs["auxiliary_size"] = _auxiliary_size(dataset, told)
    return create_model(options.model_name, **kwargs, **_seeded(options.seed))


def _auxiliary_size(dataset: Any, keys: Sequence[str]) -> int:
    """Numbers of the states that the pictures are to tell; a ValueError for keys that are none, or no pictures."""
    from simscaleai_jax.core.errors import check_names

    specs = dataset.demos.specs if hasattr(dataset, "demos") else {}
    known = {key.removeprefix("obs/"): spec[0] for key, spec in specs.items() if key.startswith("obs/")}
    check_names("state (--data.auxiliary-keys):", keys, [key for key, sizes in known.items() if len(sizes) == 1])
    if not dataset.image_keys:
        raise ValueError(f"--data.auxiliary-keys {' '.join(keys)}: no picture is read that could tell them.")
    return sum(int(known[key][0]) for key in keys)


def read_alone(dataset: Any, model: Any) -> Any:
    """The data set without pictures that the model does not look at: nobody has to take them when it is deployed."""
    seen = getattr(model, "picture_keys", None)
    if seen is None or not hasattr(dataset, "reading"):
        return dataset
    return dataset.reading([key for key in dataset.obs_keys if key not in dataset.image_keys or key in seen])


def chosen_scaling(data: DataOptions, model: Any) -> Any:
    """How the data are scaled: as the model wants it, but for what the options say; None for not at all."""
    from simscaleai_jax.models.normalization import Scaling

    if not data.normalize:
        return None
    scaling = getattr(model, "scaling", Scaling())
    actions = scaling.actions if data.normalize_actions is None else data.normalize_actions
    return dataclasses.replace(scaling, actions=actions)


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
    """Closed-loop evaluation, all episodes at once: eval_fn(policy) -> success_rate, mean_reward, mean_length, videos
    and the number of episodes.

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
        numbers = {name: found[name] for name in ("success_rate", "mean_reward", "mean_length")}
        return numbers | {"videos": videos, "episodes": num_episodes}

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
