"""Evaluation over whole, fresh episodes: one per slot in one jitted call for our environments, else a plain loop."""

import copy
import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from simscaleai_jax.core import compile_cache
from simscaleai_jax.core.config import settle
from simscaleai_jax.core.observations import LANGUAGE
from simscaleai_jax.core.streams import Stream, check_seed, host_seed, seed_key, substream
from simscaleai_jax.rl.play import Played, blocks, carries_plan, play

FRAMES_PER_SECOND = 20


@dataclasses.dataclass
class EvalConfig:
    """Settings of an evaluation.

    Attributes:
      n_episodes: episodes; every one counts once.
      max_steps: steps after which an episode is cut, if its own time limit does not come first.
      deterministic: passed on to a `predict_fn` that takes it.
      render: call env.render() at every step (plain loop only).
      save_videos: write the first `max_videos` episodes to `video_dir`.
      video_dir: where.
      max_videos: how many.
      seed: of the episodes, which no training run meets.
      stream: the purpose: other episodes of the same seed are played while a policy trains (`Stream.VALIDATION`).
      on_host: step the environment itself, even where its episodes could run batched on a physics engine.
      numbers: which episodes of this seed to play (plain loop only); None for 0 to n_episodes - 1.
    """

    n_episodes: int = 20
    max_steps: int = 200
    deterministic: bool = True
    render: bool = False
    save_videos: bool = False
    video_dir: str = "eval_videos"
    max_videos: int = 3
    seed: int = 0
    on_host: bool = False
    numbers: tuple[int, ...] | None = None
    stream: Stream = Stream.EVALUATION

    def __post_init__(self) -> None:
        self.seed = check_seed(self.seed, "EvalConfig.seed")
        settle(self)
        for name in ("n_episodes", "max_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"EvalConfig.{name} must be at least 1; got {getattr(self, name)}.")


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """What each of N episodes came to.

    Attributes:
      returns, lengths, successes: (N,) as in `rl.play.Played`.
      spoilt: how many were spoilt by their physics, by name.
    """

    returns: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray
    spoilt: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def summary(self) -> dict[str, float]:
        """What `evaluate_policy` returns."""
        return {
            "success_rate": float(np.mean(self.successes)),
            "mean_reward": float(np.mean(self.returns)),
            "std_reward": float(np.std(self.returns)),
            "mean_length": float(np.mean(self.lengths)),
            "min_reward": float(np.min(self.returns)),
            "max_reward": float(np.max(self.returns)),
            **self.spoilt,
        }


def evaluate_policy(env: Any, predict_fn: Callable, config: EvalConfig | None = None) -> dict[str, float]:
    """Plays whole episodes and summarizes them.

    Args:
      env: any gymnasium environment; with a pure policy also a functional, batched or vector environment of ours.
      predict_fn: `predict_fn(obs) -> action` for a plain loop, or a pure `policy(obs, key) -> action` (two required
        arguments), with which episodes of our own environments run batched on their physics engine. A pure policy that
        carries its plan (`init` and `step`, as `simscaleai_jax.policy.Policy`) executes its chunks as it was told to.
      config: settings; None for the defaults.
    Returns:
      success_rate (of episodes whose last step was a success), mean_reward, std_reward, mean_length, min_reward,
      max_reward, of undiscounted episode returns. Of episodes that ran batched also how many were spoilt by
      their physics: nan_episodes (a state was not finite) and overflow_episodes (a full buffer may have cost contacts).
    Raises:
      ValueError: a batched environment with a `predict_fn` that takes no key; or videos of what has no picture, said
        before anything is played.
    """
    return evaluate_episodes(env, predict_fn, config).summary()


def evaluate_episodes(
    env: Any, predict_fn: Callable, config: EvalConfig | None = None, told: np.ndarray | None = None
) -> Outcomes:
    """The episodes of `evaluate_policy`, each by itself; arguments and errors as there.

    `told` [N, L] are the token ids of what the policy is told in each, in place of the episode's own instruction.
    """
    config = EvalConfig() if config is None else config
    compile_cache.enable()
    is_pure = takes_key(predict_fn)
    functional = batched_env(env, predict_fn, config)
    if config.save_videos:
        _check_cameras(env if functional is None else functional)
    if functional is not None:
        videos = min(config.max_videos, config.n_episodes) if config.save_videos else 0
        played = play_episodes(functional, predict_fn, config, videos, told)
        if videos:
            _film(functional, played.physics, np.asarray(played.lengths), config)
        return outcomes(played)
    if not hasattr(env, "action_space"):
        raise ValueError("This environment is evaluated in a batch, which needs a pure policy(obs, key) -> action.")
    return _plain_episodes(env, _plain_predict(predict_fn, is_pure, config), config, told)


def takes_key(predict_fn: Callable) -> bool:
    """Whether a policy is a pure policy(obs, key): two arguments without defaults."""
    try:
        parameters = inspect.signature(predict_fn).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.default is inspect.Parameter.empty and p.kind in positional for p in parameters) == 2


