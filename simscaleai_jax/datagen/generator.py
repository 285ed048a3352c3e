"""`generate_dataset`: rollouts on the device to complete, resumable HDF5 files."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from simscaleai_jax.core.config import to_dict
from simscaleai_jax.core.demonstrations import DemonstrationFile, split_masks
from simscaleai_jax.core.streams import check_seed
from simscaleai_jax.datagen.files.shards import Shard, check_same_settings, plan_shards
from simscaleai_jax.datagen.files.writer import remove_parts
from simscaleai_jax.datagen.identity import check_env_name, physics_settings
from simscaleai_jax.datagen.language import draw_instruction
from simscaleai_jax.datagen.noise import NoiseConfig
from simscaleai_jax.datagen.policies import POLICY_TYPES

GYM_TYPE = 2  # robomimic's number for environments behind the gym API
CHUNK_STEPS = 8  # an ended episode stands still for half of them on average; a refill costs about one
PART_BYTES = 64 * 2**20
MAX_PART_EPISODES = 64
DEFAULT_NUM_ENVS = 256
SCRIPTED = "scripted"
ProgressFn = Callable[[int, int], None]  # (episodes done, episodes wanted)


def generate_dataset(
    env_name: str = "reach",
    n_episodes: int = 100,
    output_path: str = "data/dataset.h5",
    policy_type: str = "random",
    domain_randomization: bool = True,
    max_steps: int = 200,
    seed: int = 42,
    *,
    num_envs: int | None = None,
    dt: float | None = None,
    cameras: Sequence[Any] = (),
    only_success: bool = False,
    shards: int | None = None,
    noise: NoiseConfig | None = None,
    with_next_obs: bool = False,
    valid_fraction: float = 0.1,
    policy: Callable[..., Any] | None = None,
    policy_name: str = "",
    policy_digest: str = "",
    expert: Callable[..., Any] | str | None = None,
    expert_name: str = "",
    env: Any = None,
    env_options: Mapping[str, Any] | None = None,
    progress_fn: ProgressFn | None = None,
) -> dict[str, Any]:
    """Plays `n_episodes` episodes and writes them as demonstrations (layout: `core.demonstrations.layout`).

    The result depends on the settings and the seed alone, not on `shards`; nor on `num_envs`, but for the last bits of
    the physics, where XLA may compile another batch size to code that rounds differently. A run that was interrupted is
    continued by the same call; a finished one is left as it is and its statistics are returned again.

    Args:
      policy_type: "random", "scripted", or "policy" with `policy(obs, key) -> action` and a `policy_name` to record, by
        which a rerun tells its files from another policy's.
      policy_digest: tells policies of one name apart: `identity.checkpoint_digest(path)` notices further training.
      num_envs: episodes played at a time, rounded up to a multiple of 16.
      dt: physics step in seconds, the environment's own by default.
      cameras: `CameraConfig`s, their dicts or names; their images are stored.
      only_success: plays an episode again, with other randomness, until it succeeds; `attempts` counts all of them.
      shards: files to split the run into, one per process or more (default: one). Merge them with `merge_files`.
      expert: "scripted", or a pure policy with an `expert_name` to record: labels the states that `policy` reaches,
        whose own actions are kept as what was executed (DAgger). None: who acts labels.
      noise: disturbs what is executed; the labels stay clean. with_next_obs: also store what followed each action.
      valid_fraction: share of the episodes in mask "valid"; the others are in mask "train".
      env: a functional environment to use instead of building `env_name` (the options above then come from it); one
        that is none of the registered tasks needs a name of its own.
      env_options: further options of `make_functional_env`.
      progress_fn: called with (episodes done, episodes wanted).

    Returns:
      total_episodes, total_steps, mean_episode_length, mean_reward (mean sum of rewards of an episode), success_rate,
      output_path, file_size_mb; also attempts, attempt_success_rate and paths (the files of this process).

    Raises:
      ValueError: a bad option, or files of another run in the way.
      OSError: the folder cannot be written or is full; nothing is left under the final name.
    """
    check_options(n_episodes, policy_type, max_steps, num_envs, valid_fraction)
    seed = check_seed(seed)
    if policy is not None and not (policy_name or policy_digest):
        raise ValueError("policy= needs a policy_name or policy_digest: a rerun tells files apart by them.")
    labelling = _labelling(expert, expert_name)
    own = _own_shards(output_path, n_episodes, shards)
    if env is None:
        env = _build_env(env_name, domain_randomization, max_steps, dt, cameras, env_options or {})
    else:
        check_env_name(env, env_name)
    acting = {"policy_type": policy_type, "policy_name": policy_name, "policy_digest": policy_digest} | labelling
    settings = _settings(env, env_name, n_episodes, acting, seed, only_success, noise, with_next_obs, valid_fraction)
    _make_missing(own, settings, env, policy, expert if callable(expert) else None, noise, num_envs, progress_fn)
    return dataset_summary([shard.path for shard in own], output_path)


def dataset_summary(paths: Sequence[Path], output_path: str | Path) -> dict[str, Any]:
    """The documented statistics, from the attributes of complete files."""
    attributes = [DemonstrationFile(path).attributes for path in paths]
    episodes, steps, attempts, successes = (
        sum(int(a[name]) for a in attributes) for name in ("num_episodes", "total", "attempts", "successes")
    )
    return {
        "total_episodes": episodes,
        "total_steps": steps,
        "mean_episode_length": steps / episodes,
        "mean_reward": sum(a["mean_return"] * a["num_episodes"] for a in attributes) / episodes,
        "success_rate": successes / episodes,
        "output_path": str(output_path),
        "file_size_mb": sum(path.stat().st_size for path in paths) / 2**20,
        "attempts": attempts,
        "attempt_success_rate": successes / attempts,
        "paths": [str(path) for path in paths],
    }


def check_options(
    n_episodes: int, policy_type: str, max_steps: int, num_envs: int | None, valid_fraction: float
) -> None:
    """Raises a ValueError for an option out of range, before anything is built."""
    from simscaleai_jax.core.errors import unknown_name

    if policy_type not in POLICY_TYPES:
        raise unknown_name("policy_type", policy_type, POLICY_TYPES)
    for name, value in (("n_episodes", n_episodes), ("max_steps", max_steps), ("num_envs", num_envs)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    if not 0.0 <= valid_fraction < 1.0:
        raise ValueError(f"valid_fraction must lie in [0, 1), got {valid_fraction}.")


def file_attributes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of group `data` that robomimic and our readers look for."""
    env_args = {"env_name": settings["env_name"], "type": GYM_TYPE, "env_kwargs": settings["env_kwargs"]}
    return {
        "env_args": json.dumps(env_args),
        "seed": settings["seed"] if settings["seed"] < 2**63 else str(settings["seed"]),  # HDF5 has 64 bits
        "policy_type": settings["policy_type"],
        "domain_randomization": bool(settings["env_kwargs"].get("domain_randomization", False)),
    }


