"""`simscale eval`: play fresh episodes with the policy of a checkpoint."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from simscaleai_jax.core.checkpoint import read_manifest
from simscaleai_jax.tools.arguments import parse, print_table

DESCRIPTION = """Play fresh episodes with the policy of a checkpoint and print how often it succeeds.

The checkpoint says which environment and network it belongs to, so no other option is needed. Episodes run twice:
batched on MJX as in training, and on host physics (MuJoCo itself) at the documented time step of 0.002 s.

Examples:
  simscale eval checkpoints/ppo_reach
  simscale eval checkpoints/ppo_reach --n-episodes 100 --save-videos --video-dir videos"""

ROWS = ("dt", "success_rate", "mean_reward", "std_reward", "mean_length", "min_reward", "max_reward")


@dataclasses.dataclass(frozen=True)
class EvalOptions:
    """Options of `simscale eval`.

    Attributes:
      checkpoint: checkpoint directory, or the folder of a run (its best checkpoint is taken).
      env_name: environment; default: the one that the checkpoint was trained on.
      n_episodes: episodes on each physics.
      max_steps: steps after which an episode is cut; default: the environment's own limit.
      render: show the episodes on host physics in a window.
      save_videos: write videos of the first three episodes on host physics.
      video_dir: where to.
      physics: "mjx", "host" or "both".
      host_dt: seconds per physics step on the host.
      seed: of the episodes.
      output: also write the results to this JSON file.
      language: instruction; default: the one in the checkpoint.
      execute_steps: actions executed of every planned chunk; default: all of them.
      ensemble: weight decay of temporal ensembling; default: none.
    """

    checkpoint: Annotated[str, tyro.conf.Positional]
    env_name: str | None = None
    n_episodes: int = 20
    max_steps: int | None = None
    render: bool = False
    save_videos: bool = False
    video_dir: str = "eval_videos"
    physics: Literal["both", "mjx", "host"] = "both"
    host_dt: float = 0.002
    seed: int = 0
    output: str | None = None
    language: str | None = None
    execute_steps: int | None = None
    ensemble: float | None = None


def main(argv: list[str]) -> None:
    """Parses the options, evaluates, prints a table."""
    options = parse(EvalOptions, argv, "eval", DESCRIPTION)
    results = evaluate(options)
    rows = [(name, *(result[name] for result in results.values())) for name in ROWS]
    print_table(f"{options.checkpoint}: {options.n_episodes} episodes", ("result", *results), rows)
    if options.output:
        Path(options.output).parent.mkdir(parents=True, exist_ok=True)
        Path(options.output).write_text(json.dumps(results, indent=1))
    if options.save_videos:
        print(f"Videos: {options.video_dir}")


def evaluate(options: EvalOptions) -> dict[str, dict[str, float]]:
    """Results by physics ("MJX", "host"), each with its time step."""
    from simscaleai_jax.policy import load_policy

    manifest = read_manifest(options.checkpoint)
    name = options.env_name or manifest.env.get("name") or "reach"
    settings = dict(manifest.env.get("config", {})) if name == manifest.env.get("name") else {}
    settings.setdefault("cameras", [])
    policy = load_policy(
        options.checkpoint,
        language=options.language,
        execute_steps=options.execute_steps,
        ensemble=options.ensemble,
    )
    on_host = settings | {"dt": options.host_dt, "impl": "c"}
    results = {}
    if options.physics in ("both", "mjx"):
        results["MJX"] = _on_mjx(name, settings, policy, options)
    if options.physics in ("both", "host"):
        results["host"] = _on_host(name, on_host, policy, options)
    if options.save_videos:
        film(name, on_host, policy, options)
    return results


def _on_mjx(name: str, settings: dict[str, Any], policy: Any, options: EvalOptions) -> dict[str, float]:
    from simscaleai_jax.rl.evaluator import evaluate_policy
    from simscaleai_jax.sim.factory import make_functional_env

    env = make_functional_env(name, **settings)
    return evaluate_policy(env, policy, _config(options, env.config)) | {"dt": env.config.dt}


def _on_host(name: str, settings: dict[str, Any], policy: Any, options: EvalOptions) -> dict[str, float]:
    from simscaleai_jax.rl.evaluator import evaluate_policy
    from simscaleai_jax.sim.factory import make_env

    env = make_env(name, render_mode="human" if options.render else None, **settings)
    config = _config(options, env.unwrapped.config)
    config.on_host = True
    try:
        return evaluate_policy(env, policy, config) | {"dt": options.host_dt}
    finally:
        env.close()


def film(name: str, settings: dict[str, Any], policy: Any, options: EvalOptions) -> None:
    """Plays the first episodes of the host's evaluation once more in front of a camera."""
    from simscaleai_jax.rl.evaluator import evaluate_policy
    from simscaleai_jax.sim.factory import make_env

    env = make_env(name, "rgb_array", **settings)
    config = _config(options, env.unwrapped.config)
    config.save_videos, config.n_episodes = True, min(config.max_videos, config.n_episodes)
    config.on_host = True
    try:
        evaluate_policy(env, policy, config)
    finally:
        env.close()


def _config(options: EvalOptions, env_config: Any) -> Any:
    from simscaleai_jax.rl.evaluator import EvalConfig

    steps = options.max_steps or env_config.max_episode_steps
    return EvalConfig(options.n_episodes, steps, render=options.render, video_dir=options.video_dir, seed=options.seed)
