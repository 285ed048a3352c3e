"""Streams items through Grain: worker processes read, batches are made there, the device gets uint8 images.

The order is arithmetic (see `sampling`), so the iterator's state is the number of batches handed out: prefetching and
worker processes cannot make it inexact. Each process of a multi-host run reads its own part of every batch.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simscaleai_jax.core.jax_settings import GENERATOR
from simscaleai_jax.core.observations import is_colour_key, is_image_key
from simscaleai_jax.core.sharding import batch_sharding, check_divisible, make_mesh
from simscaleai_jax.training.data.augment import ImageAugmentation, augment_images, to_unit_images
from simscaleai_jax.training.data.dataset import TrajectoryDataset
from simscaleai_jax.training.data.device import checked_step
from simscaleai_jax.training.data.sampling import batch_indices

PREFETCH_BATCHES = 4


class StreamLoader:
    """Batches read by Grain, ahead of the training step, and sharded over the mesh."""

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        mesh: Any = None,
        seed: int = 0,
        shuffle: bool = True,
        num_epochs: int | None = None,
        num_workers: int = 0,
        augmentation: ImageAugmentation | None = None,
    ) -> None:
        self.mesh = make_mesh(jax.devices()[:1]) if mesh is None else mesh
        check_divisible(batch_size, self.mesh.size, "batch_size")
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers
        self.num_samples = len(dataset)
        self.steps_per_epoch = self.num_samples // batch_size
        self.num_steps = None if num_epochs is None else num_epochs * self.steps_per_epoch
        self.step = 0
        self._source = BatchSource(
            _with_raw_images(dataset), batch_size, seed, shuffle, *_own_part(batch_size, self.mesh)
        )
        self._ahead: Iterator[dict[str, Any]] | None = None
        self._prepare = jax.jit(self._prepare_images, static_argnums=2)
        self.augmentation = augmentation

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        if self.num_steps is not None and self.step >= self.num_steps:
            raise StopIteration
        if self._ahead is None:
            self._ahead = iter(self._pipeline(self.step))
        batch = self._to_device(next(self._ahead))
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
        self._ahead = None

    def _pipeline(self, first_step: int) -> Any:
        import grain

        last = 2**62 if self.num_steps is None else self.num_steps
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=PREFETCH_BATCHES)
        batches = grain.MapDataset.range(first_step, last).map(self._source).to_iter_dataset(options)
        if not self.num_workers:
            return batches
        from absl import flags

        if not flags.FLAGS.is_parsed():  # Grain's workers read absl flags, which only absl's own app.run parses
            flags.FLAGS.mark_as_parsed()
        workers = grain.MultiprocessingOptions(num_workers=self.num_workers, per_worker_buffer_size=PREFETCH_BATCHES)
        return batches.mp_prefetch(workers)

    def _to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        language = batch.pop("language", None)
        sharding = batch_sharding(self.mesh)
        arrays = jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch)
        images = {key: value for key, value in arrays["observations"].items() if is_image_key(key)}
        if images:
            arrays["observations"] |= self._prepare(images, self.step, self.augmentation)
        return arrays if language is None else arrays | {"language": [str(text) for text in language]}

    def _prepare_images(
        self, images: dict[str, Any], step: Any, augmentation: ImageAugmentation | None
    ) -> dict[str, Any]:
        """uint8 (B, ..., H, W, C), or images that are finished, to float32 (B, ..., C, H, W).

        Augmentation varies all cameras of a sample alike, and leaves depth and segmentation as they are.
        """
        key = jax.random.fold_in(jax.random.key(self.seed, impl=GENERATOR), step)
        floats = {name: to_unit_images(x) if x.dtype == jnp.uint8 else x for name, x in images.items()}
        if augmentation is None:
            return floats
        return {
            name: augment_images(key, image, augmentation) if is_colour_key(name) else image
            for name, image in floats.items()
        }


class BatchSource:
    """Reads batch number `step` (this process's part of it); picklable, runs in Grain's workers."""

    def __init__(self, dataset: Any, batch_size: int, seed: int, shuffle: bool, start: int, stop: int) -> None:
        self.dataset, self.batch_size, self.seed, self.shuffle = dataset, batch_size, seed, shuffle
        self.part = slice(start, stop)

    def __call__(self, step: int) -> dict[str, Any]:
        rows = batch_indices(int(step), self.batch_size, len(self.dataset), self.seed, self.shuffle)[self.part]
        return _stack([self.dataset[int(row)] for row in rows])


def _stack(items: list[Any]) -> Any:
    """Stacks nested dicts of arrays and strings."""
    if isinstance(items[0], dict):
        return {key: _stack([item[key] for item in items]) for key in items[0]}
    return np.stack([np.asarray(item) for item in items])


def _with_raw_images(dataset: Any) -> Any:
    """A copy of a file-backed data set that leaves images as uint8: a quarter of the bytes to move."""
    if not isinstance(dataset, TrajectoryDataset) or dataset.transform is not None:
        return dataset
    import copy

    raw = copy.copy(dataset)
    raw.raw_images = True
    return raw


def _own_part(batch_size: int, mesh: Any) -> tuple[int, int]:
    """Rows of the global batch that belong to this process's devices, contiguous in the mesh."""
    per_device = batch_size // mesh.size
    own = [i for i, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
    if own != list(range(own[0], own[-1] + 1)):
        raise ValueError("The mesh must list each process's devices next to each other (core.sharding.make_mesh does).")
    return own[0] * per_device, (own[-1] + 1) * per_device
