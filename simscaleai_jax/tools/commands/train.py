"""`simscale train`: train a model on demonstrations."""

import dataclasses
import functools
import json
import logging
from typing import Annotated, Any

import tyro

from simscaleai_jax.tools.arguments import check_scene_file, demonstrated_env, parse, print_table

DESCRIPTION = """Train a model on demonstrations (see simscale datagen).

The run's folder (--checkpoint-dir) gets checkpoints, metrics.jsonl, metrics.csv and learning_curve.png; `simscale eval`
takes it as it is. A run that was stopped (SIGTERM, a crash) is continued by the same command. Every option may stand in
a YAML file given with --config; options on the command line win over it.

Examples:
  simscale train --dataset data/reach.h5 --max-steps 5000 --checkpoint-dir checkpoints/bc_reach
  simscale train --config configs/bc_reach.yaml --lr 5e-4
  simscale train                                           random dummy data, to see that everything works
  simscale launch --num-processes 2 -- train --config configs/bc_reach.yaml --distributed"""

DUMMY_SAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Options of `simscale train`; what is None is the default of TrainConfig.

    Attributes:
      model: registered model (see simscale list-models).
      model_kwargs: constructor arguments as JSON; sizes are taken from the data set.
      dataset: HDF5 file of demonstrations; empty: random dummy data.
      split: mask of the file to train on, for example "train"; default: all episodes.
      eval_split: mask of the file to evaluate on, for example "valid"; default: no such evaluation.
      obs_keys: observations to train on; default: all.
      seq_len: actions per sample, for models that predict chunks.
      normalize: train on states with mean 0 and deviation 1; the statistics travel in the checkpoint.
      eval_episodes: episodes of closed-loop evaluation in the data set's environment, on host physics.
      batch_size: samples per update over all devices and processes.
      max_steps: updates.
      warmup_steps: updates of linear warm-up; default: 500, at most a tenth of max_steps.
      lr: peak learning rate.
      min_lr_ratio: final learning rate as a share of it.
      weight_decay, grad_clip, grad_accum_steps, ema_decay: see TrainConfig.
      checkpoint_dir: folder of the run.
      resume_from: checkpoint to continue.
      auto_resume: continue the run that is found in checkpoint_dir; --no-auto-resume starts over.
      best_metric: number that decides which checkpoint is best; default: eval/success_rate, else eval/loss.
      save_every, log_every, eval_every, keep_checkpoints: updates between them; checkpoints to keep.
      num_workers: threads that decode images, at most one per core.
      device_mb: keep data sets of states up to this size on the device; larger ones are streamed.
      random_shift: shift images by up to so many pixels along each axis; see ImageAugmentation for this and the next.
      random_brightness, random_contrast, random_saturation: vary images by factors from [1 - x, 1 + x].
      use_amp: compute in amp_dtype on accelerators.
      amp_dtype: "bfloat16", or "float32" for none.
      remat: recompute activations to save memory.
      fsdp: split large parameters over the devices.
      max_steps_per_dispatch: most updates in one call to the device, for data that lives there.
      use_wandb, use_tensorboard: log there, too.
      wandb_project, wandb_run_name: where to.
      device: "auto", "cpu", "gpu" or "tpu".
      num_devices: how many of them.
      seed: of the weights, the order of the data and dropout.
      distributed: one of several processes; found out by itself on TPU pods, Slurm, Kubernetes and under launch.
      coordinator: "host:port" of process 0, where it is not.
      num_processes, process_id: likewise.
      backend: how CPUs exchange data: "gloo" or "mpi".
      lost_peer_seconds: how long a process may be silent before the others count it as lost.
      config: YAML file with any of these options.
      verbose: show what libraries log.
    """

    model: str = "bc"
    model_kwargs: str = "{}"
    dataset: str = ""
    split: str | None = None
    eval_split: str | None = None
    obs_keys: tuple[str, ...] | None = None
    seq_len: int = 1
    normalize: bool = True
    eval_episodes: int = 0
    batch_size: int = 32
    max_steps: int = 1000
    warmup_steps: int | None = None
    lr: float = 1e-4
    min_lr_ratio: float = 0.0
    weight_decay: float = 1e-5
    grad_clip: float = 1.0
    grad_accum_steps: int = 1
    ema_decay: float | None = None
    checkpoint_dir: str = "checkpoints"
    resume_from: str | None = None
    auto_resume: bool = True
    best_metric: str | None = None
    save_every: int = 5000
    log_every: int = 100
    eval_every: int = 1000
    keep_checkpoints: int = 3
    num_workers: int = 4
    device_mb: float = 1024.0
    random_shift: int = 0
    random_brightness: float = 0.0
    random_contrast: float = 0.0
    random_saturation: float = 0.0
    use_amp: bool = True
    amp_dtype: str = "bfloat16"
    remat: bool = False
    fsdp: bool = False
    max_steps_per_dispatch: int = 500
    use_wandb: bool = False
    use_tensorboard: bool = False
    wandb_project: str = "simscaleai"
    wandb_run_name: str | None = None
    device: str = "auto"
    num_devices: int | None = None
    seed: int = 0
    distributed: bool = False
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    backend: str = "auto"
    lost_peer_seconds: int = 60
    config: str | None = None
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False


def main(argv: list[str]) -> None:
    """Parses the options, trains, prints where everything is."""
    options = parse(TrainOptions, argv, "train", DESCRIPTION)
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
        rows += [("run", options.checkpoint_dir), ("next", f"simscale eval {options.checkpoint_dir}")]
        print_table(f"{options.model} after {options.max_steps:,} updates", ("result", "value"), rows)


def train(options: TrainOptions) -> dict[str, float]:
    """Builds data, model and trainer; returns the trainer's latest numbers."""
    from simscaleai_jax.core import distributed, sharding
    from simscaleai_jax.models import create_model
    from simscaleai_jax.training.data import make_loader
    from simscaleai_jax.training.setup import dataset_statistics, model_kwargs_for
    from simscaleai_jax.training.trainer import Trainer

    if options.distributed:
        joined = (options.coordinator, options.num_processes, options.process_id)
        distributed.initialize(*joined, backend=options.backend, lost_peer_seconds=options.lost_peer_seconds)
    config = make_config(options)
    mesh = sharding.make_mesh(sharding.pick_devices(config.device, config.num_devices))
    dataset = open_dataset(options, options.split)
    if config.augmentation and not dataset.image_keys:
        raise ValueError(f"{config.augmentation} varies images, and there are none in {options.dataset or 'the data'}.")
    kwargs = model_kwargs_for(config.model_name, dataset[0], config.model_kwargs)
    model = create_model(config.model_name, **kwargs, **_seeded(options.seed))
    statistics = dataset_statistics(dataset) if options.normalize else None
    settings: dict[str, Any] = {"mesh": mesh, "seed": options.seed, "num_workers": config.num_workers}
    settings |= {"device_mb": config.device_mb}
    loader = make_loader(dataset, config.batch_size, augmentation=config.augmentation, **settings)
    eval_loader = None
    if options.eval_split:
        eval_data = open_dataset(options, options.eval_split)
        eval_loader = make_loader(eval_data, min(config.batch_size, len(eval_data)), shuffle=False, **settings)
    env = env_record(dataset)
    eval_fn = make_eval_fn(env, options.eval_episodes, options.dataset) if options.eval_episodes else None
    language = dataset.demos.language(0) or None if options.dataset else None
    trainer = Trainer(
        model, loader, config, eval_loader, eval_fn, statistics=statistics, env=env, language=language
    )  # fmt: skip
    return trainer.train()