def batched_env(env: Any, predict_fn: Callable, config: EvalConfig) -> Any:
    """The functional environment in which an evaluation plays its episodes all at once; None: one after the other."""
    if config.on_host or not takes_key(predict_fn):
        return None
    from simscaleai_jax.rl.ppo.envs import find_batched_env

    batched = find_batched_env(env, needs_images=True)
    return getattr(batched, "functional", None)


def episode_keys(config: EvalConfig) -> PRNGKeyArray:
    """Keys [N] of the episodes that run batched; the n-th does not depend on how many there are."""
    key = seed_key(config.seed, config.stream)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(config.n_episodes))


def play_episodes(
    env: Any, policy: Callable, config: EvalConfig, num_filmed: int = 0, told: np.ndarray | None = None
) -> Played:
    """Plays the episodes of an evaluation, thousands at a time.

    Args:
      env: a functional environment.
      policy: pure policy(obs, key) -> action; other parameters of the same policy compile nothing anew.
      config: how many episodes, how long, which.
      num_filmed: of so many episodes the physics of every step is kept.
      told: as in `play`.
    """
    steps = min(config.max_steps, env.max_episode_steps)
    params, parts = getattr(policy, "params", None), []
    for number, (keys, heard) in enumerate(blocks((episode_keys(config), told), config.n_episodes)):
        parts.append(_program(env, policy, steps, 0 if number else num_filmed)(params, keys, heard))
    if len(parts) == 1:
        return parts[0]
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(part.replace(physics=None) for part in parts))
    return whole.replace(physics=parts[0].physics)


def outcomes(played: Played) -> Outcomes:
    """Episodes that were played in a batch."""
    flags = {"nan_episodes": played.nans, "overflow_episodes": played.overflows}
    spoilt = {name: int(np.sum(values)) for name, values in flags.items()}
    return Outcomes(np.asarray(played.returns), np.asarray(played.lengths), np.asarray(played.successes), spoilt)


@functools.lru_cache(maxsize=4)
def _program(env: Any, policy: Callable, steps: int, num_filmed: int) -> Callable[..., Played]:
    """Compiled (params, keys, told) -> episodes. New parameters of one policy, as training makes, compile nothing."""

    def run(params: Any, keys: jax.Array, told: Any) -> Played:
        acting = policy
        if params is not None:
            acting = copy.copy(policy)
            acting.params = params
        return play(env, acting, keys, steps, num_filmed=num_filmed, told=told)

    return jax.jit(run)


def _check_cameras(env: Any) -> None:
    """ValueError where no frame of a video could be drawn."""
    from simscaleai_jax.sim.cameras import portrait_camera

    base = getattr(env, "unwrapped", env)
    if hasattr(base, "physics"):
        portrait_camera(base.physics.host_model)
    elif hasattr(base, "render_camera"):
        portrait_camera(base.model)
    elif getattr(env, "render_mode", None) != "rgb_array":
        raise ValueError("save_videos needs an environment made with render_mode='rgb_array'.")


