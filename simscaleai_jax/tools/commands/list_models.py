"""`simscale list-models`: models by name."""

import dataclasses

from simscaleai_jax.tools.arguments import parse
from simscaleai_jax.tools.output import print_table


@dataclasses.dataclass(frozen=True)
class ListModelsOptions:
    """`simscale list-models` has no options."""


def main(argv: list[str]) -> None:
    """Prints every registered model with the first line of its description."""
    from simscaleai_jax.models.registry import describe_models

    parse(ListModelsOptions, argv, "list-models", "List the models that `create_model` and `simscale train` know.")
    print_table("Models", ("name", "description"), list(describe_models().items()))
