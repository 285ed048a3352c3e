"""What a model reads, as shapes: the input of fake batches for tests, benchmarks and compiling ahead.

A registered model has `input_spec(batch_size)`, a nested dict of `jax.ShapeDtypeStruct` like its prepared batch, and a
class method `arguments_for(data)`: which of its constructor arguments follow from a `DataSpec`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

TOKEN_LIMIT = 44  # ids that the tokenizer makes


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """What a data set offers.

    Attributes:
      state_dim: length of the state vector, 0 without any.
      action_dim: length of an action.
      action_horizon: actions of a sample.
      pictures: key of each camera's colour picture -> (C, H, W), in sorted order.
      has_language: whether there are instructions.
    """

    state_dim: int
    action_dim: int
    action_horizon: int
    pictures: dict[str, tuple[int, int, int]]
    has_language: bool

    def picture(self, wanted: str = "image") -> tuple[str, tuple[int, int, int]] | None:
        """(key, (C, H, W)) of one picture for models that see one: `wanted`, else the first; None without any."""
        key = wanted if wanted in self.pictures else next(iter(self.pictures), None)
        return None if key is None else (key, self.pictures[key])


def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """A shape struct."""
    return jax.ShapeDtypeStruct(sizes, dtype)


def fake_batch(spec: Any, seed: int = 0) -> Any:
    """Random NumPy arrays of a spec: floats in [-1, 1], images 0..255, token ids that the tokenizer makes, True
    flags.
    """
    rng = np.random.default_rng(seed)

    def fill(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if leaf.dtype == jnp.uint8:
            return rng.integers(0, 256, leaf.shape, np.uint8)
        if leaf.dtype == jnp.int32:
            return rng.integers(0, TOKEN_LIMIT, leaf.shape, np.int32)
        if leaf.dtype == jnp.bool_:
            return np.ones(leaf.shape, bool)
        return rng.uniform(-1.0, 1.0, leaf.shape).astype(np.float32)

    return jax.tree.map(fill, spec)
