"""`Trainer`: supervised training on one device, many devices or many hosts; stops and resumes exactly.

    trainer = Trainer(create_model("bc"), make_loader(dataset, 256), TrainConfig(max_steps=10_000))
    trainer.train()

The work happens in `step` (one jitted, donated update), `programs` (its compiled forms), `loop` (when what is due) and
`storage` (checkpoints).
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from simscaleai_jax.core import checkpoint, compile_cache, distributed, jax_settings, preemption, sharding
from simscaleai_jax.core.runs.trackers import check_trackers
from simscaleai_jax.models.normalization import Statistics
from simscaleai_jax.models.planning import execution_of
from simscaleai_jax.models.record import set_parameters
from simscaleai_jax.training import feeding, setup, storage
from simscaleai_jax.training.acting import LIMITS, ModelPolicy
from simscaleai_jax.training.config import TrainConfig
from simscaleai_jax.training.curves import plot_learning_curve
from simscaleai_jax.training.logs import JSONL, RunLog, read_rows
from simscaleai_jax.training.loop import Loop
from simscaleai_jax.training.programs import Programs
from simscaleai_jax.training.step import TrainState, init_state, valid_count

__all__ = ["TrainConfig", "Trainer"]


class Trainer:
    """Trains a model on batches.

    Attributes:
      state: everything that changes (`TrainState`). step: updates done. mesh: the devices.
      statistics: normalisation that the model sees data through, or None.
      policy: the model as it is evaluated and deployed (averaged weights where `ema_decay` is set).
      resident_data: a data set that lives on the device, as jit takes it; None where batches come from the host.
      series: the run's checkpoints, once `train` or `save_checkpoint` has opened them.
      videos: paths of what the latest evaluation has filmed.
      judged: [success rate, episodes] of the latest evaluations, oldest first, by which the best checkpoint is chosen.
      execution: how the policy executes the chunks that it plans.
    """

    def __init__(
        self,
        model: Any,
        train_loader: Any,
        config: TrainConfig,
        eval_loader: Any = None,
        eval_fn: Callable[[ModelPolicy], Any] | None = None,
        *,
        statistics: Statistics | None = None,
        env: dict[str, Any] | None = None,
        language: str | None = None,
        action_limits: Mapping[str, Any] = LIMITS,
        progress: bool = True,
    ) -> None:
        """Places the model on the devices.

        Args:
          model: a Flax NNX module whose forward(batch, key=...) returns "loss" (`models.create_model`).
          train_loader: a loader of training.data, or any iterable of batches.
          config: settings.
          eval_loader: batches for `evaluate`; a loader gives one epoch of them.
          eval_fn: closed-loop evaluation: called with the policy, returns a success rate or a dict of numbers, in which
            "videos" may hold paths of what it has filmed and "episodes" says how many it played.
          statistics: normalisation of states and actions; kept in checkpoints.
          env: {"name", "config"} of the environment that the data comes from, for `simscale eval`.
          language: instruction that policies read where none is given.
          action_limits: "low" and "high" to which policies clip their actions, numbers or (A,).
          progress: show progress on the terminal.
        Raises:
          ValueError: absent device, batch that does not divide, chunks that cannot be executed so, a data set that does
            not fit the model, a setting that no checkpoint can keep, or one of JAX's settings under which this cannot
            train.
        """
        jax_settings.check()
        if config.distributed:
            distributed.check_started()
        self.model, self.config = model, config
        self.mesh = config.make_mesh()
        self.train_loader = feeding.as_loader(train_loader)
        self.eval_loader, self.eval_fn = eval_loader, eval_fn
        self.statistics, self.env, self.language = statistics, env or {}, language
        self.model_record = setup.describe_any(model)
        self.best_name = storage.best_metric_name(config, eval_fn is not None, eval_loader is not None)
        self.best_value: float | None = None
        self.judged: list[list[float]] = []
        self.action_limits = dict(action_limits)
        own = execution_of(model)
        self.execution = own.given(config.execute_steps, config.ensemble)
        self.step = 0
        self._progress = progress
        self.series: Any = None
        self.videos: Sequence[Path] = ()
        self.episodes = 0
        self.resident_data: Any = None
        self._observations: dict[str, Any] = {}
        self._action_dim = int(getattr(model, "action_dim", 0))
        self._check_batch_size()
        checkpoint.check_savable(self._manifest(0))
        training, evaluation, params = setup.split_model(model, config, sharding.platform(self.mesh))
        self.programs = Programs(training, evaluation, statistics, config, self.mesh, setup.recomputes_layers(model))
        self.state: TrainState = self.programs.place(init_state(params, config))
        self.policy = ModelPolicy(evaluation, params, statistics, self._tokens(), self.execution, self.action_limits)
        if feeding.lives_on_device(self.train_loader):
            self.resident_data = self._resident_data()
            self.accept(jax.eval_shape(self.train_loader.batch_at, self.resident_data, 0))

    def train(self) -> dict[str, float]:
        """Trains to `max_steps`, first continuing the run found in `checkpoint_dir` (else from `resume_from`).

        Returns:
          The latest numbers: loss and the model's other outputs, learning_rate, grad_norm, steps_per_second, and the
          latest evaluation's.
        Raises:
          preemption.Preempted: SIGTERM or Ctrl-C came; the run is saved.
          FolderInUseError: another run is going on in `checkpoint_dir`.
          ValueError: the loss is not finite, a checkpoint does not fit, or the folder holds a run of other settings.
          PeerLostError: another process died.
        """
        compile_cache.enable()
        check_trackers(self.config.tracking)
        self.open_series()
        run = storage.make_run(self.config, self.series)
        with distributed.peer_errors(), run:
            newest = run.open(self.config.resume)
            with RunLog(self.config, distributed.is_main(), self._progress) as log:
                self._warn_of_short_run(log)
                self._resume(newest, log)
                run.record(self.step)
                log.start(self.step, run.run_id, run.settings)
                with preemption.PreemptionWatch() as watch:
                    numbers = Loop(self, log, watch).run()
                self._finish(log)
        return numbers

    def evaluate(self) -> dict[str, float]:
        """Means over one epoch of `eval_loader` and what `eval_fn` returns, as "eval/" + name; {} without either."""
        results: dict[str, float] = {}
        if self.eval_loader is not None:
            results |= self._evaluate_batches()
        if self.eval_fn is not None:
            self._refresh_policy()
            answer = self.eval_fn(self.policy)
            numbers = dict(answer) if isinstance(answer, dict) else {"success_rate": answer}
            self.videos = numbers.pop("videos", ())
            self.episodes = int(numbers.pop("episodes", 0))
            results |= numbers
        return {f"eval/{name}": float(value) for name, value in results.items()}

    def save_checkpoint(self, step: int, is_final: bool = False, *, metric: float | None = None) -> Path:
        """Saves the state under the name of `step` in the background; a final one is complete on return.

        Args:
          step: names the checkpoint.
          is_final: wait until it is on disk.
          metric: value of `best_name` for these weights.
        """
        self.open_series()
        path = self.series.save(step, storage.make_tree(self.state, self.statistics), self._manifest(step), metric)
        if is_final:
            self.series.wait()
            distributed.barrier(f"save step {step}", self.config.lost_peer_seconds)
        return path

    def load_checkpoint(self, path: str) -> None:
        """Continues exactly where a checkpoint was saved: weights, optimizer, keys, data order; weights alone from one
        that holds nothing else (`simscale import`).

        Raises:
          FileNotFoundError, ValueError: no whole checkpoint, one of another model, or of another data set.
        """
        manifest = storage.read_training_manifest(path, self.model_record)
        tree, is_whole = storage.load_tree(path, storage.make_tree(self.state, self.statistics))
        statistics = tree.pop("statistics", None)
        self.state = self.state.replace(**tree)
        if statistics is not None:
            self._check_statistics(statistics, path)
        if is_whole:
            self.step = int(manifest.step)
            self.best_value = manifest.extra.get("best")
            self.judged = manifest.extra.get("judged", [])
            self.train_loader.set_state(manifest.extra["loader"])
        self._refresh_policy()

    def load_weights(self, path: str) -> None:
        """Takes what a checkpoint of this model deploys, and nothing else; raises like `load_checkpoint`."""
        storage.read_training_manifest(path, self.model_record)
        weights = storage.load_weights(path, self.state.params)
        averaged = None if self.state.ema_params is None else jax.tree.map(lambda leaf: leaf + 0, weights)
        self.state = self.state.replace(params=weights, ema_params=averaged)
        self._refresh_policy()

    def open_series(self) -> None:
        """Opens the run's folder, once; a ValueError says that it cannot be written."""
        if self.series is None:
            self.series = storage.open_series(self.config, self.best_name)

    def accept(self, batch: Any) -> None:
        """Checks the first batch (or its shapes) against the model, once."""
        where = repr(self.config.dataset_path) if self.config.dataset_path else ""
        self.programs.prepare(self.state, batch, self.model_record[0], where)
        self._observations = feeding.observation_record(batch)
        self.policy.read(self._observations)
        self._action_dim = int(batch["actions"].shape[-1])

    def _manifest(self, step: int) -> checkpoint.Manifest:
        extra = {"loader": self.train_loader.get_state(), "best": self.best_value, "language": self.language}
        extra |= {"judged": self.judged, "execution": dataclasses.asdict(self.execution)}
        action_spec = {"shape": [self._action_dim], "dtype": "float32", **self.action_limits}
        return storage.make_manifest(
            self.config, self.model_record, self._observations, action_spec, self.statistics, self.env, step, extra
        )

    def _check_batch_size(self) -> None:
        size = self.train_loader.batch_size
        if size:
            parts = self.mesh.size * self.config.grad_accum_steps
            sharding.check_divisible(size, parts, "batch size", "devices x grad_accum_steps")

    def _resident_data(self) -> Any:
        if self.train_loader.mesh == self.mesh:
            return self.train_loader.data
        return sharding.put_replicated(jax.tree.map(np.asarray, self.train_loader.data), self.mesh)

    def _tokens(self) -> Any:
        if self.language is None or not getattr(self.model, "use_language", False):
            return None
        return np.asarray(self.model.language_encoder.tokenize([self.language]))

    def _warn_of_short_run(self, log: RunLog) -> None:
        warmup, total = self.config.warmup_steps, self.config.max_steps
        if warmup > total:
            log.say(
                f"warmup_steps={warmup:,} is more than max_steps={total:,}: the learning rate ends at "
                f"{100 * total / warmup:.2g}% of lr={self.config.lr:g}."
            )

    def _resume(self, newest: Path | None, log: RunLog) -> None:
        """Goes on from this run's newest checkpoint, else from where the config says that it starts."""
        if self.step:
            return  # loaded, or trained, by hand
        path = newest or storage.resume_path(self.config)
        if path is not None:
            self.load_checkpoint(str(path))
            log.say(f"Continuing {path} at step {self.step:,} of {self.config.max_steps:,}.")
        elif self.config.init_from is not None:
            self.load_weights(self.config.init_from)
            log.say(f"Starting with the weights of {self.config.init_from}.")

    def _check_statistics(self, stored: dict[str, Any], path: str) -> None:
        for name, values in stored.items():
            if not np.array_equal(np.asarray(values), np.asarray(getattr(self.statistics, name))):
                raise ValueError(
                    f"Checkpoint {path} was trained with other normalisation statistics ({name} differs): its data set "
                    "is not this one. Resume with the same data set, or choose another checkpoint_dir."
                )

    def _refresh_policy(self) -> None:
        """Gives policy and model the weights as they are now."""
        weights = self.state.params if self.state.ema_params is None else self.state.ema_params
        self.policy.params = jax.tree.map(np.asarray, self.programs.gather(weights))

    def _evaluate_batches(self) -> dict[str, float]:
        loader = self.eval_loader
        if isinstance(loader, feeding.Loader):
            loader.set_state(loader.get_state() | {"step": 0})
            batches: Iterable[Any] = (next(loader) for _ in range(loader.steps_per_epoch))
        else:
            batches = loader
        weights = self.state.params if self.state.ema_params is None else self.state.ema_params
        sums: dict[str, float] = {}
        count = 0.0
        for batch in batches:
            arrays = feeding.prepare(batch, self.model, self.mesh)
            size = float(valid_count(arrays, arrays["actions"].shape[0]))
            for name, value in self.programs.evaluate(weights, arrays).items():
                sums[name] = sums.get(name, 0.0) + size * float(value)
            count += size
        if not count:
            raise ValueError("eval_loader gave no batch.")
        return {name: value / count for name, value in sums.items()}

    def _finish(self, log: RunLog) -> None:
        self._refresh_policy()
        set_parameters(self.model, self.policy.params)
        self.series.wait()
        if distributed.is_main():
            folder = self.series.folder
            if rows := read_rows(folder / JSONL):
                title = f"{self.model_record[0]}: {self.step:,} updates"
                plot_learning_curve(rows, folder / "learning_curve.png", title)
        distributed.barrier("finish", self.config.lost_peer_seconds)
