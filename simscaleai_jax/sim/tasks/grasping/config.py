"""Settings of every task that grasps the object."""

import dataclasses

from simscaleai_jax.sim.tasks.tabletop import TabletopConfig, check_settings

SHARES = ("curriculum_share", "curriculum_held", "curriculum_around")
WEIGHTS = ("reach_weight", "grasp_weight", "lift_weight", "success_bonus", "failure_penalty", "action_penalty")


@dataclasses.dataclass(frozen=True)
class GraspConfig(TabletopConfig):
    """`TabletopConfig` and the grasp.

    Curriculum: in training a share of the episodes starts eased. Of these a share `curriculum_held` already holds the
    object in the air, a share `curriculum_around` has the open gripper around it on the table, and in the rest the
    arm hovers over it. The share begins at `curriculum_share` and falls linearly to zero over `curriculum_steps`
    control steps of each environment. Plain resets, and with them every evaluation, never start that way.
    """

    lift_height: float = 0.01  # m between the object's lowest corner and the table from which on it counts as lifted
    reach_weight: float = 1.0
    grasp_weight: float = 1.0
    lift_weight: float = 1.0
    success_bonus: float = 8.0
    failure_penalty: float = 1.0
    action_penalty: float = 0.002  # per squared unit of action and step
    curriculum_share: float = 0.0
    curriculum_held: float = 0.5
    curriculum_around: float = 0.25
    curriculum_steps: int = 10_000


def check_grasping(
    config: GraspConfig, positive: tuple[str, ...] = (), not_negative: tuple[str, ...] = (), shares: tuple = ()
) -> None:
    """Settle and check the settings; the further names are of fields that the task adds.

    Raises:
      ValueError: names the field and what it was.
    """
    check_settings(config, ("lift_height", "curriculum_steps", *positive), (*WEIGHTS, *not_negative))
    for share in (*SHARES, *shares):
        if not 0.0 <= getattr(config, share) <= 1.0:
            raise ValueError(f"{share} must lie in [0, 1], got {getattr(config, share)}")
    if config.curriculum_held + config.curriculum_around > 1.0:
        raise ValueError(
            "curriculum_held and curriculum_around are shares of the eased starts and must not exceed 1 together, "
            f"got {config.curriculum_held} and {config.curriculum_around}"
        )
