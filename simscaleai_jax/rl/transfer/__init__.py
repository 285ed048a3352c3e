"""How a policy takes other physics than it was trained in."""

from simscaleai_jax.rl.transfer.sweep import (
    Condition,
    evaluate_conditions,
    make_conditions,
    sweepable,
)

__all__ = ["Condition", "evaluate_conditions", "make_conditions", "sweepable"]
