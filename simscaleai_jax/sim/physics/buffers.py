"""Room for contacts: how much a scene can need, and whether a step ran out of it.

MuJoCo itself grows its buffers. MJX does not: warp shares one list of contacts among all worlds, and the JAX
implementation keeps every candidate contact unless the scene's `max_contact_points` tells it to keep the deepest few.
"""

import collections
from typing import Any

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Bool

CONTACTS_PER_PAIR = 8  # the most that any pair of primitive geoms makes (two boxes)
LEAST = 8  # warp dislikes empty buffers
# Names in warp's OverflowType of what loses contacts or constraints; its other bits say that a solver stopped early.
LOSSES = ("NEFC", "NJMAX_NNZ", "BROADPHASE", "NARROWPHASE", "CCD", "HFIELD", "CONTACT_MATCH")


def candidate_pairs(model: mujoco.MjModel) -> list[tuple[int, int, int]]:
    """Geoms (and the explicit pair's number or -1) that may touch."""
    from mujoco.mjx._src.collision_driver import geom_pairs

    return list(geom_pairs(model))


def warp_capacity(model: mujoco.MjModel) -> tuple[int, int]:
    """Contacts and constraint rows that one world can need at the very most, so that neither buffer overflows."""
    contacts = CONTACTS_PER_PAIR * len(candidate_pairs(model))
    condim = max([1, *model.pair_dim, *model.geom_condim])
    rows = 6 * model.neq + 2 * model.njnt + model.nv + contacts * max(1, 2 * (condim - 1))
    return max(LEAST, contacts), max(LEAST, rows)


def numeric(model: mujoco.MjModel, name: str) -> int:
    """A <custom><numeric> of the scene, -1 where there is none."""
    number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_NUMERIC, name)
    return int(model.numeric_data[model.numeric_adr[number]]) if number >= 0 else -1


def check_pair_limit(model: mujoco.MjModel) -> None:
    """ValueError when `max_geom_pairs` would leave pairs of geoms untested, which no step could report."""
    limit = numeric(model, "max_geom_pairs")
    kinds = collections.Counter(
        tuple(sorted((model.geom_type[first], model.geom_type[second]))) for first, second, _ in candidate_pairs(model)
    )
    largest = max(kinds.values(), default=0)
    if 0 <= limit < largest:
        raise ValueError(
            f"the scene's max_geom_pairs={limit} would drop contacts silently: up to {largest} pairs of one kind may "
            f"touch; raise it to {largest} or leave it out"
        )


def is_jax_buffer_full(model: mujoco.MjModel, data: Any) -> Bool[Array, ""]:
    """Whether the JAX implementation may have dropped contacts: all that `max_contact_points` lets it keep touch."""
    limit = numeric(model, "max_contact_points")
    contact = data._impl.contact
    touches = contact.dist < contact.includemargin
    full = [touches[contact.dim == dim].all() for dim in np.unique(contact.dim) if np.sum(contact.dim == dim) == limit]
    return jnp.any(jnp.stack(full)) if full else jnp.bool_(False)


def lost_bits() -> int:
    """The bits of warp's `Data.overflow` that mean a lost contact or constraint."""
    from mujoco.mjx.third_party.mujoco_warp._src.types import OverflowType

    return int(sum(OverflowType[name] for name in LOSSES))