def _film(env: Any, filmed: Any, lengths: np.ndarray, config: EvalConfig) -> None:
    """Writes a video of each recorded episode (leaves [T, videos, ...]) with the ray-caster."""
    from simscaleai_jax.sim.cameras import make_portrait_fn, portrait_camera
    from simscaleai_jax.sim.video import write_video

    model = env.physics.host_model
    portrait_fn = make_portrait_fn(model, portrait_camera(model))
    frame_fn = jax.jit(lambda state: portrait_fn(env.physics.kinematics(state), {}))
    for video in range(jax.tree.leaves(filmed)[0].shape[1]):
        states = [jax.tree.map(lambda leaf, t=t, v=video: leaf[t, v], filmed) for t in range(int(lengths[video]))]
        frames = [np.asarray(frame_fn(state)) for state in states]
        write_video(Path(config.video_dir) / f"episode_{video:03d}.mp4", frames, FRAMES_PER_SECOND)


def _plain_predict(predict_fn: Any, is_pure: bool, config: EvalConfig) -> Callable[[int], Callable[[Any], np.ndarray]]:
    """`begin(number) -> predict(obs)` for one episode, from predict_fn(obs), predict_fn(obs, deterministic=...), a pure
    policy(obs, key), or one that carries its plan. An episode's draws do not depend on those played before."""
    if is_pure:
        root = substream(seed_key(config.seed, config.stream), Stream.ACTIONS)

        def keys(number: int) -> Iterator[jax.Array]:
            return map(partial(jax.random.fold_in, jax.random.fold_in(root, number)), itertools.count())

        if carries_plan(predict_fn):
            return lambda number: PlannedEpisode(predict_fn, keys(number))
        acts = jax.jit(predict_fn)

        def begin(number: int) -> Callable[[Any], np.ndarray]:
            own = keys(number)
            return lambda obs: np.asarray(acts(obs, next(own)))

        return begin
    try:
        has_switch = "deterministic" in inspect.signature(predict_fn).parameters
    except (TypeError, ValueError):
        has_switch = False
    return lambda number: partial(predict_fn, deterministic=config.deterministic) if has_switch else predict_fn


class PlannedEpisode:
    """predict(obs) for one episode of a policy that carries its plan."""

    def __init__(self, policy: Any, keys: Iterator[jax.Array]) -> None:
        self.policy, self.keys, self.carry = policy, keys, policy.init()

    def __call__(self, obs: Any) -> np.ndarray:
        action, self.carry = self.policy.step(self.carry, obs, next(self.keys))
        return np.asarray(action)


def _plain_episodes(env: Any, begin: Callable, config: EvalConfig, told: np.ndarray | None) -> Outcomes:
    numbers = range(config.n_episodes) if config.numbers is None else config.numbers
    films = config.max_videos if config.save_videos else 0
    said: list[dict] = [{} if told is None else {LANGUAGE: told[i]} for i in range(len(numbers))]
    played = [
        _plain_episode(env, begin(number), config, number, i < films, said[i]) for i, number in enumerate(numbers)
    ]
    returns, lengths, successes = (np.array(column) for column in zip(*played, strict=True))
    return Outcomes(returns, lengths, successes)


def _plain_episode(
    env: Any, predict: Callable, config: EvalConfig, number: int, is_filmed: bool, said: dict[str, Any]
) -> tuple[float, int, bool]:
    obs, info = env.reset(seed=host_seed(config.seed, config.stream, number))
    total, steps, is_over = 0.0, 0, False
    frames: list[np.ndarray] = []
    while not is_over and steps < config.max_steps:
        obs, reward, terminated, truncated, info = env.step(predict({**obs, **said} if said else obs))
        total, steps, is_over = total + float(reward), steps + 1, terminated or truncated
        if is_filmed:
            frames.append(_frame(env))
        if config.render:
            env.render()
    if is_filmed:
        from simscaleai_jax.sim.video import write_video

        write_video(Path(config.video_dir) / f"episode_{number:03d}.mp4", frames, FRAMES_PER_SECOND)
    return total, steps, _success(info)


def _frame(env: Any) -> np.ndarray:
    """What the environment looks like now: its rgb_array, or the picture of its first camera."""
    if getattr(env, "render_mode", None) == "rgb_array":
        return np.asarray(env.render())
    return getattr(env, "unwrapped", env).render_camera()["rgb"]


def _success(info: Mapping[str, Any]) -> bool:
    return bool(info.get("success", info.get("is_success", False)))
