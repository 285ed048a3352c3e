"""`simscale eval`: play fresh episodes with the policy of a checkpoint."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from simscaleai_jax.core.checkpoint import read_manifest
from simscaleai_jax.core.intervals import wilson
from simscaleai_jax.tools.arguments import parse, recorded_env
from simscaleai_jax.tools.instructions import check_told
from simscaleai_jax.tools.names import Names
from simscaleai_jax.tools.output import print_table

DESCRIPTION = """Play fresh episodes with the policy of a checkpoint and print how often it succeeds.

The checkpoint says which environment and network it belongs to, so no other option is needed. Episodes run twice:
all at once on a physics engine with the time step of training, and one after the other behind the gymnasium API
("host": MuJoCo itself) at the documented time step of 0.002 s. Every success rate has its Wilson 95% interval. Where
each episode has its own instruction, success is told for each of them, and once more for the same episodes with the
instructions shuffled among them (a policy that listens must fail there).

Examples:
  simscale eval checkpoints/ppo_reach
  simscale eval checkpoints/ppo_reach --n-episodes 100 --save-videos --video-dir videos"""

ROWS = ("dt", "success_rate", "mean_reward", "std_reward", "mean_length", "min_reward", "max_reward")
HOST, VIDEO = "host", "video"
FILMED = 3  # successes, and failures
HOST_LABEL = "host: MuJoCo, one by one"
SPOILT = {
    "nan_episodes": "ended because their state was not finite",
    "overflow_episodes": "may have lost contacts, because a buffer of the physics was full",
}


@dataclasses.dataclass(frozen=True)
class EvalOptions:
    """Options of `simscale eval`.

    Attributes:
      checkpoint: checkpoint directory, or the folder of a run, of which the best checkpoint is taken: that of the
        highest success while it trained (of PPO's last ten updates together, or of an evaluation), the newer of equals;
        without episodes, of the lowest validation loss.
      env_name: environment; default: the one that the checkpoint was trained on.
      n_episodes: episodes each way.
      max_steps: steps after which an episode is cut; default: the environment's own limit.
      render: show the episodes on host physics in a window.
      save_videos: write videos of episodes on host physics: the first three that succeed and the first three that fail,
        or with --physics batched, the first three.
      video_dir: where to.
      physics: "batched" (all episodes at once), "host" (one by one) or "both".
      impl: engine of the batched episodes: "auto" (what suits this machine), "c", "jax" or "warp".
      host_dt: seconds per physics step on the host.
      seed: of the episodes.
      output: also write the results to this JSON file, with the numbers of the episodes that failed.
      language: instruction; default: the one in the checkpoint, or each episode's own where a task gives one.
      phrases: sentences that such a task says: "held_out", which no demonstration has, or "train".
      execute_steps: actions executed of every planned chunk; default: all of them.
      ensemble: weight decay of temporal ensembling; default: none.
    """

    checkpoint: Annotated[str, tyro.conf.Positional]
    env_name: str | None = None
    n_episodes: int = 20
    max_steps: Annotated[int | None, tyro.conf.arg(name="max-episode-steps")] = None
    render: bool = False
    save_videos: bool = False
    video_dir: str = "eval_videos"
    physics: Literal["both", "batched", "host"] = "both"
    impl: Literal["auto", "c", "jax", "warp"] = "auto"
    host_dt: float = 0.002
    seed: int = 0
    output: str | None = None
    language: str | None = None
    phrases: Literal["held_out", "train"] = "held_out"
    execute_steps: int | None = None
    ensemble: float | None = None


def main(argv: list[str]) -> None:
    """Parses the options, evaluates, prints a table."""
    options = parse(EvalOptions, argv, "eval", DESCRIPTION, Names(old={"max-steps": "max-episode-steps"}))
    show(options, evaluate(options))
    if options.save_videos:
        print(f"Videos: {options.video_dir}")


def show(options: EvalOptions, results: dict[str, dict[str, float]]) -> None:
    """Prints the table, and writes `options.output`."""
    from simscaleai_jax.sim.physics import ENGINES

    rows = [(name, *(_cell(name, result) for result in results.values())) for name in ROWS]
    rows += _told_rows(results)
    heads = [HOST_LABEL if name == HOST else f"{name}: {ENGINES[name]}, batched" for name in results]
    print_table(f"{options.checkpoint}: {options.n_episodes} episodes", ("result", *heads), rows, results)
    _warn(results, options.n_episodes)
    if options.output:
        Path(options.output).write_text(json.dumps(results, indent=1))


def _cell(name: str, result: dict[str, Any]) -> Any:
    """A number of the table; the success rate with its interval."""
    if name != "success_rate":
        return result[name]
    return _share(result)


def _share(result: dict[str, Any]) -> str:
    return f"{result['success_rate']:.3f} [{result['success_low']:.3f}, {result['success_high']:.3f}]"


def _told_rows(results: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """Success of each instruction, and where the policy was told those of other episodes."""
    texts = sorted({text for result in results.values() for text in result.get("instructions", {})})
    parts = [(f'told "{text}"', [result["instructions"].get(text) for result in results.values()]) for text in texts]
    if any("blind" in result for result in results.values()):
        parts.append(("told what another episode is", [result.get("blind") for result in results.values()]))
    return [
        (name, *("" if of is None else f"{_share(of)} of {of['episodes']}" for of in found)) for name, found in parts
    ]


def _warn(results: dict[str, dict[str, float]], n_episodes: int) -> None:
    """Says how many episodes were spoilt by their physics, if any were."""
    for label, result in results.items():
        for name, what in SPOILT.items():
            if result.get(name):
                print(f"simscale eval: {result[name]} of {n_episodes} episodes on {label} {what}.", file=sys.stderr)


def evaluate(options: EvalOptions) -> dict[str, dict[str, float]]:
    """Results by what played the episodes (the engine's name, "host"), each with its time step."""
    from simscaleai_jax.policy import load_policy

    name, settings = recorded_env(read_manifest(options.checkpoint).env, options.env_name)
    settings.setdefault("cameras", [])
    if check_told(name, options.language):
        settings["phrases"] = options.phrases
    policy = load_policy(
        options.checkpoint,
        language=options.language,
        execute_steps=options.execute_steps,
        ensemble=options.ensemble,
    )
    with contextlib.ExitStack() as stack:  # everything that can be refused is, before anything is played
        envs = _make_envs(name, settings, options, stack)
        if options.output:
            _prepare(Path(options.output))
        return _play(envs, policy, options)


def _make_envs(
    name: str, settings: dict[str, Any], options: EvalOptions, stack: contextlib.ExitStack
) -> dict[str, Any]:
    """The environments that are wanted: a batched engine, "host", and "video" on the host in front of a camera."""
    from simscaleai_jax.sim.factory import make_env, make_functional_env

    envs: dict[str, Any] = {}
    if options.physics in ("both", "batched"):
        chosen: dict[str, Any] = {**settings, "impl": options.impl}
        batched = make_functional_env(name, **chosen)
        envs[batched.config.impl] = batched
    modes = {HOST: "human" if options.render else None} if options.physics in ("both", HOST) else {}
    modes |= {VIDEO: "rgb_array"} if options.save_videos else {}
    for label, mode in modes.items():
        envs[label] = make_env(name, mode, **settings | {"dt": options.host_dt})
        stack.callback(envs[label].close)
    return envs


def _prepare(output: Path) -> None:
    """Makes the folder of the results; an OSError where they cannot be written."""
    output.parent.mkdir(parents=True, exist_ok=True)
    is_new = not output.exists()
    with output.open("a"):
        pass
    if is_new:
        output.unlink()


def _play(envs: dict[str, Any], policy: Any, options: EvalOptions) -> dict[str, dict[str, float]]:
    """Evaluates in each environment; the video's replays episodes of the host."""
    from simscaleai_jax.rl.evaluator import evaluate_episodes
    from simscaleai_jax.rl.instructions import evaluate_instructions, task_instructions
    from simscaleai_jax.sim.physics import ENGINES

    results: dict[str, Any] = {}
    filmed = tuple(range(min(FILMED, options.n_episodes)))
    for label, env in envs.items():
        is_batched = label in ENGINES
        env_config = env.config if is_batched else env.unwrapped.config
        config = _config(options, env_config)
        config.on_host = not is_batched
        if label == VIDEO:
            config.save_videos, config.numbers, config.max_videos = True, filmed, len(filmed)
            _name_videos(options.video_dir, filmed, evaluate_episodes(env, policy, config).successes)
            continue
        told: dict[str, Any] = {}
        if task_instructions(env) is None:
            played = evaluate_episodes(env, policy, config)
        else:
            played, told = evaluate_instructions(env, policy, config)
        results[label] = judged(played.summary(), options.n_episodes, env_config.dt) | told
        results[label]["failures"] = np.flatnonzero(~played.successes).tolist()
        if label == HOST:
            filmed = tuple(int(i) for flag in (True, False) for i in np.flatnonzero(played.successes == flag)[:FILMED])
    return results


def _name_videos(folder: str, numbers: Sequence[int], successes: np.ndarray) -> None:
    """episode_017.mp4 becomes failure_017.mp4."""
    for number, success in zip(numbers, successes, strict=True):
        name = f"{number:03d}.mp4"
        (Path(folder) / f"episode_{name}").replace(Path(folder) / f"{'success' if success else 'failure'}_{name}")


def judged(result: dict[str, float], n_episodes: int, dt: float) -> dict[str, float]:
    """The result of an evaluation with the interval of its success rate and the time step."""
    low, high = wilson(result["success_rate"], n_episodes)
    return result | {"success_low": low, "success_high": high, "dt": dt}


def _config(options: EvalOptions, env_config: Any) -> Any:
    from simscaleai_jax.rl.evaluator import EvalConfig

    steps = options.max_steps or env_config.max_episode_steps
    return EvalConfig(options.n_episodes, steps, render=options.render, video_dir=options.video_dir, seed=options.seed)
