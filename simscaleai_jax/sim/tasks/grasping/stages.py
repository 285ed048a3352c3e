"""What is measured of a snapshot: whether the object is held, how high it is, how far a grasp has come."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from simscaleai_jax.sim.tasks.snapshot import Snapshot

NEAR = 0.1  # m around the object within which an open gripper counts
BETWEEN = (0.75, 1.5)  # half widths of the object from its centre: closer it lies between the pads, farther it does not
SQUEEZED = 0.85  # half widths; fingers closer together than this hold nothing
OPEN, STRADDLED, CLOSING = 0.15, 0.3, 0.3  # shares of the grasp: open nearby, around the object, fingers at it


def grasped(snapshot: Snapshot, touch_force: float) -> Bool[Array, ""]:
    """Whether both pads press on the object with more than `touch_force` newtons."""
    return jnp.all(snapshot.touch[0] > touch_force)


def clearance(
    snapshot: Snapshot, half_size: Float[Array, "3"], table_height: Float[Array, ""] | float
) -> Float[Array, ""]:
    """Height of the lowest corner of the box around the object above the table, m; 0 at rest and while it only tips."""
    w, x, y, z = snapshot.object_quat[0]
    world_up = jnp.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)])  # in the object's frame
    extent = jnp.sum(jnp.abs(world_up) * half_size)
    return snapshot.object_pos[0, 2] - extent - table_height


def grasp_progress(
    snapshot: Snapshot, half_width: Float[Array, ""], opened: float, is_held: Bool[Array, ""]
) -> Float[Array, ""]:
    """How far a grasp has come, in [0, 1]: gripper open near the object, around it, closing on it, pressing on it.

    Fingers that are closer together than the object is wide hold nothing and count nothing, wherever they are.

    Args:
      snapshot: the scene.
      half_width: m, half the object's width between the pads.
      opened: m, opening of one finger of the open gripper.
      is_held: whether both pads press; that is a whole grasp.
    """
    distance = jnp.linalg.norm(snapshot.ee_pos - snapshot.object_pos[0])
    gripper = snapshot.gripper[0]
    openness = jnp.clip((gripper - half_width) / (opened - half_width), 0.0, 1.0)
    inner, outer = BETWEEN[0] * half_width, BETWEEN[1] * half_width
    between = jnp.clip((outer - distance) / (outer - inner), 0.0, 1.0)
    between = jnp.where(gripper > SQUEEZED * half_width, between, 0.0)
    near = jnp.clip(1.0 - distance / NEAR, 0.0, 1.0)
    approach = OPEN * openness * near
    around = STRADDLED + CLOSING * (1.0 - openness)
    return jnp.where(is_held, 1.0, (1.0 - between) * approach + between * around)