def make_config(options: TrainOptions) -> Any:
    """The options as a TrainConfig."""
    from simscaleai_jax.core.config import init_fields
    from simscaleai_jax.training.config import TrainConfig

    try:
        kwargs = json.loads(options.model_kwargs)
    except json.JSONDecodeError as error:
        raise ValueError(f"--model-kwargs is not JSON: {error}.") from None
    shared = {name: getattr(options, name) for name in init_fields(TrainConfig) if hasattr(options, name)}
    warmup = min(500, options.max_steps // 10) if options.warmup_steps is None else options.warmup_steps
    renamed = {"model_name": options.model, "model_kwargs": kwargs, "dataset_path": options.dataset}
    if warmup > options.max_steps:
        raise ValueError(f"--warmup-steps {warmup} is more than --max-steps {options.max_steps}: lr is never reached.")
    values: dict[str, Any] = shared | renamed | {"warmup_steps": warmup}
    return TrainConfig(**values)


def open_dataset(options: TrainOptions, split: str | None) -> Any:
    """The demonstrations, or, said loudly, random data of the documented shapes."""
    from simscaleai_jax.training.data import DummyTrajectoryDataset, TrajectoryDataset

    is_vla = options.model == "vla"
    if options.dataset:
        return TrajectoryDataset(
            options.dataset,
            options.seq_len,
            list(options.obs_keys) if options.obs_keys else None,
            include_language=is_vla,
            split=split,
            obs_horizon=1 if options.seq_len > 1 else None,
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


def make_eval_fn(env: dict[str, Any], num_episodes: int, dataset: str) -> Any:
    """Closed-loop evaluation, all episodes at once: eval_fn(policy) -> success_rate, mean_reward, mean_length.

    Raises:
      ValueError, FileNotFoundError: the file `dataset` names no environment, one that there is not, or such a scene.
    """
    from simscaleai_jax.core.errors import check_names
    from simscaleai_jax.sim.factory import list_envs

    if not env:
        raise ValueError("--eval-episodes: the data set does not say which environment it comes from.")
    check_names(f"environment of {dataset}:", [env["name"]], list_envs())
    check_scene_file(env["config"], dataset)

    @functools.cache
    def environment() -> Any:
        from simscaleai_jax.sim.factory import make_functional_env

        return make_functional_env(env["name"], **env["config"])

    def evaluate(policy: Any) -> dict[str, float]:
        from simscaleai_jax.core.streams import Stream
        from simscaleai_jax.rl.evaluator import EvalConfig, evaluate_policy

        steps = environment().max_episode_steps
        found = evaluate_policy(environment(), policy, EvalConfig(num_episodes, steps, stream=Stream.VALIDATION))
        return {name: found[name] for name in ("success_rate", "mean_reward", "mean_length")}

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
