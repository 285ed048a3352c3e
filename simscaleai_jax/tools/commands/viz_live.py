"""`simscale viz-live`: episodes in MuJoCo's viewer."""

import dataclasses
from typing import Annotated

import tyro

from simscaleai_jax.tools.arguments import parse
from simscaleai_jax.tools.output import print_table

DESCRIPTION = """Watch episodes in MuJoCo's viewer, at the speed of the robot's clock. Needs a display.

Examples:
  simscale viz-live --env-name pick_place
  simscale viz-live --checkpoint checkpoints/ppo_reach"""


@dataclasses.dataclass(frozen=True)
class VizLiveOptions:
    """Options of `simscale viz-live`.

    Attributes:
      env_name: environment (see simscale list-envs); default: the checkpoint's, else reach.
      n_episodes: episodes to play.
      max_steps: control steps after which an episode is cut; default: the environment's own limit.
      seed: of the starts and of the actions.
      checkpoint: let this policy act; without it actions are random.
    """

    env_name: str | None = None
    n_episodes: int = 3
    max_steps: Annotated[int | None, tyro.conf.arg(aliases=["--max-episode-steps"])] = None
    seed: int = 42
    checkpoint: str | None = None


def main(argv: list[str]) -> None:
    """Parses the options, plays, prints the returns."""
    from simscaleai_jax.tools.viz_live import play_live

    options = parse(VizLiveOptions, argv, "viz-live", DESCRIPTION)
    given = (options.env_name, options.n_episodes, options.max_steps, options.seed, options.checkpoint)
    name, returns = play_live(*given)
    print_table(f"Episodes of {name}", ("episode", "return"), list(enumerate(returns)))
