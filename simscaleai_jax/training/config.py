"""`TrainConfig`: every setting of supervised training, checked when it is made."""

import dataclasses
from typing import Annotated, Any

import tyro

from simscaleai_jax.core.config import settle
from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.core.runs.trackers import LogConfig
from simscaleai_jax.core.streams import check_seed
from simscaleai_jax.training.data.augment import ImageAugmentation

BACKENDS = ("nccl", "gloo", "mpi", "auto")
AMP_DTYPES = ("bfloat16", "float16", "float32")
POSITIVE = (
    "batch_size", "lr", "max_steps", "save_every", "log_every", "eval_every", "grad_accum_steps",
    "keep_checkpoints", "max_steps_per_dispatch", "lost_peer_seconds",
)  # fmt: skip
VARIATIONS = {  # field -> what `ImageAugmentation` calls it
    "random_shift": "shift",
    "random_brightness": "brightness",
    "random_contrast": "contrast",
    "random_saturation": "saturation",
}
NOT_NEGATIVE = ("num_workers", "device_mb", "weight_decay", "warmup_steps", "grad_clip", *VARIATIONS)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of `Trainer`.

    Attributes:
      model_name: registered model that `simscale train` builds.
      model_kwargs: its constructor arguments; on the command line --model.NAME.
      dataset_path: demonstrations; "" for random dummy data.
      batch_size: samples per update over all devices and processes; used where a loader is built from the config.
      num_workers: threads that decode images, at most one per core.
      device_mb: data sets of states up to this size live on the device; larger ones are streamed.
      lr: peak learning rate: linear warm-up over `warmup_steps`, then a half cosine that ends at `max_steps`.
      weight_decay: decoupled, of kernels alone: no bias, norm or embedding (AdamW, https://arxiv.org/abs/1711.05101).
      warmup_steps: at least 0. A run that is shorter ends while the rate still rises, and says so.
      max_steps: updates in all.
      grad_clip: largest global norm of the gradient; 0 for no clipping.
      use_amp: compute in `amp_dtype` on accelerators; parameters, optimizer and losses stay float32. A CPU computes in
        float32, which is faster there.
      amp_dtype: "bfloat16" (float16 would need loss scaling, which is not built in; "float32" turns amp off).
      distributed: one run over several processes; `core.distributed.initialize` must have been called first.
      backend: collectives between processes on CPUs: "gloo" or "mpi"; "nccl" and "auto" leave the choice to JAX, which
        takes NCCL on GPUs, the interconnect's own on TPUs and gloo on CPUs.
      checkpoint_dir: the run's folder: checkpoints, metrics.jsonl, metrics.csv, learning_curve.png.
      save_every: updates between checkpoints.
      resume_from: checkpoint, or folder of a run, to go on from where `checkpoint_dir` holds no run yet.
      log_every: updates between rows of the log.
      eval_every: updates between evaluations.
      use_wandb: the same as `log.trackers=("wandb",)`.
      wandb_project: the same as `log.project`.
      wandb_run_name: the same as `log.name`.
      device: "auto", "cpu", "gpu" (or "cuda") or "tpu".
      seed: of dropout and of everything else that is random in the update.
      min_lr_ratio: final learning rate as a share of `lr`.
      grad_accum_steps: parts in which a batch is computed one after the other, to save memory.
      ema_decay: keeps an exponential average of the weights, which is evaluated and deployed; None for none.
      remat: recompute activations in the backward pass, to save memory.
      num_devices: devices of this kind to use; default: all accelerators, one CPU device.
      fsdp: also split large parameters, their gradients and moments over the devices (rules in core/sharding.py).
      keep_gathered: with `fsdp` and `remat`, keep the gathered matrices of layers, in the computing dtype, for the
        backward pass: they are gathered once an update and not twice, and every device has room for all of them.
      keep_checkpoints: newest checkpoints to keep; the best one is kept besides.
      resume: continue the run found in `checkpoint_dir`; False refuses a folder that holds one.
      init_from: checkpoint whose weights a new run starts with; unlike `resume_from`, everything else starts anew.
      execute_steps: actions that the policy executes of every chunk; default: as the model says, else all.
      ensemble: weight decay of temporal ensembling, instead of `execute_steps`; default: as the model says, else none.
        Both are recorded in the checkpoint.
      best_metric: number that decides which checkpoint is best; default: eval/success_rate of `eval_fn`, else
        eval/loss. Where `eval_fn` says how many "episodes" it played, success is judged over the latest evaluations
        that make up 100 of them.
      max_steps_per_dispatch: most updates in one call to the device, for data that lives there.
      lost_peer_seconds: how long to wait for another process before it counts as lost.
      random_shift: largest random shift of images in pixels along each axis, one draw per sample; 0 for none.
      random_brightness: factors on images' brightness are drawn from [1 - x, 1 + x]; as with `random_shift`, used where
        a loader is built from the config.
      random_contrast: likewise, of contrast.
      random_saturation: likewise, of saturation.
      log: trackers, and rows by time.
    """

    model_name: Annotated[str, tyro.conf.arg(aliases=["--model"])] = "bc"
    model_kwargs: Annotated[dict[str, Any], tyro.conf.Suppress] = dataclasses.field(default_factory=dict)
    dataset_path: Annotated[str, tyro.conf.arg(aliases=["--dataset"])] = ""
    batch_size: int = 32
    num_workers: int = 4
    lr: float = 1e-4
    weight_decay: float = 1e-5
    warmup_steps: int = 500
    max_steps: int = 100_000
    grad_clip: float = 1.0
    use_amp: bool = True
    amp_dtype: str = "bfloat16"
    distributed: bool = False
    backend: str = "nccl"
    checkpoint_dir: Annotated[str, tyro.conf.arg(aliases=["--output"])] = "checkpoints"
    save_every: int = 5000
    resume_from: str | None = None
    log_every: int = 100
    eval_every: int = 1000
    use_wandb: bool = False
    wandb_project: str = "simscaleai"
    wandb_run_name: str | None = None
    device: str = "auto"
    seed: int = 0
    min_lr_ratio: float = 0.0
    grad_accum_steps: int = 1
    ema_decay: float | None = None
    remat: bool = False
    num_devices: int | None = None
    fsdp: bool = False
    keep_gathered: bool = False
    keep_checkpoints: int = 3
    resume: bool = True
    init_from: str | None = None
    execute_steps: int | None = None
    ensemble: float | None = None
    best_metric: str | None = None
    max_steps_per_dispatch: int = 500
    lost_peer_seconds: int = 60
    random_shift: int = 0
    random_brightness: float = 0.0
    random_contrast: float = 0.0
    random_saturation: float = 0.0
    device_mb: float = 1024.0
    log: LogConfig = dataclasses.field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        check_seed(self.seed, "TrainConfig.seed")
        settle(self)
        for name in POSITIVE:
            if getattr(self, name) <= 0:
                raise ValueError(f"TrainConfig.{name} must be positive; got {getattr(self, name)}.")
        for name in NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ValueError(f"TrainConfig.{name} must not be negative; got {getattr(self, name)}.")
        if self.resume_from is not None and self.init_from is not None:
            raise ValueError("TrainConfig.resume_from and init_from exclude each other: go on, or start anew.")
        if self.keep_gathered and not (self.fsdp and self.remat):
            raise ValueError("TrainConfig.keep_gathered is of layers that gather twice; wanted fsdp and remat, too.")
        if self.ema_decay is not None and not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(f"TrainConfig.ema_decay must lie in [0, 1), or be None; got {self.ema_decay}.")
        if not 0.0 <= self.min_lr_ratio <= 1.0:
            raise ValueError(f"TrainConfig.min_lr_ratio must lie in [0, 1]; got {self.min_lr_ratio}.")
        if self.backend not in BACKENDS:
            raise unknown_name("backend", self.backend, BACKENDS)
        if self.amp_dtype not in AMP_DTYPES:
            raise unknown_name("amp_dtype", self.amp_dtype, AMP_DTYPES)
        if self.use_amp and self.amp_dtype == "float16":
            raise ValueError("TrainConfig.amp_dtype='float16' would need loss scaling; use 'bfloat16' instead.")

    @property
    def tracking(self) -> LogConfig:
        """`log`, and what the documented fields for wandb say besides."""
        log = self.log
        if self.use_wandb and "wandb" not in log.trackers:
            log = dataclasses.replace(log, trackers=(*log.trackers, "wandb"))
        project = self.wandb_project if log.project == LogConfig.project else log.project
        return dataclasses.replace(log, project=project, name=log.name or self.wandb_run_name)

    @property
    def augmentation(self) -> ImageAugmentation | None:
        """How the images of training batches are varied; None for not at all."""
        values = {theirs: getattr(self, ours) for ours, theirs in VARIATIONS.items()}
        return ImageAugmentation(**values) if any(values.values()) else None

    @property
    def resolved_device(self) -> str:
        """Platform that `device` means on this machine: "cpu", "gpu" or "tpu".

        Raises:
          ValueError: unknown, or absent; the message names what there is.
        """
        from simscaleai_jax.core.sharding import pick_devices

        return pick_devices(self.device)[0].platform

    def make_mesh(self) -> Any:
        """The mesh of a run on this machine, or on those of all processes.

        Raises:
          ValueError: unknown or absent device, or more devices wanted than there are.
        """
        from simscaleai_jax.core import sharding

        devices = sharding.pick_devices(self.device, self.num_devices)
        return sharding.make_grid(devices) if self.fsdp else sharding.make_mesh(devices)

    @property
    def amp_torch_dtype(self) -> Any:
        """The jnp dtype that `amp_dtype` names."""
        import jax.numpy as jnp

        return jnp.dtype(self.amp_dtype)

    @property
    def compute_dtype(self) -> str:
        """Name of the dtype that activations have on the resolved device."""
        return self.compute_dtype_on(self.resolved_device)

    def compute_dtype_on(self, platform: str) -> str:
        """Name of the dtype that activations have on "cpu", "gpu" or "tpu", whether this machine has one or not."""
        is_reduced = self.use_amp and platform != "cpu"
        return self.amp_dtype if is_reduced else "float32"
