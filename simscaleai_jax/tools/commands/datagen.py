"""`simscale datagen`: write demonstrations."""

import contextlib
import dataclasses
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import tyro

from simscaleai_jax.core import paths
from simscaleai_jax.core.checkpoint import read_manifest, resolve
from simscaleai_jax.tools.arguments import parse, recorded_env
from simscaleai_jax.tools.distribution import DistributionOptions
from simscaleai_jax.tools.env_options import EnvOptions
from simscaleai_jax.tools.names import Names
from simscaleai_jax.tools.output import print_table

DESCRIPTION = """Play episodes on the device and write them to HDF5 (robomimic's layout).

A run that was interrupted is continued by the same command; a finished file is left as it is. The result depends on the
settings and the seed, not on --num-envs or --shards.

Examples:
  simscale datagen --env-name reach --policy scripted --n-episodes 1000 --output data/reach.h5
  simscale datagen --env-name pick_place --policy scripted --env.dt 0.01 --only-success --randomize
  simscale datagen --env-name pick_place --policy scripted --env.randomization heavy --env.xml-path lab.xml
  simscale datagen --policy scripted --env.cameras front_cam wrist_cam --env.image-size 64
  simscale datagen --checkpoint checkpoints/ppo_reach --output data/ppo.h5
  simscale datagen --checkpoint checkpoints/bc_reach --expert scripted      labelled by the expert: see simscale dagger
  simscale datagen --policy scripted --n-episodes 100000 --shards 8      then: simscale merge
  srun simscale datagen --distributed --policy scripted --n-episodes 100000          a shard for each process"""

SCRIPTED = "scripted"
LINE_SECONDS = 10.0  # between lines about the progress where there is no terminal
FINISH_SECONDS = 7 * 24 * 3600  # for those that are done: to leave early would end the others; a dead one is noticed


@dataclasses.dataclass(frozen=True)
class DatagenOptions:
    """Options of `simscale datagen`.

    Attributes:
      env_name: environment (see simscale list-envs); default: the checkpoint's, else reach.
      n_episodes: episodes to write.
      output: HDF5 file.
      policy: "random" or "scripted".
      checkpoint: let the policy of this checkpoint act instead, in the environment that it was trained on.
      expert: labels what --checkpoint reaches: "scripted", or another checkpoint; default: who acts labels. What was
        executed is kept beside the labels.
      seed: of everything random.
      num_envs: episodes played at a time; default: at most 256.
      only_success: play an episode again until it succeeds.
      shards: files to split the run into; default: one per process.
      noise_std: noise on executed actions, in action units; labels stay clean.
      noise_probability: share of the steps that are disturbed.
      next_obs: also store what followed each action.
      valid_fraction: share of episodes in the mask "valid".
      config: YAML file with any of these options.
      env: settings of the environment; default: the checkpoint's, else 200 steps, no randomization and no camera.
      distribution: one of several processes, each of which plays its own shards.
    """

    env_name: str | None = None
    n_episodes: int = 100
    output: str = "data/dataset.h5"
    policy: str = "random"
    checkpoint: str | None = None
    expert: str | None = None
    seed: int = 42
    num_envs: int | None = None
    only_success: bool = False
    shards: int | None = None
    noise_std: float = 0.0
    noise_probability: float = 1.0
    next_obs: bool = False
    valid_fraction: float = 0.1
    config: str | None = None
    env: EnvOptions = dataclasses.field(default_factory=EnvOptions)
    distribution: Annotated[DistributionOptions, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=DistributionOptions
    )


NAMES = Names(
    kept={
        "randomize": "env.domain-randomization=True",
        "no-randomize": "env.domain-randomization=None",
    },
    old={
        "dt": "env.dt", "max-steps": "env.max-episode-steps", "robot": "env.robot", "controller": "env.controller",
        "xml-path": "env.xml-path", "randomization": "env.randomization", "cameras": "env.cameras",
        "image-size": "env.image-size",
    },
)  # fmt: skip
FILE_NAMES = Names(
    kept={"randomize": "env.domain-randomization"}
    | {field.name.replace("_", "-"): f"distribution.{field.name}" for field in dataclasses.fields(DistributionOptions)},
    old=NAMES.old,
)


def parse_options(argv: list[str]) -> DatagenOptions:
    """The options that the arguments say."""
    return parse(DatagenOptions, argv, "datagen", DESCRIPTION, NAMES, FILE_NAMES)


def main(argv: list[str]) -> None:
    """Parses the options, generates, prints a table (each process that of its own shards)."""
    from simscaleai_jax.core import distributed

    options = parse_options(argv)
    options = dataclasses.replace(options, output=str(paths.local(options.output, "A data set")))
    name, settings = env_settings(options)
    try:
        options.distribution.join()
        with distributed.peer_errors():
            summary = generate(options, name, settings)
        show(options, name, summary)
        distributed.barrier("all shards", FINISH_SECONDS)
    except distributed.PeerLostError as error:
        distributed.leave_broken_run(error)


