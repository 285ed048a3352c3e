"""Reads checkpoints of format 1, whose arrays were written by Orbax."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np


def read_arrays(path: Path, record: dict[str, Any], folder: str) -> dict[str, np.ndarray]:
    """Every array under its flat name.

    Raises:
      ValueError: a file does not match its checksum.
    """
    import orbax.checkpoint as ocp

    for name, checksum in record["crc32"].items():
        if zlib.crc32((path / name).read_bytes()) != checksum:
            raise ValueError(f"Checkpoint {path} is damaged: the contents of {name} do not match their checksum.")
    specs = record["arrays"]
    stored = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name, spec in specs.items() if 0 not in spec["shape"]}
    with _checkpointer() as checkpointer:
        arrays = checkpointer.restore(path / folder, restore_args=stored) if stored else {}
    return {
        name: arrays[name] if name in stored else np.zeros(spec["shape"], spec["dtype"]) for name, spec in specs.items()
    }


def _checkpointer() -> Any:
    """Reads for this process alone."""
    import jax
    import orbax.checkpoint as ocp

    process = {jax.process_index()}
    options = ocp.options.MultiprocessingOptions(primary_host=jax.process_index(), active_processes=process)
    if jax.process_count() > 1:
        options.barrier_sync_key_prefix = f"process{jax.process_index()}"
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=options)
