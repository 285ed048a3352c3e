"""Videos of the first episodes of an evaluation, in a run's folder."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simscaleai_jax.core import paths

VIDEOS = "videos"


def filming_folder(folder: str | Path, count: int) -> Path | None:
    """The run's folder where `count` (log.videos) asks for films, else None.

    Raises:
      ValueError: films are asked for, and the folder is an object store or the run has several processes.
    """
    import jax

    if not count:
        return None
    if jax.process_count() > 1:
        raise ValueError(f"log.videos={count} films in runs of one process; this one has {jax.process_count()}.")
    return paths.local(folder, "A run that is filmed (log.videos)")


def evaluate_filmed(
    env: Any, policy: Callable, config: Any, folder: Path | None, count: int
) -> tuple[dict[str, float], list[Path]]:
    """Evaluates a pure policy: (what `evaluate_policy` returns, the videos).

    Args:
      env: a functional or batched environment. policy: policy(obs, key) -> action.
      config: `EvalConfig`.
      folder: `filming_folder`; earlier videos in its folder "videos" are written over. None films nothing.
      count: episodes to film.
    """
    from simscaleai_jax.rl.evaluator import evaluate_policy

    count = 0 if folder is None else min(count, config.n_episodes)
    if folder is None or not count:
        return evaluate_policy(env, policy, config), []
    where = folder / VIDEOS
    filming = dataclasses.replace(config, save_videos=True, max_videos=count, video_dir=str(where))
    results = evaluate_policy(env, policy, filming)
    return results, [where / f"episode_{number:03d}.mp4" for number in range(count)]
