"""`simscale list-robots`: arms by name."""

import dataclasses

from simscaleai_jax.tools.arguments import parse
from simscaleai_jax.tools.output import print_table


@dataclasses.dataclass(frozen=True)
class ListRobotsOptions:
    """`simscale list-robots` has no options."""


def main(argv: list[str]) -> None:
    """Prints every arm that `robot=` takes, and where its model lies on this machine."""
    from simscaleai_jax.sim.robot.arms import MENAGERIE, downloaders, find_arm, list_robots, locate

    parse(ListRobotsOptions, argv, "list-robots", "List the arms that `robot=` (--env.robot) takes.")
    rows = []
    for name in list_robots():
        arm = find_arm(name)
        try:
            place = str(locate(name, arm, may_fetch=False))
        except FileNotFoundError:
            place = "downloaded when first used" if downloaders() else f"not found: set {MENAGERIE}"
        rows.append((name, arm.title, len(arm.home), place))
    print_table("Robots", ("name", "arm", "joints", "model"), rows)
