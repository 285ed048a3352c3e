"""Demonstration files: the HDF5 layout that datagen writes and training reads, its reader and its statistics.

Both sides stand on this package, so neither has to import the other. It needs NumPy and h5py only (no JAX), so that
torch users and data-loader workers start quickly.
"""

from simscaleai_jax.core.demonstrations.frames import FrameReader
from simscaleai_jax.core.demonstrations.index import Index
from simscaleai_jax.core.demonstrations.indexing import ensure_index
from simscaleai_jax.core.demonstrations.layout import FORMAT_VERSION, Episode, demo_name, split_masks
from simscaleai_jax.core.demonstrations.reader import DemonstrationFile
from simscaleai_jax.core.demonstrations.statistics import QUANTILES, compute_statistics

__all__ = [
    "FORMAT_VERSION",
    "QUANTILES",
    "DemonstrationFile",
    "Episode",
    "FrameReader",
    "Index",
    "compute_statistics",
    "demo_name",
    "ensure_index",
    "split_masks",
]
