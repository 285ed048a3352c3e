"""`simscale view`: a policy's episodes in a browser."""

import dataclasses
from typing import Annotated

import tyro

from simscaleai_jax.tools.arguments import parse, recorded_env

DESCRIPTION = """Watch a policy's episodes in a browser: play and pause, any step of any episode, every reward term,
every camera. Needs no display and no OpenGL; Ctrl-C ends it.

Examples:
  simscale view checkpoints/ppo_pick_place
  simscale view --env-name reach            (random actions)
  simscale view RUN --host 0.0.0.0          (from another machine: http://THIS_MACHINE:8080)"""


@dataclasses.dataclass(frozen=True)
class ViewOptions:
    """Options of `simscale view`.

    Attributes:
      checkpoint: the policy's, or a run's folder (its best); without it actions are random.
      env_name: environment (see simscale list-envs); default: the checkpoint's, else reach.
      n_episodes: episodes to play.
      max_steps: control steps after which an episode is cut; default: the environment's own limit.
      seed: of the starts and of the actions.
      language: instruction, for a policy that follows one.
      host: address to listen on.
      port: port to listen on; the next free one where it is in use.
    """

    checkpoint: Annotated[str | None, tyro.conf.Positional] = None
    env_name: str | None = None
    n_episodes: int = 8
    max_steps: Annotated[int | None, tyro.conf.arg(aliases=["--max-episode-steps"])] = None
    seed: int = 42
    language: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080


def main(argv: list[str]) -> None:
    """Parses the options, plays the episodes, serves them until Ctrl-C."""
    player = open_player(parse(ViewOptions, argv, "view", DESCRIPTION))
    print(f"Open http://{player.server.get_host()}:{player.port} in a browser; Ctrl-C ends it.", flush=True)
    try:
        player.play()
    except KeyboardInterrupt:
        print("Closed.")
    finally:
        player.close()


def open_player(options: ViewOptions):
    """Plays the episodes and opens the server.

    Raises:
      ValueError: a count below 1, no environment named, no such checkpoint.
      ImportError: viser is not installed.
    """
    for label, value in (("--n-episodes", options.n_episodes), ("--max-steps", options.max_steps)):
        if value is not None and value < 1:
            raise ValueError(f"{label} must be at least 1, got {value}")
    try:
        import viser  # noqa: F401
    except ImportError as error:
        raise ImportError("simscale view needs viser: pip install 'simscaleai-jax[viz]'") from error
    from simscaleai_jax.core.checkpoint import read_manifest
    from simscaleai_jax.policy import load_policy
    from simscaleai_jax.sim.factory import make_functional_env
    from simscaleai_jax.tools.viewer.player import Player
    from simscaleai_jax.tools.viewer.recording import record

    policy, name, settings = None, options.env_name or "reach", {}
    if options.checkpoint is not None:
        name, settings = recorded_env(read_manifest(options.checkpoint).env, options.env_name)
        policy = load_policy(options.checkpoint, language=options.language)
    env = make_functional_env(name, **{"cameras": [], **settings})
    print(f"Playing {options.n_episodes} episodes of {name} ...", flush=True)
    recording = record(env, policy, options.n_episodes, options.seed, options.max_steps)
    successes = int(recording.successes.sum())
    who = options.checkpoint or "random actions"
    title = f"**{name}**, {who}: {successes} of {options.n_episodes} episodes succeed"
    return Player(recording, title, options.host, options.port)
