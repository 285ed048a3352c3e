"""`simscale rl`: train a policy with PPO."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from simscaleai_jax.rl.ppo.config import PPOConfig
from simscaleai_jax.tools.arguments import given, parse, print_table

DESCRIPTION = """Train a policy with PPO, thousands of environments at once.

The run's folder (--save-path) gets checkpoints, metrics.jsonl and learning_curve.png; `simscale eval` takes it as it
is. Every option may stand in a YAML file given with --config; options on the command line win over it. Settings of
the task (of PickPlaceConfig or ReachConfig) go by their names: --env.task.NAME VALUE.

Examples:
  simscale rl                                                     a short run on reach
  simscale rl --config configs/ppo_reach.yaml --seed 1            a published run with another seed
  simscale rl --config configs/ppo_reach.yaml --resume --total-steps 1000000    go on with it for longer
  srun simscale rl --distributed --resume --config configs/ppo_reach.yaml       starts, and continues when restarted
  simscale rl --env-name reach --env.dt 0.005 --num-envs 1024 --n-steps 16384
  simscale rl --env-name pick_place --env.task.curriculum-share 0.5 --env.task.area-low 0.45 -0.1
  simscale rl --env.xml-path arm.xml --env.randomization light"""

PEER_SECONDS = 60  # after which a process that does not answer counts as lost


@dataclasses.dataclass(frozen=True)
class PPOOptions(PPOConfig):
    __doc__ = PPOConfig.__doc__

    total_timesteps: Annotated[int, tyro.conf.arg(name="total-steps")] = 100_000


@dataclasses.dataclass(frozen=True)
class EnvOptions:
    """Settings of the environment; left out, the environment's own defaults hold.

    Attributes:
      dt: seconds per physics step.
      control_dt: seconds per control step.
      max_episode_steps: time limit in control steps.
      robot: another arm (see simscale list-robots).
      controller: how actions are read: "cartesian", "cartesian_position", "joint_position" or "joint_delta".
      xml_path: your own MJCF file in place of the environment's scene (see docs/custom_mjcf.md).
      domain_randomization: draw a new model for every episode.
      randomization: how much of it: "light", "default" or "heavy"; naming one turns domain_randomization on, unless
        that is set as well.
      impl: physics engine: "auto", "c", "jax" or "warp" (see docs/engines.md).
      cameras: cameras whose images --encoder cnn sees.
      image_size: side of those images in pixels.
      image_fov: their vertical field of view in degrees.
      task: settings of the task, by the names in PickPlaceConfig or ReachConfig: --env.task.NAME VALUE.
    """

    dt: float | None = None
    control_dt: float | None = None
    max_episode_steps: int | None = None
    robot: str | None = None
    controller: str | None = None
    xml_path: str | None = None
    domain_randomization: bool | None = None
    randomization: str | None = None
    impl: str | None = None
    cameras: tuple[str, ...] = ("wrist_cam",)
    image_size: int = 64
    image_fov: float = 60.0
    task: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class RLOptions:
    """Options of `simscale rl`.

    Attributes:
      env_name: environment to learn (see simscale list-envs).
      save_path: folder of the run, without another run in it unless --resume; default checkpoints/ppo_ENV.
      config: YAML file with any of these options.
      device: "auto", "cpu", "gpu" or "tpu".
      resume: go on with the newest checkpoint in the run's folder; where there is none yet, start.
      num_checkpoints: checkpoints spread over the run; the newest three and the best are kept.
      distributed: one of several processes; found out by itself on TPU pods, Slurm, Kubernetes and under launch.
      coordinator: "host:port" of process 0, where it is not.
      num_processes, process_id: likewise.
      backend: how CPUs exchange data: "gloo" or "mpi".
      env: settings of the environment.
      ppo: settings of PPO.
    """

    env_name: str = "reach"
    save_path: str | None = None
    config: str | None = None
    device: str = "auto"
    resume: bool = False
    num_checkpoints: int = 10
    distributed: bool = False
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    backend: str = "auto"
    env: EnvOptions = EnvOptions()
    ppo: Annotated[PPOOptions, tyro.conf.arg(name="")] = PPOOptions()


def main(argv: list[str]) -> None:
    """Parses the options, trains, prints where everything is."""
    from simscaleai_jax.core import distributed

    options = parse(RLOptions, argv, "rl", DESCRIPTION)
    try:
        if options.distributed:
            joined = (options.coordinator, options.num_processes, options.process_id)
            distributed.initialize(*joined, backend=options.backend)
        with distributed.peer_errors():
            train(options)
    except distributed.PeerLostError as error:
        distributed.leave_broken_run(error)


def ppo_config(options: RLOptions) -> PPOConfig:
    """The settings of PPO among the options."""
    return PPOConfig(**{field.name: getattr(options.ppo, field.name) for field in dataclasses.fields(PPOConfig)})


def train(options: RLOptions, callbacks: Sequence[Callable] = ()) -> dict[str, list[float]]:
    """Trains and writes the run's folder; returns the history of this call. `callbacks` as in `PPOAgent.train`."""
    from simscaleai_jax.core import distributed, preemption
    from simscaleai_jax.core.checkpoint_series import CheckpointSeries
    from simscaleai_jax.rl.agents.ppo import PPOAgent
    from simscaleai_jax.rl.curves import plot_learning_curve
    from simscaleai_jax.rl.progress import MetricsFile, read_metrics

    env = make_training_env(options)
    config = ppo_config(options)
    agent = PPOAgent.for_env(env, config, options.device)
    agent.layout()  # sizes that do not divide are refused before the folder is touched
    agent.env_record = {"name": options.env_name}
    folder = Path(options.save_path or f"checkpoints/ppo_{options.env_name}")
    is_main = distributed.is_main()
    _open_run(agent, folder, options.resume)
    with CheckpointSeries(folder) as series, preemption.PreemptionWatch() as watch:
        saver = _saver(series, config, options.num_checkpoints, watch)
        metrics = MetricsFile(folder / "metrics.jsonl", agent.total_steps) if is_main else None
        own = [metrics, _warner(), saver] if metrics else [saver]
        history = agent.train(env, callbacks=[*own, *callbacks], progress=is_main)
    distributed.barrier("finish", PEER_SECONDS)
    if agent.total_steps < config.num_updates * config.n_steps:
        raise preemption.stop(f"{agent.total_steps:,} steps in {folder}", "with --resume ")
    if metrics is None:
        return history
    if not history:
        print(f"Nothing to do: the run in {folder} has its {config.total_timesteps:,} steps (see --total-steps).")
        return history
    curve = plot_learning_curve(read_metrics(metrics.path), folder / "learning_curve.png", f"PPO on {options.env_name}")
    rows = [(name, history[name][-1]) for name in ("success_rate", "episode_reward", "episode_length", "approx_kl")]
    rows += [("steps in all", agent.total_steps), ("steps per second", round(history["steps_per_second"][-1]))]
    rows += [("checkpoint", folder), ("learning curve", curve), ("metrics", metrics.path)]
    print_table(f"PPO on {options.env_name}", ("result", "value"), rows)
    return history