def json_values(config: Any) -> dict[str, Any]:
    """A config dataclass as plain values, the way they look after a JSON round trip."""
    return json.loads(json.dumps(to_dict(config)))


def instruction(settings: Mapping[str, Any], episode: int) -> str:
    """The instruction of one episode of a run."""
    return draw_instruction(settings["env_name"], settings["seed"], episode)


def _labelling(expert: Callable[..., Any] | str | None, name: str) -> dict[str, str]:
    """What a file records of who labels it, where that is not who acts."""
    from simscaleai_jax.core.errors import unknown_name

    if isinstance(expert, str) and expert != SCRIPTED:
        raise unknown_name("expert", expert, (SCRIPTED,))
    if callable(expert) and not name:
        raise ValueError("expert= needs an expert_name: a rerun tells files apart by it.")
    return {} if expert is None else {"expert": name or SCRIPTED}


def _own_shards(output_path: str | Path, n_episodes: int, shards: int | None) -> list[Shard]:
    """The files that this process makes; a ValueError where some process would have none."""
    import jax

    processes = jax.process_count()
    num_shards = processes if shards is None else shards
    if num_shards < processes:
        raise ValueError(f"shards must be at least the number of processes, {processes}, got {num_shards}.")
    plan = plan_shards(output_path, n_episodes, num_shards)
    return [shard for shard in plan if shard.index % processes == jax.process_index()]


def _settings(
    env: Any,
    env_name: str,
    n_episodes: int,
    acting: Mapping[str, str],
    seed: int,
    only_success: bool,
    noise: NoiseConfig | None,
    with_next_obs: bool,
    valid_fraction: float,
) -> dict[str, Any]:
    """Everything that the data depend on, as it is recorded in the files."""
    return {
        "env_name": env_name,
        "env_kwargs": json_values(env.config),
        **physics_settings(env),
        "n_episodes": n_episodes,
        **acting,
        "seed": seed,
        "only_success": only_success,
        "noise": None if noise is None else dataclasses.asdict(noise),
        "with_next_obs": with_next_obs,
        "valid_fraction": valid_fraction,
    }


def _make_missing(
    own: Sequence[Shard],
    settings: Mapping[str, Any],
    env: Any,
    policy: Callable[..., Any] | None,
    expert: Callable[..., Any] | None,
    noise: NoiseConfig | None,
    num_envs: int | None,
    progress_fn: ProgressFn | None,
) -> None:
    """Makes those of the files that are not there yet."""
    missing = [shard for shard in own if not _is_finished(shard, settings)]
    for shard in own:
        if shard not in missing:
            remove_parts(shard)
    if not missing:
        return
    from simscaleai_jax.datagen.run import Run

    slots = num_envs or min(DEFAULT_NUM_ENVS, settings["n_episodes"])
    run = Run(env, settings["env_name"], settings, policy, noise, slots, progress_fn, expert)
    run.make(missing, split_masks(settings["n_episodes"], settings["seed"], settings["valid_fraction"]))


def _build_env(
    env_name: str,
    domain_randomization: bool,
    max_steps: int,
    dt: float | None,
    cameras: Sequence[Any],
    options: Mapping,
) -> Any:
    from simscaleai_jax.sim.factory import make_functional_env

    chosen = {} if dt is None else {"dt": dt}
    chosen |= {"domain_randomization": domain_randomization, "max_episode_steps": max_steps, "cameras": list(cameras)}
    return make_functional_env(env_name, **{**chosen, **options})


def _is_finished(shard: Shard, settings: Mapping[str, Any]) -> bool:
    """Whether the shard is there and whole; refuses to overwrite a file of another run."""
    if not shard.path.exists():
        return False
    advice = "Choose another output path, or delete it first."
    try:
        file = DemonstrationFile(shard.path)
    except ValueError as error:
        raise ValueError(f"{shard.path} exists and is not a data set of this run ({error}). {advice}") from error
    stored = file.attributes.get("settings", {}) if file.layout == "simscaleai" else {}  # an export is not the original
    check_same_settings(str(shard.path), stored, settings, advice)
    return True
