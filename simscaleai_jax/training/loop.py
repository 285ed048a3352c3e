"""The training loop: launches updates and does what is due between them (rows of the log, evaluations, checkpoints).

The device works ahead of the host: numbers of a row are fetched one row later, and batches from the host are queued.
"""

import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from simscaleai_jax.core import distributed, preemption, sharding
from simscaleai_jax.training import feeding, storage
from simscaleai_jax.training.logs import RunLog
from simscaleai_jax.training.step import Metrics
from simscaleai_jax.training.storage import SUCCESS

if TYPE_CHECKING:
    from simscaleai_jax.training.trainer import Trainer

BATCHES_AHEAD = 2  # batches from the host whose updates may be queued on the device


class Loop:
    """The training loop of one `train` call: updates, rows, evaluations and checkpoints at their steps."""

    def __init__(self, trainer: "Trainer", log: RunLog, watch: preemption.PreemptionWatch) -> None:
        self.trainer, self.config, self.log, self.watch = trainer, trainer.config, log, watch
        self.numbers: dict[str, float] = {}
        self.evaluations: list[list[float]] = []
        self.totals: Metrics | None = None
        self.window_start = self.saved_at = trainer.step
        self.pending: tuple[int, int, Metrics] | None = None
        self.queued: deque[Any] = deque()
        self.is_synchronous = sharding.platform(trainer.mesh) == "cpu"
        self.row_clock = time.perf_counter()
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
                trainer.programs.compile_many(trainer.state, self._sums(), loader.batch_at, trainer.resident_data)
                self.restart_clock()
            trainer.state, self.totals = trainer.programs.run_many(
                trainer.state, self._sums(), loader.step, count, trainer.resident_data
            )
            loader.step += count
        else:
            try:
                batch = feeding.prepare(next(loader), trainer.model, trainer.mesh)
            except StopIteration:
                return self._data_ended()
            if not trainer.programs.is_prepared:
                trainer.accept(batch)
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
        if trainer.step % config.log_every == 0 or is_last or self._is_time_for_a_row():
            self._close_window()
        metric = None
        can_evaluate = trainer.eval_loader is not None or trainer.eval_fn is not None
        if can_evaluate and (trainer.step % config.eval_every == 0 or is_last):
            metric = self._evaluate()
        if metric is not None or trainer.step % config.save_every == 0 or is_last:
            self._save(metric)
        if self.watch.is_requested() and not is_last:
            self._stop()

    def _is_time_for_a_row(self) -> bool:
        seconds = self.config.log.seconds
        if seconds is None:
            return False
        is_time = time.perf_counter() - self.row_clock >= seconds
        return bool(distributed.agree(is_time))  # all close the row, or none does

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
        self.row_clock = time.perf_counter()
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
        self._check_finite(numbers, step - count + 1, step)
        numbers |= {"steps_per_second": speed, "samples_per_second": speed * self.trainer.programs.batch_size}
        self.numbers |= numbers
        self.log.record(step, numbers)

    def _check_finite(self, numbers: dict[str, float], first: int, last: int) -> None:
        for name, what in (("loss", "loss"), ("grad_norm", "gradient's norm")):
            if not math.isfinite(numbers[name]):
                raise ValueError(
                    f"The {what} became {numbers[name]} within updates {first} to {last}. Lower lr "
                    f"({self.config.lr:g}) or look for values that are not finite in the data; checkpoints in "
                    f"{self.config.checkpoint_dir} are from before."
                )

    def _evaluate(self) -> float | None:
        """Evaluates; returns the metric where these weights are the best so far."""
        trainer = self.trainer
        self._fetch()
        results = trainer.evaluate()
        self.numbers |= results
        self.log.record(trainer.step, results)
        self._show_evaluation(results)
        self.restart_clock()
        if trainer.config.best_metric is not None and trainer.config.best_metric not in results:
            raise ValueError(f"best_metric {trainer.config.best_metric!r} is not among {', '.join(sorted(results))}.")
        value = results.get(trainer.best_name or "")
        if value is not None and trainer.best_name == SUCCESS and trainer.episodes:
            trainer.judged = storage.pooled([*trainer.judged, [value, trainer.episodes]])
            value = storage.judgement(trainer.judged, trainer.step == trainer.config.max_steps)
        if value is None or not math.isfinite(value):
            return None
        is_best = storage.is_better(trainer.best_name or "", value, trainer.best_value)
        if not distributed.agree(is_best):  # all save, or none does
            return None
        trainer.best_value = value
        return value

    def _show_evaluation(self, results: dict[str, float]) -> None:
        """Gives the trackers what was filmed, and every evaluation so far as a table."""
        step = self.trainer.step
        for path in self.trainer.videos:
            self.log.video(step, f"eval/{path.stem}", path)
        self.evaluations.append([step, *results.values()])
        self.log.table(step, "eval/all", ["step", *results], self.evaluations)

    def _save(self, metric: float | None = None) -> None:
        trainer = self.trainer
        if self.totals is not None:
            numbers = mean_numbers(self.totals, trainer.step - self.window_start)
            self._check_finite(numbers, self.window_start + 1, trainer.step)
        trainer.save_checkpoint(trainer.step, metric=metric)
        self.saved_at = trainer.step

    def _stop(self) -> None:
        """Saves after SIGTERM and leaves."""
        trainer = self.trainer
        self._close_window()
        self._fetch()
        if self.saved_at != trainer.step:
            self._save()
        trainer.series.wait()
        distributed.barrier("stop", self.config.lost_peer_seconds)
        raise self.watch.stop(f"step {trainer.step:,} in {self.config.checkpoint_dir}")

    def _data_ended(self) -> bool:
        self.log.say(f"The data has ended after {self.trainer.step:,} of {self.config.max_steps:,} updates.")
        return False


def mean_numbers(totals: Metrics, count: int) -> dict[str, float]:
    """Sums of `count` updates as means; the learning rate is the latest as it is."""
    return {
        name: float(np.asarray(value)) / (1 if name == "learning_rate" else count) for name, value in totals.items()
    }
