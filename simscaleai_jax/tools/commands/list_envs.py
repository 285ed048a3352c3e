"""`simscale list-envs`: environments by name."""

import dataclasses

from simscaleai_jax.tools.arguments import parse
from simscaleai_jax.tools.output import print_table


@dataclasses.dataclass(frozen=True)
class ListEnvsOptions:
    """`simscale list-envs` has no options."""


def main(argv: list[str]) -> None:
    """Prints every environment with what it observes."""
    from simscaleai_jax.sim.factory import list_envs, make_env

    parse(ListEnvsOptions, argv, "list-envs", "List the environments that `make_env` and every command know.")
    rows = []
    for name in list_envs():
        try:
            env = make_env(name, cameras=[])
        except (TypeError, ValueError, OSError) as error:  # a registered class may need settings of its own
            rows.append((name, f"not built with defaults: {error}", ""))
            continue
        spaces = ", ".join(f"{key} {box.shape}" for key, box in env.observation_space.spaces.items())
        rows.append((name, spaces, str(env.action_space.shape)))
        env.close()
    print_table("Environments", ("name", "observations", "action"), rows)
