"""Domain randomization as data: what may be drawn, the draw of one episode, and how it reaches a model."""

from simscaleai_jax.sim.randomization.config import JITTERS, NOMINAL, PRESETS, DomainRandomizationConfig
from simscaleai_jax.sim.randomization.overrides import (
    DERIVED_FIELDS,
    MODEL_INPUTS,
    apply_to_host,
    apply_to_mjx,
    draw,
    draw_between,
    resolve,
)

__all__ = [
    "DERIVED_FIELDS",
    "JITTERS",
    "MODEL_INPUTS",
    "NOMINAL",
    "PRESETS",
    "DomainRandomizationConfig",
    "apply_to_host",
    "apply_to_mjx",
    "draw",
    "draw_between",
    "resolve",
]
