"""The compiled forms of a trainer's update and evaluation, and where their arrays live on the mesh."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from simscaleai_jax.core import distributed, sharding
from simscaleai_jax.core.streams import Stream, seed_key
from simscaleai_jax.models.normalization import Statistics
from simscaleai_jax.training.config import TrainConfig
from simscaleai_jax.training.setup import check_fit
from simscaleai_jax.training.step import Metrics, TrainState, make_loss_fn, make_many, make_single, make_update


class Programs:
    """Update and evaluation, jitted once; the state is donated.

    Attributes:
      update: the pure update(state, batch) -> (state, metrics).
      evaluation: the jitted (weights, batch) -> scalar outputs without dropout.
      batch_size: samples per update, known after `prepare`.
    """

    def __init__(
        self,
        training_graph: Any,
        evaluation_graph: Any,
        statistics: Statistics | None,
        config: TrainConfig,
        mesh: Mesh,
        has_own_remat: bool,
    ) -> None:
        self.mesh, self.config = mesh, config
        self.batch_size = 0
        self._names: tuple[str, ...] = ()
        self._has_evaluated = False
        self._many: Callable | None = None
        self._single: Callable | None = None
        recompute = config.remat and not has_own_remat
        split_over = mesh if config.fsdp else None
        loss_fn = make_loss_fn(training_graph, statistics, recompute, split_over, config.keep_gathered)
        self.update = make_update(loss_fn, config)
        loss_fn = make_loss_fn(evaluation_graph, statistics, mesh=split_over)
        key = seed_key(config.seed, Stream.VALIDATION)
        self.evaluation = jax.jit(
            lambda params, batch: loss_fn(params, batch, key)[1], out_shardings=sharding.replicated(mesh)
        )
        self._gather = jax.jit(lambda tree: tree, out_shardings=sharding.replicated(mesh))

    @property
    def is_prepared(self) -> bool:
        """Whether a batch has been seen."""
        return bool(self._names)

    def shardings(self, state: Any) -> Any:
        """Where every leaf of a state, or of its shapes, lies: whole copies, or split by the rules of core.sharding."""
        return sharding.parameter_shardings(state, self.mesh, self.config.fsdp)

    def place(self, state: TrainState) -> TrainState:
        """Puts a fresh state onto the mesh."""
        return jax.tree.map(sharding.put, state, self.shardings(state))

    def prepare(self, state: TrainState, batch: Any, model_name: str, where: str = "") -> tuple[str, ...]:
        """Checks that a batch, or its shapes, fits the model: names of the numbers that an update gives; raises like
        `setup.check_fit`.
        """
        self._names = tuple(check_fit(self.update, state, batch, model_name, where))
        self.batch_size = int(jax.tree.leaves(batch)[0].shape[0])
        return self._names

    @property
    def is_compiled(self) -> bool:
        """Whether updates have been compiled."""
        return self._many is not None or self._single is not None

    def zero_metrics(self) -> Metrics:
        """Sums to start a row of the log with."""
        place = sharding.replicated(self.mesh)
        return {name: sharding.put(np.zeros((), np.float32), place) for name in self._names}

    def run_one(self, state: TrainState, totals: Metrics, batch: Any) -> tuple[TrainState, Metrics, jax.Array]:
        """One update on a batch that lies on the mesh: (state, sums, a small array that is ready when it is done)."""
        if self._single is None:
            self._single = self.single(state)
            distributed.compile_together(self._single.lower(state, totals, batch))  # the call below finds it
        return self._single(state, totals, batch)

    def single(self, state: Any) -> Callable:
        """The jitted function behind `run_one`, for a state like this one (or its shapes)."""
        update = make_single(self.update)

        def step(state: TrainState, totals: Metrics, batch: Any) -> tuple[TrainState, Metrics, jax.Array]:
            state, totals = update(state, totals, batch)
            return state, totals, state.step + 0

        place = sharding.replicated(self.mesh)
        return jax.jit(step, donate_argnums=(0, 1), out_shardings=(self.shardings(state), place, place))

    def compile_many(self, state: TrainState, totals: Metrics, batch_at: Callable, data: Any) -> None:
        """Compiles `run_many` for batches that `batch_at(data, step)` gathers inside jit."""
        split = sharding.batch_sharding(self.mesh)

        def split_batch_at(data: Any, step: jax.Array) -> Any:
            return jax.lax.with_sharding_constraint(batch_at(data, step), split)

        run = jax.jit(
            make_many(self.update, split_batch_at),
            donate_argnums=(0, 1),
            out_shardings=(self.shardings(state), sharding.replicated(self.mesh)),
        )
        self._many = distributed.compile_together(run.lower(state, totals, np.int32(0), np.int32(1), data))

    def run_many(
        self, state: TrainState, totals: Metrics, first: int, count: int, data: Any
    ) -> tuple[TrainState, Metrics]:
        """`count` updates on batches `first`, `first` + 1, ... of data that lives on the device, in one call."""
        if self._many is None:
            raise RuntimeError("compile_many comes before run_many.")
        return self._many(state, totals, np.int32(first), np.int32(count), data)

    def evaluate(self, params: Any, batch: Any) -> Metrics:
        """Scalar outputs of the model without dropout."""
        if not self._has_evaluated:
            distributed.compile_together(self.evaluation.lower(params, batch))
            self._has_evaluated = True
        return self.evaluation(params, batch)

    def gather(self, tree: Any) -> Any:
        """Whole copies of parameters that may be split."""
        return self._gather(tree) if self.config.fsdp else tree
