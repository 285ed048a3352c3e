"""What is known only in training, as a target beside the actions: pictures learn to tell it, and no policy reads it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from simscaleai_jax.models.normalization import MIN_STD
from simscaleai_jax.training.data.loader import Loader


class AuxiliaryLoader:
    """A loader whose batches hold some states apart: "auxiliary" (B, D), their latest step with mean 0 and deviation 1.

    Its state is that of the loader within.
    """

    def __init__(self, loader: Loader, keys: Sequence[str], stats: dict[str, Any]) -> None:
        """`stats`: of the keys, as `TrajectoryDataset.stats(keys)["observations"]`."""
        self.loader, self.keys = loader, tuple(keys)
        self.batch_size, self.steps_per_epoch = loader.batch_size, loader.steps_per_epoch
        mean, std = (np.concatenate([np.ravel(stats[key][part]) for key in keys]) for part in ("mean", "std"))
        self.mean, self.std = mean.astype(np.float32), np.maximum(std, MIN_STD).astype(np.float32)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        import jax.numpy as jnp

        batch = next(self.loader)
        observations = dict(batch["observations"])
        rows = [observations.pop(key) for key in self.keys]
        latest = jnp.concatenate([row[:, -1] if row.ndim == 3 else row for row in rows], axis=-1)
        return {**batch, "observations": observations, "auxiliary": (latest - self.mean) / self.std}

    def get_state(self) -> dict[str, int]:
        """As the loader within."""
        return self.loader.get_state()

    def set_state(self, state: dict[str, int]) -> None:
        """As the loader within."""
        self.loader.set_state(state)
