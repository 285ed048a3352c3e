"""Random samples of the documented shapes, for tests and throughput measurements without a file."""

from typing import Any

import numpy as np

from simscaleai_jax.core.streams import Stream, host_random

DUMMY_INSTRUCTIONS = (
    "reach the red target",
    "pick up the cube",
    "place the cube on the target",
    "move the gripper to the left",
    "lift the object",
)


class DummyTrajectoryDataset:
    """Random samples; the same seed gives the same data set.

    An item is {"observations": {"state": (obs_dim,) float32, "image"?: (3, H, W) float32 in [0, 1]},
    "actions": (action_dim,) float32 in [-1, 1], "language"?: str}.
    """

    def __init__(
        self,
        num_samples: int = 1000,
        obs_dim: int = 20,
        action_dim: int = 4,
        image_size: tuple[int, int] = (128, 128),
        include_image: bool = False,
        include_language: bool = False,
        seed: int = 42,
    ) -> None:
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
        rng = host_random(seed, Stream.DUMMY_DATA)
        self.states = rng.standard_normal((num_samples, obs_dim), dtype=np.float32)
        self.actions = rng.uniform(-1.0, 1.0, (num_samples, action_dim)).astype(np.float32)
        self.image_size = image_size
        self.include_image = include_image
        self.include_language = include_language
        self.seed = seed

    seq_len = obs_horizon = 1
    transform = None

    @property
    def obs_keys(self) -> list[str]:
        """Observations of an item."""
        return ["image", "state"] if self.include_image else ["state"]

    @property
    def image_keys(self) -> list[str]:
        """Observations that are pictures."""
        return ["image"] if self.include_image else []

    @property
    def nbytes(self) -> int:
        """Bytes of the states and actions."""
        return self.states.nbytes + self.actions.nbytes

    def window_ends(self) -> np.ndarray:
        """(len(self),) int32: every sample is an episode of one step."""
        return np.arange(len(self), dtype=np.int32)

    def window_starts(self) -> np.ndarray:
        """As `window_ends`."""
        return self.window_ends()

    def column(self, key: str) -> np.ndarray:
        """The states ("obs/state") or "actions" of all samples."""
        return {"actions": self.actions, "obs/state": self.states}[key]

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        idx = range(len(self))[int(idx)]
        observations = {"state": self.states[idx].copy()}
        if self.include_image:  # drawn when asked for: a thousand of them would take 200 MB
            rng = host_random(self.seed, Stream.DUMMY_IMAGES, idx)
            observations["image"] = rng.random((3, *self.image_size), dtype=np.float32)
        item: dict[str, Any] = {"observations": observations, "actions": self.actions[idx].copy()}
        if self.include_language:
            item["language"] = DUMMY_INSTRUCTIONS[idx % len(DUMMY_INSTRUCTIONS)]
        return item
