"""What adapters share: the state vector's space, and what a batch must be like."""

from typing import Any

import numpy as np

from simscaleai_jax.core.observations import state_keys


def flat_space(space: Any) -> Any:
    """The Box of the state vector of a Dict space."""
    from gymnasium import spaces

    boxes = [space[key] for key in state_keys(space.spaces)]
    low, high = (np.concatenate([np.ravel(getattr(box, side)) for box in boxes]) for side in ("low", "high"))
    return spaces.Box(low, high, dtype=np.float32)


def flat_bounds(env: Any) -> tuple[np.ndarray, np.ndarray]:
    """(lowest, highest) values of the state vector of a functional environment, (S,) float32 each."""
    bounds, spec = env.task.observation_bounds(), env.observation_spec
    rows = [
        [np.broadcast_to(np.asarray(side, np.float32), spec[key].shape) for side in bounds[key]]
        for key in state_keys(spec)
    ]
    low, high = (np.concatenate([np.ravel(row[side]) for row in rows]) for side in (0, 1))
    return low, high


def check_same_step(envs: Any) -> None:
    """Raises a ValueError where an episode's end is not followed by the next one in the same step."""
    mode = envs.metadata["autoreset_mode"]
    if mode.name != "SAME_STEP":
        raise ValueError(
            f"The library resets within the step, got {mode}; use make_vec_env(..., autoreset_mode='SameStep')."
        )
