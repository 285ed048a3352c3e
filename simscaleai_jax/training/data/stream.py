"""Streams batches from the disk to the mesh: states as one array, frames as uint8, both taken apart on the device.

The order is arithmetic (see `sampling`), so the iterator's state is the number of batches handed out: reading ahead
cannot make it inexact. Each process of a multi-host run reads its own part of every batch.

Batches of our own data sets are gathered here: states at once, which is faster than any hand-over, frames ahead, in
threads, which decode them side by side. What has to be asked for item by item (a transform, a data set of somebody
else's, pictures that only HDF5 can read) comes through Grain and its worker processes.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simscaleai_jax.core.observations import image_keys, is_colour_key
from simscaleai_jax.core.sharding import batch_sharding, check_divisible, make_mesh
from simscaleai_jax.core.streams import Stream, seed_key
from simscaleai_jax.training.data.augment import ImageAugmentation, augment_images, to_unit_images
from simscaleai_jax.training.data.dataset import TrajectoryDataset
from simscaleai_jax.training.data.device import checked_step
from simscaleai_jax.training.data.sampling import BatchIndices, count_batches, flag_filling

PREFETCH_BATCHES = 4


class StreamLoader:
    """Batches read ahead of the training step, and sharded over the mesh.

    Arguments as `loader.make_loader`.
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
        num_workers: int = 0,
        augmentation: ImageAugmentation | None = None,
        drop_last: bool = True,
    ) -> None:
        self.mesh = make_mesh(jax.devices()[:1]) if mesh is None else mesh
        check_divisible(batch_size, self.mesh.size, "batch_size")
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers
        self.num_samples = len(dataset)
        self.steps_per_epoch = count_batches(self.num_samples, batch_size, drop_last)
        self.num_steps = None if num_epochs is None else num_epochs * self.steps_per_epoch
        self.step = 0
        self.dataset = _with_raw_images(dataset)
        self.is_gathered = isinstance(dataset, TrajectoryDataset) and dataset.transform is None
        indices = BatchIndices(batch_size, self.num_samples, seed, shuffle, drop_last)
        self._source = BatchSource(self.dataset, indices, *_own_part(batch_size, self.mesh), self.is_gathered)
        self._ahead: Iterator[dict[str, Any]] | None = None
        self.augmentation = augmentation
        self._sharding = batch_sharding(self.mesh)
        self._has_local_mesh = all(device.process_index == jax.process_index() for device in self.mesh.devices.flat)
        self._prepare = jax.jit(self._prepare_batch, out_shardings=self._sharding)

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

    def _pipeline(self, first_step: int) -> Iterator[dict[str, Any]]:
        """Host batches from `first_step` on."""
        last = 2**62 if self.num_steps is None else self.num_steps
        if not self.is_gathered or self.dataset.has_unlocated_frames:
            return iter(self._grain_pipeline(first_step, last))
        if self.dataset.image_keys:
            return self._threaded_pipeline(first_step, last)
        return map(self._source, range(first_step, last))

    def _threaded_pipeline(self, first_step: int, last: int) -> Iterator[dict[str, Any]]:
        threads = min(max(self.num_workers, 1), os.cpu_count() or 1)
        with ThreadPoolExecutor(threads, "frames") as pool:
            ahead = deque(pool.submit(self._source, s) for s in range(first_step, min(first_step + threads + 1, last)))
            step = first_step + len(ahead)
            while ahead:
                batch = ahead.popleft().result()
                if step < last:
                    ahead.append(pool.submit(self._source, step))
                    step += 1
                yield batch

    def _grain_pipeline(self, first_step: int, last: int) -> Any:
        import grain

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
        step = None if self.augmentation is None else np.int32(self.step)  # even a number costs its way to a device
        arrays = self._prepare(jax.tree.map(self._place, batch), step)
        return arrays if language is None else arrays | {"language": [str(text) for text in language]}

    def _place(self, leaf: np.ndarray) -> jax.Array:
        if self._has_local_mesh:  # make_array_from_process_local_data does the same, with more ceremony
            return jax.device_put(leaf, self._sharding)
        return jax.make_array_from_process_local_data(self._sharding, leaf)

    def _prepare_batch(self, batch: dict[str, Any], step: Any) -> dict[str, Any]:
        """Takes a batch apart, and makes float32 (B, ..., C, H, W) of uint8 (B, ..., H, W, C) images.

        Augmentation varies all cameras of a sample alike, and leaves depth and segmentation as they are.
        """
        batch = self.dataset.unpack(batch, jnp) if self.is_gathered else batch
        images = {key: batch["observations"][key] for key in image_keys(batch["observations"])}
        floats = {name: to_unit_images(x) if x.dtype == jnp.uint8 else x for name, x in images.items()}
        if self.augmentation is not None:
            key = jax.random.fold_in(seed_key(self.seed, Stream.AUGMENTATION), step)
            floats |= {
                name: augment_images(key, image, self.augmentation)
                for name, image in floats.items()
                if is_colour_key(name)
            }
        return batch | {"observations": batch["observations"] | floats}


class BatchSource:
    """Reads batch number `step` (this process's part of it); picklable, runs in threads and in Grain's workers."""

    def __init__(self, dataset: Any, indices: BatchIndices, start: int, stop: int, is_gathered: bool) -> None:
        self.dataset, self.indices, self.is_gathered = dataset, indices, is_gathered
        self.part = slice(start, stop)

    def __call__(self, step: int) -> dict[str, Any]:
        rows, order = self.indices(int(step))[self.part], self.indices
        batch = self.dataset.gather(rows) if self.is_gathered else _stack([self.dataset[int(row)] for row in rows])
        if order.drop_last:
            return batch
        return flag_filling(batch, int(step), order.batch_size, order.num_samples, part=self.part)


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
