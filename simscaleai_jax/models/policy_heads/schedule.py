"""Noise schedules of denoising diffusion and the steps at which a sampler visits them. NumPy, computed once."""

import functools

import numpy as np

from simscaleai_jax.core.errors import unknown_name

SCHEDULES = ("cosine", "linear")
COSINE_OFFSET = 0.008
MAX_BETA = 0.999
COARSEST = 10  # fewer samples than this still start where ten would


@functools.lru_cache(maxsize=64)
def alpha_bars(schedule: str, num_steps: int, beta_start: float, beta_end: float) -> np.ndarray:
    """Share of the signal's variance left after each noising step, (num_steps,) float64, decreasing.

    "cosine": alpha_bar(t) = cos^2((t/T + s) / (1 + s) * pi/2), https://arxiv.org/abs/2102.09672; "linear": betas evenly
    spaced from `beta_start` to `beta_end`, https://arxiv.org/abs/2006.11239.
    """
    return np.cumprod(1.0 - betas(schedule, num_steps, beta_start, beta_end))


def betas(schedule: str, num_steps: int, beta_start: float, beta_end: float) -> np.ndarray:
    """Variance added by each noising step, (num_steps,) float64.

    Raises:
      ValueError: unknown schedule, or no steps.
    """
    if schedule not in SCHEDULES:
        raise unknown_name("schedule", schedule, SCHEDULES)
    if num_steps < 1:
        raise ValueError(f"num_diffusion_steps is {num_steps}; wanted at least 1.")
    if schedule == "linear":
        return np.linspace(beta_start, beta_end, num_steps)
    time = (np.arange(num_steps + 1) / num_steps + COSINE_OFFSET) / (1.0 + COSINE_OFFSET)
    signal = np.cos(time * np.pi / 2.0) ** 2
    return np.minimum(1.0 - signal[1:] / signal[:-1], MAX_BETA)


def sampling_steps(num_steps: int, num_samples: int) -> np.ndarray:
    """Exactly `num_samples` distinct noising steps, (num_samples,) int32, evenly spaced, the noisiest first.

    Each stands in the middle of the stretch that it covers. Starting at the very last step instead would begin with an
    estimate from almost no signal: clipped, it throws a tenth of the samples of a two-mode target off their mode.

    Raises:
      ValueError: not between 1 and `num_steps`.
    """
    if not 1 <= num_samples <= num_steps:
        raise ValueError(f"num_inference_steps is {num_samples}; wanted 1 to {num_steps} (num_diffusion_steps).")
    first = num_steps * (1.0 - 0.5 / max(num_samples, COARSEST))
    return np.linspace(first, num_steps * 0.5 / num_samples, num_samples).astype(np.int32)
