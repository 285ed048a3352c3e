"""`Trainer`: supervised training on one device, many devices or many hosts; stops and resumes exactly.

    trainer = Trainer(create_model("bc"), make_loader(dataset, 256), TrainConfig(max_steps=10_000))
    trainer.train()

The work happens in `step` (one jitted, donated update), `programs` (its compiled forms) and `storage` (checkpoints).
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from simscaleai_jax.core import compile_cache, distributed, preemption, sharding
from simscaleai_jax.models.describe import set_parameters
from simscaleai_jax.models.normalization import Statistics
from simscaleai_jax.training import feeding, setup, storage
from simscaleai_jax.training.acting import ModelPolicy
from simscaleai_jax.training.config import TrainConfig
from simscaleai_jax.training.curves import plot_learning_curve
from simscaleai_jax.training.logs import JSONL, RunLog, read_rows
from simscaleai_jax.training.programs import Programs
from simscaleai_jax.training.step import Metrics, TrainState, init_state

__all__ = ["TrainConfig", "Trainer"]

BATCHES_AHEAD = 2  # batches from the host whose updates may be queued on the device


class Trainer:
    """Trains a model on batches.

    Attributes:
      state: everything that changes (`TrainState`). step: updates done. mesh: the devices.
      statistics: normalisation that the model sees data through, or None.
      policy: the model as it is evaluated and deployed (averaged weights where `ema_decay` is set).
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
        progress: bool = True,
    ) -> None:
        """Places the model on the devices.

        Args:
          model: a Flax NNX module whose forward(batch, key=...) returns "loss" (`models.create_model`).
          train_loader: a loader of training.data, or any iterable of batches.
          config: settings.
          eval_loader: batches for `evaluate`; a loader gives one epoch of them.
          eval_fn: closed-loop evaluation: called with the policy, returns a success rate or a dict of numbers.
          statistics: normalisation of states and actions; kept in checkpoints.
          env: {"name", "config"} of the environment that the data comes from, for `simscale eval`.
          language: instruction that policies read where none is given.
          progress: show progress on the terminal.
        Raises:
          ValueError: absent device, batch that does not divide, or a data set that does not fit the model.
        """
        if config.distributed:
            distributed.check_started()
        self.model, self.config = model, config
        self.mesh = sharding.make_mesh(sharding.pick_devices(config.device, config.num_devices))
        self.train_loader = feeding.as_loader(train_loader)
        self.eval_loader, self.eval_fn = eval_loader, eval_fn
        self.statistics, self.env, self.language = statistics, env or {}, language
        self.model_record = setup.describe_any(model)
        self.best_name = storage.best_metric_name(config, eval_fn is not None, eval_loader is not None)
        self.best_value: float | None = None
        self.step = 0
        self._progress = progress
        self._series: Any = None
        self._observations: dict[str, Any] = {}
        self._action_dim = int(getattr(model, "action_dim", 0))
        self._check_batch_size()
        training, evaluation, params = setup.split_model(model, config)
        self.programs = Programs(training, evaluation, statistics, config, self.mesh, setup.recomputes_layers(model))
        self.state: TrainState = self.programs.place(init_state(params, config))
        self.policy = ModelPolicy(evaluation, params, statistics, self._tokens())
        if feeding.lives_on_device(self.train_loader):
            self._data = self._resident_data()
            self._accept(jax.eval_shape(self.train_loader.batch_at, self._data, 0))

    def train(self) -> dict[str, float]:
        """Trains to `max_steps`, first continuing the run found in `checkpoint_dir` (or `resume_from`).

        Returns:
          The latest numbers: loss and the model's other outputs, learning_rate, grad_norm, steps_per_second, and the
          latest evaluation's.
        Raises:
          preemption.Preempted: SIGTERM came; the run is saved.
          ValueError: the loss is not finite, or a checkpoint does not fit.
          PeerLostError: another process died.
        """
        compile_cache.enable()
        with distributed.peer_errors(), RunLog(self.config, distributed.is_main(), self._progress) as log:
            self._open_series()
            self._resume(log)
            log.start(self.step)
            with preemption.PreemptionWatch() as watch:
                numbers = _Loop(self, log, watch).run()
            self._finish(log)
        return numbers

    def evaluate(self) -> dict[str, float]:
        """Means over one epoch of `eval_loader` ("eval_" + name) and what `eval_fn` returns; {} without either."""
        results: dict[str, float] = {}
        if self.eval_loader is not None:
            results |= self._evaluate_batches()
        if self.eval_fn is not None:
            self._refresh_policy()
            answer = self.eval_fn(self.policy)
            results |= dict(answer) if isinstance(answer, dict) else {"success_rate": answer}
        return {name: float(value) for name, value in results.items()}

    def save_checkpoint(self, step: int, is_final: bool = False, *, metric: float | None = None) -> Path:
        """Saves the state under the name of `step` in the background; a final one is complete on return.

        Args:
          step: names the checkpoint.
          is_final: wait until it is on disk.
          metric: value of `best_name` for these weights.
        """
        self._open_series()
        extra = {"loader": self.train_loader.get_state(), "best": self.best_value, "language": self.language}
        manifest = storage.make_manifest(
            self.config, self.model_record, self._observations, self._action_dim, self.statistics, self.env, step, extra
        )
        path = self._series.save(step, storage.make_tree(self.state, self.statistics), manifest, metric)
        if is_final:
            self._series.wait()
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
            self.train_loader.set_state(manifest.extra["loader"])
        self._refresh_policy()

    def _check_batch_size(self) -> None:
        size = self.train_loader.batch_size
        if size:
            parts = self.mesh.size * self.config.grad_accum_steps
            sharding.check_divisible(size, parts, "batch size", "devices x grad_accum_steps")

    def _resident_data(self) -> Any:
        if self.train_loader.mesh == self.mesh:
            return self.train_loader.data
        return sharding.put_replicated(jax.tree.map(np.asarray, self.train_loader.data), self.mesh)

    def _accept(self, batch: Any) -> None:
        """Checks the first batch (or its shapes) against the model, once."""
        where = repr(self.config.dataset_path) if self.config.dataset_path else ""
        self.programs.prepare(self.state, batch, self.model_record[0], where)
        self._observations = feeding.observation_record(batch)
        self._action_dim = int(batch["actions"].shape[-1])

    def _tokens(self) -> Any:
        if self.language is None or not getattr(self.model, "use_language", False):
            return None
        return np.asarray(self.model.language_encoder.tokenize([self.language]))

    def _open_series(self) -> None:
        if self._series is None:
            self._series = storage.open_series(self.config, self.best_name)

    def _resume(self, log: RunLog) -> None:
        if self.step:
            return  # loaded, or trained, by hand
        path = storage.find_resume(self.config, self._series)
        if path is not None:
            self.load_checkpoint(str(path))
            log.say(f"Continuing {path} at step {self.step:,} of {self.config.max_steps:,}.")

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
        count = 0
        for batch in batches:
            arrays = feeding.prepare(batch, self.model, self.mesh)
            size = arrays["actions"].shape[0]
            for name, value in self.programs.evaluate(weights, arrays).items():
                sums[name] = sums.get(name, 0.0) + size * float(value)
            count += size
        if not count:
            raise ValueError("eval_loader gave no batch.")
        return {f"eval_{name}": value / count for name, value in sums.items()}

    def _finish(self, log: RunLog) -> None:
        self._refresh_policy()
        set_parameters(self.model, self.policy.params)
        self._series.wait()
        if distributed.is_main():
            folder = Path(self.config.checkpoint_dir)
            if rows := read_rows(folder / JSONL):
                title = f"{self.model_record[0]}: {self.step:,} updates"
                plot_learning_curve(rows, folder / "learning_curve.png", title)
        distributed.barrier("finish", self.config.lost_peer_seconds)