def show(options: DatagenOptions, name: str, summary: dict[str, Any]) -> None:
    """Prints the table of this process's shards; process 0 also says how to join all of them."""
    import jax

    from simscaleai_jax.datagen.files.shards import plan_shards

    paths, count, index = summary["paths"], jax.process_count(), jax.process_index()
    part = f", process {index} of {count}" if count > 1 else ""
    rows = [(result, _shown(value)) for result, value in summary.items() if result != "paths"]
    print_table(f"Demonstrations of {name}{part}", ("result", "value"), rows)
    if count > 1:
        paths = [str(shard.path) for shard in plan_shards(options.output, options.n_episodes, options.shards or count)]
    if len(paths) > 1 and index == 0:
        print(f"{len(paths)} shards; when all are there, join them with:")
        print(shlex.join(["simscale", "merge", options.output, *paths]))


def env_settings(options: DatagenOptions) -> tuple[str, dict[str, Any]]:
    """Name and settings of the environment: the options given, over the checkpoint's record, over the defaults."""
    name, recorded = options.env_name or "reach", {}
    if options.checkpoint:
        name, recorded = recorded_env(read_manifest(options.checkpoint).env, options.env_name)
    defaults = {"dt": None, "max_episode_steps": 200, "domain_randomization": False, "cameras": []}
    return name, defaults | recorded | options.env.settings()


def generate(options: DatagenOptions, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Runs `generate_dataset` and shows how far it is."""
    from simscaleai_jax.datagen import generate_dataset
    from simscaleai_jax.datagen.noise import NoiseConfig

    if options.expert and not options.checkpoint:
        raise ValueError("--expert labels what the policy of a --checkpoint reaches; without one, --policy acts alone.")
    policy, policy_digest = known_policy(options.checkpoint) if options.checkpoint else (None, "")
    expert, expert_name = options.expert, ""
    if expert not in (None, SCRIPTED):
        expert, digest = known_policy(expert)
        expert_name = f"{options.expert} {digest}"
    rest = dict(settings)
    noise = NoiseConfig(options.noise_std, options.noise_probability)
    with episode_progress(options.n_episodes) as progress_fn:
        return generate_dataset(
            name,
            options.n_episodes,
            options.output,
            "policy" if policy else options.policy,
            rest.pop("domain_randomization"),
            rest.pop("max_episode_steps"),
            options.seed,
            num_envs=options.num_envs,
            dt=rest.pop("dt"),
            cameras=rest.pop("cameras"),
            env_options=rest,
            only_success=options.only_success,
            shards=options.shards,
            noise=noise if options.noise_std else None,
            with_next_obs=options.next_obs,
            valid_fraction=options.valid_fraction,
            policy=policy,
            policy_name=options.checkpoint or "",
            policy_digest=policy_digest,
            expert=expert,
            expert_name=expert_name,
            progress_fn=progress_fn,
        )


@contextlib.contextmanager
def episode_progress(n_episodes: int) -> Iterator[Callable[[int, int], None]]:
    """A function of (episodes done, episodes wanted): a bar on a terminal; in a log a line now and then."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        if progress.console.is_terminal:
            bar = progress.add_task("episodes (compiling first)", total=n_episodes)
            yield lambda done, total: progress.update(bar, completed=done, total=total, description="episodes")
            return
        print(f"Making {n_episodes:,} episodes; compiling first.", flush=True)
        start = said = time.monotonic()
        first = None  # (episodes, seconds) when the first one was there: before that, it compiled

        def say(done: int, total: int) -> None:
            nonlocal first, said
            now = time.monotonic()
            first = first or (done, now)
            if now - said >= LINE_SECONDS or done == total:
                said = now
                made, seconds = done - first[0], now - first[1]
                left = f", about {seconds / made * (total - done):.0f} s left" if made else ""
                print(f"episodes {done:,}/{total:,}  {now - start:.0f} s{left}", flush=True)

        yield say


def known_policy(path: str) -> tuple[Callable[..., Any], str]:
    """The pure policy(obs, key) -> action of any checkpoint or run, and the digest that tells it from others."""
    from simscaleai_jax.datagen.identity import checkpoint_digest

    checkpoint = resolve(path)  # once: the run's best may become another one meanwhile
    return load_policy(checkpoint), checkpoint_digest(checkpoint)


def load_policy(path: Path) -> Callable[..., Any]:
    """The pure policy(obs, key) -> action of any checkpoint."""
    from simscaleai_jax.policy import load_policy as load

    return load(path)


def _shown(value: Any) -> str:
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
