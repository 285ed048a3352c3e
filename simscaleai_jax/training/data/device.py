"""State-only data sets on the device: the whole data set is one pytree, and a batch is a gather inside jit.

A trainer may take batches one by one, or put `loader.batch_at(loader.data, step)` into its own jitted scan, which then
runs many updates without ever waiting for the host.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from simscaleai_jax.core.sharding import batch_sharding, check_divisible, make_mesh, put_replicated
from simscaleai_jax.training.data.sampling import batch_indices, count_batches, flag_filling


class DeviceLoader:
    """Batches sampled on the device.

    Attributes:
      data: {"observations": {key: (N, ...)}, "actions": (N, A), "starts" and "ends": (N,) first and last row of each
        row's episode}; every device holds all of it.
      steps_per_epoch: batches in the data set, whole ones alone unless the rest is kept.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        mesh: Any = None,
        seed: int = 0,
        shuffle: bool = True,
        num_epochs: int | None = None,
        drop_last: bool = True,
    ) -> None:
        self.mesh = make_mesh(jax.devices()[:1]) if mesh is None else mesh
        check_divisible(batch_size, self.mesh.size, "batch_size")
        self.batch_size, self.seed, self.shuffle, self.drop_last = batch_size, seed, shuffle, drop_last
        self.num_samples = len(dataset)
        self.seq_len, self.obs_horizon = dataset.seq_len, dataset.obs_horizon
        self.steps_per_epoch = count_batches(self.num_samples, batch_size, drop_last)
        self.num_steps = None if num_epochs is None else num_epochs * self.steps_per_epoch
        self.step = 0
        host = {
            "observations": {key: dataset.column(f"obs/{key}") for key in dataset.obs_keys},
            "actions": dataset.column("actions"),
            "starts": dataset.window_starts(),
            "ends": dataset.window_ends(),
        }
        self.data = put_replicated(host, self.mesh)
        self._sample = jax.jit(self.batch_at, out_shardings=batch_sharding(self.mesh))

    def batch_at(self, data: dict[str, Any], step: Int[Array, ""] | int) -> dict[str, Any]:
        """Batch number `step`: pure, for use inside jit; `data` is `self.data`."""
        step = jnp.asarray(step, jnp.int32)
        order = (self.batch_size, self.num_samples, self.seed, self.shuffle, jnp, self.drop_last)
        rows = batch_indices(step, *order).astype(jnp.int32)
        steps = rows[:, None] + jnp.arange(self.seq_len, dtype=jnp.int32)
        last = data["ends"][rows][:, None]
        window = jnp.minimum(steps, last)
        if self.seq_len == 1:
            window = window[:, 0]
        seen = window if self.obs_horizon is None else rows
        if self.obs_horizon is not None and self.obs_horizon > 1:
            past = rows[:, None] + jnp.arange(1 - self.obs_horizon, 1, dtype=jnp.int32)
            seen = jnp.maximum(past, data["starts"][rows][:, None])
        batch = {
            "observations": {key: column[seen] for key, column in data["observations"].items()},
            "actions": data["actions"][window],
        }
        batch |= {"is_pad": steps > last} if self.seq_len > 1 else {}
        if self.drop_last:
            return batch
        return flag_filling(batch, step, self.batch_size, self.num_samples, jnp)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        if self.num_steps is not None and self.step >= self.num_steps:
            raise StopIteration
        batch = self._sample(self.data, self.step)
        self.step += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """Everything that determines the batches to come."""
        return {"step": self.step, "seed": self.seed, "batch_size": self.batch_size, "num_samples": self.num_samples}

    def set_state(self, state: dict[str, int]) -> None:
        """Continues exactly where `get_state` was called.

        Raises:
          ValueError: the state belongs to another data set, seed or batch size.
        """
        self.step = checked_step(state, self.get_state())


def checked_step(state: dict[str, int], own: dict[str, int]) -> int:
    """The step of a saved state, after a check that everything else in it agrees."""
    wrong = [
        f"{name} {state.get(name)} (here {value})"
        for name, value in own.items()
        if name != "step" and state.get(name) != value
    ]
    if wrong or "step" not in state:
        raise ValueError(
            f"The loader's saved state does not belong to this loader: {', '.join(wrong) or 'it has no step'}."
        )
    return int(state["step"])
