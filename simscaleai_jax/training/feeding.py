"""From whatever yields batches to arrays on the trainer's mesh.

Our own loaders (training.data) carry an exact state. Any other iterable of batches works, too (a list, a generator,
torch's DataLoader): it is read over and over, and a resumed run skips what it has seen.
"""

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from simscaleai_jax.core import sharding
from simscaleai_jax.models.inputs import is_text
from simscaleai_jax.training.data.loader import Loader


class IterableLoader:
    """An iterable of batches as a `Loader`; its state is the number of batches read."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self.batch_size = int(getattr(batches, "batch_size", None) or 0)
        self.steps_per_epoch = len(batches) if isinstance(batches, Sized) else 0
        self.step = 0
        self._iterator: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self.batches)
        try:
            batch = next(self._iterator)
        except StopIteration:
            self._iterator = iter(self.batches)
            batch = next(self._iterator)  # a StopIteration here means that it cannot be read again
        self.step += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """Number of batches read."""
        return {"step": self.step}

    def set_state(self, state: dict[str, int]) -> None:
        """Starts anew and skips the batches that were read before."""
        self.step, self._iterator = 0, None
        for _ in range(int(state["step"])):
            next(self)


def as_loader(source: Any) -> Loader:
    """`source` itself when it has a loader's state, else wrapped."""
    return source if isinstance(source, Loader) else IterableLoader(source)


def lives_on_device(loader: Any) -> bool:
    """Whether batches can be gathered inside jit (training.data.device.DeviceLoader)."""
    return hasattr(loader, "batch_at") and hasattr(loader, "data")


def prepare(batch: Mapping[str, Any], model: Any, mesh: Mesh) -> dict[str, Any]:
    """A batch as jit takes it: instructions as token ids, arrays split over the mesh.

    Arrays of a loader that already knows the mesh stay where they are. In a run over several processes, host arrays
    hold the global batch, and instructions are those of this process.

    Raises:
      ValueError: the batch size does not divide; see also the model's `prepare_batch`.
    """
    batch = dict(batch)
    language = batch.pop("language", None)
    arrays = jax.tree.map(lambda leaf: _place(leaf, mesh), batch)
    if language is None or not hasattr(model, "prepare_batch"):
        return arrays if not hasattr(model, "prepare_batch") else model.prepare_batch(arrays)
    if not is_text(language):
        return model.prepare_batch(arrays | {"language": _place(language, mesh)})
    texts = [language] if isinstance(language, str) else list(language)
    local = {"observations": {"rows": np.zeros((len(texts), 0), np.float32)}, "language": texts}
    tokens = model.prepare_batch(local).get("language")
    if tokens is None:
        return arrays
    placed = jax.make_array_from_process_local_data(sharding.batch_sharding(mesh), np.asarray(tokens))
    return arrays | {"language": placed}


def _place(leaf: Any, mesh: Mesh) -> jax.Array:
    wanted = sharding.batch_sharding(mesh)
    if not isinstance(leaf, jax.Array):
        leaf = np.asarray(leaf)
        leaf = leaf.astype(np.float32) if leaf.dtype == np.float64 else leaf
    elif leaf.sharding == wanted:
        return leaf
    sharding.check_divisible(leaf.shape[0], mesh.size, "batch")
    return sharding.put(leaf, wanted)


def observation_record(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest's observation_spec of a prepared batch: one observation of a policy, images as uint8 H,W,C."""
    record = {}
    for name, leaf in batch["observations"].items():
        is_image = leaf.ndim >= 4
        if not is_image:
            record[name] = {"shape": [int(leaf.shape[-1])], "dtype": "float32"}
            continue
        sizes = [int(size) for size in leaf.shape[-3:]]
        sizes = sizes if leaf.dtype == np.uint8 else [*sizes[1:], sizes[0]]
        record[name] = {"shape": sizes, "dtype": "uint8"}
    return record
