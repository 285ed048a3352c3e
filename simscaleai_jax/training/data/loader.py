"""Picks the loader that suits a data set: device-resident for states that fit there, streaming for everything else.

Both loaders iterate over dicts of arrays sharded over the mesh's data axis, draw the same samples for the same seed,
and have `get_state()` / `set_state()` whose value is a small dict of integers.
"""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from simscaleai_jax.training.data.augment import ImageAugmentation
from simscaleai_jax.training.data.sampling import check_size


@runtime_checkable
class Loader(Protocol):
    """What a trainer may rely on."""

    batch_size: int
    steps_per_epoch: int

    def __iter__(self) -> Iterator[dict[str, Any]]: ...
    def __next__(self) -> dict[str, Any]: ...
    def get_state(self) -> dict[str, int]: ...
    def set_state(self, state: dict[str, int]) -> None: ...


def make_loader(
    dataset: Any,
    batch_size: int,
    *,
    mesh: Any = None,
    seed: int = 0,
    shuffle: bool = True,
    num_epochs: int | None = None,
    num_workers: int = 0,
    device_resident: bool | None = None,
    device_mb: float = 1024.0,
    augmentation: ImageAugmentation | None = None,
    drop_last: bool = True,
) -> Loader:
    """Builds an iterator of batches {"observations": {key: (B, ...)}, "actions": (B, ...), "is_pad"?, "language"?}.

    Arrays are float32 and sharded over the mesh; images are (B, ..., C, H, W) in [0, 1]; language is a list of strings.

    Args:
      dataset: a `TrajectoryDataset`, or anything with `len` and `[]` that returns such items.
      batch_size: samples per batch over all devices and processes.
      mesh: as made by `core.sharding.make_mesh`; one device by default.
      seed: of the order and of the augmentation. shuffle: draw each epoch in a new order.
      num_epochs: stop after so many; None never stops.
      num_workers: threads that decode images, at most one per core; for data sets that are asked item by item Grain
        worker processes (0: a thread of this process).
      device_resident: keep the data on the device and sample inside jit; by default whenever it is states only, without
        language or transform, and fits into `device_mb`.
      augmentation: applied to colour images on the device.
      drop_last: leave out the rest of an epoch that fills no batch; else its batch is filled up with samples that
        "is_pad" marks, and a data set may be smaller than a batch.

    Raises:
      ValueError: fewer samples than one batch, a batch that does not split over the mesh, or a data set that cannot be
        device-resident although it was asked for.
    """
    check_size(len(dataset))
    if batch_size < 1 or (drop_last and batch_size > len(dataset)):
        raise ValueError(f"batch_size {batch_size} does not fit a data set of {len(dataset)} samples.")
    obstacle = _residency_obstacle(dataset, device_mb)
    if device_resident and obstacle:
        raise ValueError(f"The data set cannot live on the device: {obstacle}.")
    common = {"mesh": mesh, "seed": seed, "shuffle": shuffle, "num_epochs": num_epochs, "drop_last": drop_last}
    if device_resident or (device_resident is None and obstacle is None):
        from simscaleai_jax.training.data.device import DeviceLoader

        return DeviceLoader(dataset, batch_size, **common)
    from simscaleai_jax.training.data.stream import StreamLoader

    return StreamLoader(dataset, batch_size, num_workers=num_workers, augmentation=augmentation, **common)


def _residency_obstacle(dataset: Any, device_mb: float) -> str | None:
    """Why a data set cannot be sampled inside jit, or None when it can."""
    if not hasattr(dataset, "column"):
        return "it offers items only, no columns"
    if dataset.image_keys:
        return f"it has images ({', '.join(dataset.image_keys)})"
    if dataset.include_language:
        return "strings do not live on devices"
    if dataset.transform is not None:
        return "its transform works on single items"
    if dataset.nbytes > device_mb * 2**20:
        return f"its {dataset.nbytes / 2**20:.0f} MB are more than device_mb={device_mb:g}"
    return None