def make_training_env(options: RLOptions) -> Any:
    """The batched environment that the options describe; cameras only with an image encoder."""
    from simscaleai_jax.sim.config import CameraConfig
    from simscaleai_jax.sim.factory import make_batched_env

    settings = given(dataclasses.asdict(options.env))
    if not settings["task"]:
        del settings["task"]
    if "randomization" in settings:
        settings.setdefault("domain_randomization", True)
    names, side, fov = (settings.pop(key) for key in ("cameras", "image_size", "image_fov"))
    cameras = [CameraConfig(name, side, side, fov) for name in names] if options.ppo.encoder != "none" else []
    return make_batched_env(options.env_name, cameras=cameras, **settings)


def _open_run(agent: Any, folder: Path, is_resumed: bool) -> None:
    """Loads the newest checkpoint, if any, with --resume; without it, refuses a folder that has checkpoints."""
    from simscaleai_jax.core import distributed
    from simscaleai_jax.core.checkpoint_series import CheckpointSeries

    latest = None
    if distributed.is_main() and folder.is_dir():
        with CheckpointSeries(folder) as series:
            latest = series.latest()
    step = distributed.agree(-1 if latest is None else int(latest.name.removeprefix("step_")))
    if step >= 0 and is_resumed:
        agent.load(str(folder / f"step_{step:09d}"))
    elif is_resumed and distributed.is_main():
        print(f"simscale rl: --resume finds no complete checkpoint in {folder}: a new run starts.", file=sys.stderr)
    elif step >= 0:
        raise ValueError(f"{folder} holds a run of {step:,} steps; go on with --resume or take another --save-path.")


def _warner() -> Callable[[Any, dict[str, float]], None]:
    """A callback that says once that a full buffer has cost contacts."""
    warned: list[float] = []

    def warn(agent: Any, row: dict[str, float]) -> None:
        if row["overflow_count"] > 0 and not warned:
            warned.append(row["total_steps"])
            print(
                f"simscale rl: {row['overflow_count']:,.0f} of the {agent.config.n_steps:,} steps of an update lost "
                "contacts, because a buffer of the physics was full (overflow_count in metrics.jsonl).",
                file=sys.stderr,
            )

    return warn


def _saver(series: Any, config: PPOConfig, count: int, watch: Any) -> Callable[[Any, dict[str, float]], bool]:
    """A callback that saves `count` checkpoints over the run, the last one at its end or when SIGTERM ends it."""
    import math

    from simscaleai_jax.rl.ppo.storage import make_manifest

    due = {math.ceil(config.num_updates * (i + 1) / max(count, 1)) * config.n_steps for i in range(max(count, 1))}
    passed: set[int] = set()

    def save(agent: Any, row: dict[str, float]) -> bool:
        passed.update(steps for steps in due if steps <= row["total_steps"])
        is_current = int(row["total_steps"]) == agent.total_steps  # the state is that of the end of the dispatch
        is_stopped = is_current and watch.is_requested()
        if is_current and (passed or is_stopped):
            passed.clear()
            due.difference_update([steps for steps in due if steps <= agent.total_steps])
            success = row["plain_success_rate"]  # a curriculum's eased starts say nothing about the task
            metric = success if math.isfinite(success) else None
            series.save(agent.total_steps, agent.state, make_manifest(agent), metric)
        return not is_stopped

    return save
