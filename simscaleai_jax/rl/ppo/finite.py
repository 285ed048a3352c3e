"""What PPO does with numbers that are not finite: it leaves them out, counts them, says so, and ends a diverged run.

Environments: a transition with such a reward or observation counts as one that ended its episode without reward; its
numbers become zero before anything is computed from them (`nan_count`). Learning: a gradient step whose loss, weights
or moments would not be finite is not taken (`skipped_steps`).
"""

import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

LARGEST = 1e15  # numbers from here on count as infinite: float32 could not hold the squares of a rollout of them


def is_usable(values: Any) -> Any:
    """Which numbers are finite and not gigantic; NumPy or JAX arrays."""
    return abs(values) < LARGEST


def cleaned(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], Bool[Array, "B"]]:
    """(inputs with zeros for what is not usable, which rows (B,) needed none)."""
    clean, is_fine = {}, jnp.ones((), bool)
    for name, values in inputs.items():
        clean[name] = values
        if jnp.issubdtype(values.dtype, jnp.floating):
            usable = is_usable(values)
            clean[name] = jnp.where(usable, values, jnp.zeros_like(values))
            is_fine = usable.reshape(values.shape[0], -1).all(1) & jnp.broadcast_to(is_fine, values.shape[:1])
    return clean, is_fine


def is_finite(tree: Any) -> Bool[Array, ""]:
    """Whether every floating number of a pytree is finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def keep_if(is_good: Array, new: Any, old: Any) -> Any:
    """`new` where it is good, else `old`."""
    return jax.tree.map(lambda a, b: jnp.where(is_good, a, b), new, old)


def mean_taken(rows: Mapping[str, Any]) -> dict[str, Array]:
    """Means over the gradient steps that were taken, and the number of those that were not (`skipped_steps`)."""
    skipped = rows["skipped_steps"]
    taken = jnp.maximum(skipped.size - skipped.sum(), 1.0)
    means = {name: jnp.where(skipped > 0, 0.0, row).sum() / taken for name, row in rows.items()}
    return means | {"skipped_steps": skipped.sum()}


class Watch:
    """Looks at the numbers of every update: warns once of what was left out, and ends a run that has diverged."""

    def __init__(self, config: Any) -> None:
        self._config = config
        self._warned: set[str] = set()

    def check(self, row: Mapping[str, float]) -> None:
        """Reads one update's numbers.

        Raises:
          ValueError: no transition of it was finite, or most of its gradient steps were not.
        """
        config, total = self._config, self._config.n_epochs * self._config.minibatches_per_epoch
        ending = f"in the update that ended at {row['total_steps']:,.0f} steps"
        if row["nan_count"] >= config.n_steps:
            raise ValueError(
                f"All {config.n_steps:,} transitions had a reward or an observation that is not finite {ending}; "
                "the environment gives nothing to learn from."
            )
        if 2 * row["skipped_steps"] > total:
            raise ValueError(
                f"Training has diverged: {row['skipped_steps']:,.0f} of {total:,} gradient steps were not finite "
                f"{ending}. Lower lr ({config.lr:g}) or max_grad_norm ({config.max_grad_norm:g}), or look for gigantic "
                "rewards and observations; checkpoints are from before."
            )
        self._warn("nan_count", row, f"of {config.n_steps:,} transitions were not finite and count as ended")
        self._warn("skipped_steps", row, f"of {total:,} gradient steps were not finite and were not taken")

    def _warn(self, name: str, row: Mapping[str, float], text: str) -> None:
        if row[name] > 0 and name not in self._warned:
            self._warned.add(name)
            logging.getLogger(__name__).warning(
                "%s %s in the update that ended at %s steps (%s; said once).",
                f"{row[name]:,.0f}", text, f"{row['total_steps']:,.0f}", name,
            )  # fmt: skip


def usable_rows(values: np.ndarray) -> np.ndarray:
    """Which rows (N,) of an array (N, ...) hold only usable numbers."""
    return is_usable(values).reshape(len(values), -1).all(1)
