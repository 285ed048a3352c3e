"""Small models and runs that the trainer's tests share."""

import jax
import numpy as np
import pytest

from simscaleai_jax.models import create_model
from simscaleai_jax.training.data import DummyTrajectoryDataset, make_loader
from simscaleai_jax.training.trainer import TrainConfig, Trainer

SMALL_MODEL = {"hidden_dim": 16, "n_layers": 1}
SETTINGS = {
    "max_steps": 24, "warmup_steps": 4, "lr": 1e-2, "log_every": 4, "save_every": 8, "eval_every": 8, "device": "cpu",
}  # fmt: skip


def make_trainer(folder, *, loader=None, model=None, batch_size=8, num_samples=64, trainer=None, **settings) -> Trainer:
    """A trainer of a small BC model on dummy data; `trainer` holds arguments of Trainer."""
    config = TrainConfig(**SETTINGS | {"checkpoint_dir": str(folder)} | settings)
    model = create_model("bc", **SMALL_MODEL) if model is None else model
    loader = make_loader(DummyTrajectoryDataset(num_samples), batch_size) if loader is None else loader
    return Trainer(model, loader, config, progress=False, **trainer or {})


def leaves(tree) -> list[np.ndarray]:
    """Leaves on the host, keys as their data."""

    def data(leaf):
        is_key = hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    return [data(leaf) for leaf in jax.tree.leaves(tree)]


def same(first, second) -> bool:
    """Whether two trees are equal bit for bit."""
    pairs = zip(leaves(first), leaves(second), strict=True)
    return all(a.shape == b.shape and (a == b).all() for a, b in pairs)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """(trainer, its numbers) of an uninterrupted run with averaged weights."""
    trainer = make_trainer(tmp_path_factory.mktemp("finished"), ema_decay=0.9)
    return trainer, trainer.train()
