"""Demonstrations for training: random-access data sets, and loaders that feed a mesh from them.

Importing this package brings no JAX, so that torch's DataLoader workers and Grain's start quickly.
"""

from simscaleai_jax.training.data.dataset import DummyTrajectoryDataset, TrajectoryDataset
from simscaleai_jax.training.data.loader import make_loader

__all__ = ["DummyTrajectoryDataset", "TrajectoryDataset", "make_loader"]