class _Loop:
    """The training loop of one `train` call: updates, rows, evaluations and checkpoints at their steps."""

    def __init__(self, trainer: Trainer, log: RunLog, watch: preemption.PreemptionWatch) -> None:
        self.trainer, self.config, self.log, self.watch = trainer, trainer.config, log, watch
        self.numbers: dict[str, float] = {}
        self.totals: Metrics | None = None
        self.window_start = self.saved_at = trainer.step
        self.pending: tuple[int, int, Metrics] | None = None
        self.queued: deque[Any] = deque()
        self.is_synchronous = trainer.mesh.devices.flat[0].platform == "cpu"
        self.restart_clock()

    def restart_clock(self) -> None:
        """Starts timing anew, after something that is not training."""
        self.clock, self.clock_step = time.perf_counter(), self.trainer.step

    def run(self) -> dict[str, float]:
        """Trains to the end, or to the end of the data."""
        trainer, config = self.trainer, self.config
        if trainer.step >= config.max_steps:
            self.log.say(f"Nothing to do: {config.checkpoint_dir} has its {config.max_steps:,} steps.")
            return trainer.evaluate()
        while trainer.step < config.max_steps and self._advance():
            self._after_updates()
        self._close_window()
        self._fetch()
        if self.saved_at != trainer.step:
            self._save()
        return self.numbers

    def _advance(self) -> bool:
        """Launches the updates up to the next step at which something is due; False when the data has ended."""
        trainer = self.trainer
        loader = trainer.train_loader
        if feeding.lives_on_device(loader):
            count = min(self._until_due(), self.config.max_steps_per_dispatch)
            if loader.num_steps is not None:
                count = min(count, loader.num_steps - loader.step)
            if count <= 0:
                return self._data_ended()
            if not trainer.programs.is_compiled:
                trainer.programs.compile_many(trainer.state, self._sums(), loader.batch_at, trainer._data)
                self.restart_clock()
            trainer.state, self.totals = trainer.programs.run_many(
                trainer.state, self._sums(), loader.step, count, trainer._data
            )
            loader.step += count
        else:
            try:
                batch = feeding.prepare(next(loader), trainer.model, trainer.mesh)
            except StopIteration:
                return self._data_ended()
            if not trainer.programs.is_prepared:
                trainer._accept(batch)
            is_first = not trainer.programs.is_compiled
            trainer.state, self.totals, done = trainer.programs.run_one(trainer.state, self._sums(), batch)
            self._bound_queue(done)
            count = 1
            if is_first:  # it was compiled
                self.restart_clock()
        trainer.step += count
        return True

    def _after_updates(self) -> None:
        trainer, config = self.trainer, self.config
        is_last = trainer.step == config.max_steps
        if trainer.step % config.log_every == 0 or is_last:
            self._close_window()
        metric = None
        can_evaluate = trainer.eval_loader is not None or trainer.eval_fn is not None
        if can_evaluate and (trainer.step % config.eval_every == 0 or is_last):
            metric = self._evaluate()
        if metric is not None or trainer.step % config.save_every == 0 or is_last:
            self._save(metric)
        if self.watch.is_requested() and not is_last:
            self._stop()

    def _until_due(self) -> int:
        """Updates until a row, an evaluation, a checkpoint or the end is due."""
        step, config = self.trainer.step, self.config
        periods = [config.log_every, config.save_every]
        if self.trainer.eval_loader is not None or self.trainer.eval_fn is not None:
            periods.append(config.eval_every)
        return min([period - step % period for period in periods] + [config.max_steps - step])

    def _sums(self) -> Metrics:
        if self.totals is None:
            self.totals = self.trainer.programs.zero_metrics()
        return self.totals

    def _bound_queue(self, done: Any) -> None:
        """Keeps the host at most a few batches ahead of the device: queued batches take memory."""
        self.queued.append(done)
        if len(self.queued) > BATCHES_AHEAD:
            self.queued.popleft().block_until_ready()

    def _close_window(self) -> None:
        """Ends a row; its numbers are fetched one row later, while the device works on the next."""
        before, step = self.pending, self.trainer.step
        if step > self.window_start and self.totals is not None:
            self.pending = (step, step - self.window_start, self.totals)
            self.totals, self.window_start = None, step
            self._report(before)
            if self.is_synchronous:  # the numbers are there already
                self._fetch()

    def _fetch(self) -> None:
        """Waits for the pending row."""
        pending, self.pending = self.pending, None
        self._report(pending)

    def _report(self, window: tuple[int, int, Metrics] | None) -> None:
        if window is None:
            return
        step, count, totals = window
        numbers = mean_numbers(totals, count)
        now = time.perf_counter()
        speed = max(step - self.clock_step, 1) / max(now - self.clock, 1e-9)
        self.clock, self.clock_step = now, step
        self._check_finite(numbers["loss"], step - count + 1, step)
        numbers |= {"steps_per_second": speed, "samples_per_second": speed * self.trainer.programs.batch_size}
        self.numbers |= numbers
        self.log.record(step, numbers)

    def _check_finite(self, loss: float, first: int, last: int) -> None:
        if not math.isfinite(loss):
            raise ValueError(
                f"The loss became {loss} within updates {first} to {last}. Lower lr ({self.config.lr:g}) or look for "
                f"values that are not finite in the data; checkpoints in {self.config.checkpoint_dir} are from before."
            )

    def _evaluate(self) -> float | None:
        """Evaluates; returns the metric where these weights are the best so far."""
        trainer = self.trainer
        self._fetch()
        results = trainer.evaluate()
        self.numbers |= results
        self.log.record(trainer.step, results)
        self.restart_clock()
        if trainer.config.best_metric is not None and trainer.config.best_metric not in results:
            raise ValueError(f"best_metric {trainer.config.best_metric!r} is not among {', '.join(sorted(results))}.")
        value = results.get(trainer.best_name or "")
        if value is None or not storage.is_better(trainer.best_name or "", value, trainer.best_value):
            return None
        trainer.best_value = value
        return value

    def _save(self, metric: float | None = None) -> None:
        trainer = self.trainer
        if self.totals is not None:
            loss = mean_numbers(self.totals, trainer.step - self.window_start)["loss"]
            self._check_finite(loss, self.window_start + 1, trainer.step)
        trainer.save_checkpoint(trainer.step, metric=metric)
        self.saved_at = trainer.step

    def _stop(self) -> None:
        """Saves after SIGTERM and leaves."""
        trainer = self.trainer
        self._close_window()
        self._fetch()
        if self.saved_at != trainer.step:
            self._save()
        trainer._series.wait()
        distributed.barrier("stop", self.config.lost_peer_seconds)
        raise preemption.stop(f"step {trainer.step:,} in {self.config.checkpoint_dir}")

    def _data_ended(self) -> bool:
        self.log.say(f"The data has ended after {self.trainer.step:,} of {self.config.max_steps:,} updates.")
        return False


def mean_numbers(totals: Metrics, count: int) -> dict[str, float]:
    """Sums of `count` updates as means; the learning rate is the latest as it is."""
    return {
        name: float(np.asarray(value)) / (1 if name == "learning_rate" else count) for name, value in totals.items()
    }
