"""Rewards as progress: what a step adds to how far along each stage of a task is.

Over an episode each term adds up to (last - first): waiting anywhere earns nothing, and whatever is gained by half a
task is lost again when it is undone. A task state that is rewarded so has the fields `has_potential` (False until the
first control step: the start itself earns nothing), `potential` (each stage after the last step, in [0, 1]) and
`progress` (what the last step added to each).
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float


def closeness(distance: Float[Array, ""]) -> Float[Array, ""]:
    """1 at distance 0, falling to 0 over decimetres; steep within the last centimetres, never flat far away."""
    return 1.0 - 0.5 * (jnp.tanh(distance / 0.3) + jnp.tanh(distance / 0.05))


def advance(state: Any, after: dict[str, Float[Array, ""]]) -> Any:
    """The task state after a step that brought its stages to `after`."""
    before = {name: jnp.where(state.has_potential, state.potential[name], value) for name, value in after.items()}
    progress = {name: value - before[name] for name, value in after.items()}
    return state.replace(has_potential=jnp.bool_(True), potential=after, progress=progress)


def no_progress(names: tuple[str, ...]) -> dict[str, Float[Array, ""]]:
    """Zero for each stage."""
    return {name: jnp.float32(0.0) for name in names}


def weighted(config: Any, names: tuple[str, ...], progress: dict[str, Array]) -> dict[str, Float[Array, ""]]:
    """The reward term of each stage: its progress times `<name>_weight` of the config."""
    return {name: getattr(config, f"{name}_weight") * progress[name] for name in names}
