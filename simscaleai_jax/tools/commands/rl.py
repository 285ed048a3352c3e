"""`simscale rl`: train a policy with PPO."""

import contextlib
import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from simscaleai_jax.core import paths
from simscaleai_jax.core.runs.trackers import LogConfig
from simscaleai_jax.rl.ppo.config import PPOConfig
from simscaleai_jax.tools.arguments import parse
from simscaleai_jax.tools.distribution import DistributionOptions
from simscaleai_jax.tools.env_options import EnvOptions
from simscaleai_jax.tools.films import evaluate_filmed, filming_folder
from simscaleai_jax.tools.names import Names
from simscaleai_jax.tools.output import print_table

DESCRIPTION = """Train a policy with PPO, thousands of environments at once.

The run's folder (--output) gets checkpoints, metrics.jsonl, metrics.csv, run.json with the whole configuration, and
learning_curve.png; `simscale eval` takes it as it is. The same command continues a run that was stopped. A preset's
name may come first, or a YAML file with --config; options on the command line win over it. Settings of the task (of
PickPlaceConfig or ReachConfig) go by their names: --env.task.NAME VALUE.

Examples:
  simscale rl                                                     a short run on reach
  simscale rl ppo_reach --ppo.seed 1                              a published run with another seed
  simscale rl ppo_reach --total-steps 1000000                     go on with it for longer
  srun simscale rl ppo_reach --distributed                        starts, and continues when restarted
  simscale rl --env-name reach --env.dt 0.005 --ppo.num-envs 1024 --ppo.n-steps 16384
  simscale rl --env-name pick_place --env.task.curriculum-share 0.5 --env.task.area-low 0.45 -0.1
  simscale rl --env.xml-path arm.xml --env.randomization light"""

BEST_OVER = 10  # updates whose episodes judge a checkpoint
PEER_SECONDS = 60  # after which a process that does not answer counts as lost
DEFAULT_CAMERAS, DEFAULT_IMAGE_SIZE = ("wrist_cam",), 64
MAY_CHANGE = (
    "ppo.lr", "ppo.total_timesteps", "ppo.log_every", "ppo.updates_per_dispatch", "ppo.num_devices", "log.*",
    "num_checkpoints", "output", "resume", "config", "device", "distribution.*",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PPOOptions(PPOConfig):
    __doc__ = PPOConfig.__doc__

    total_timesteps: int = 100_000


@dataclasses.dataclass(frozen=True)
class RLOptions:
    """Options of `simscale rl`.

    Attributes:
      env_name: environment to learn (see simscale list-envs).
      output: folder of the run; default checkpoints/ppo_ENV.
      config: YAML file with any of these options; a preset's name may stand first instead.
      device: "auto", "cpu", "gpu" or "tpu".
      resume: continue the run in the folder; --no-resume refuses a folder that holds one.
      init_from: checkpoint whose weights and observation statistics a new run starts with.
      num_checkpoints: checkpoints spread over the run; the newest three and the best are kept.
      distribution: one of several processes.
      env: settings of the environment.
      ppo: settings of PPO.
      log: trackers, and lines by time.
    """

    env_name: str = "reach"
    output: Annotated[str | None, tyro.conf.arg(aliases=["--save-path"])] = None
    config: str | None = None
    device: str = "auto"
    resume: bool = True
    init_from: str | None = None
    num_checkpoints: int = 10
    distribution: Annotated[DistributionOptions, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=DistributionOptions
    )
    env: EnvOptions = dataclasses.field(default_factory=EnvOptions)
    ppo: PPOOptions = dataclasses.field(default_factory=PPOOptions)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)


DISTRIBUTION = tuple(field.name for field in dataclasses.fields(DistributionOptions))
NAMES = Names(
    kept={"lr": "ppo.lr", "total-steps": "ppo.total-timesteps", "seed": "ppo.seed", "save-path": "output"},
    old={
        name.replace("_", "-"): f"ppo.{name.replace('_', '-')}"
        for name in (field.name for field in dataclasses.fields(PPOConfig))
        if name not in ("lr", "seed")
    },
)
FILE_NAMES = Names(
    kept={"save-path": "output", **{name.replace("_", "-"): f"distribution.{name}" for name in DISTRIBUTION}}
)


def parse_options(argv: list[str]) -> RLOptions:
    """The options that the arguments say."""
    return parse(RLOptions, argv, "rl", DESCRIPTION, NAMES, FILE_NAMES)


def main(argv: list[str]) -> None:
    """Parses the options, trains, prints where everything is."""
    from simscaleai_jax.core import distributed

    options = parse_options(argv)
    try:
        options.distribution.join()
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
    from simscaleai_jax.core.runs.trackers import About, check_trackers, open_trackers
    from simscaleai_jax.rl.agents.ppo import PPOAgent
    from simscaleai_jax.rl.progress import MetricsFile

    check_trackers(options.log)
    env = make_training_env(options)
    config = ppo_config(options)
    agent = PPOAgent.for_env(env, config, options.device)
    agent.layout()  # sizes that do not divide are refused before the folder is touched
    agent.env_name = options.env_name
    folder = paths.locate(options.output or f"checkpoints/ppo_{options.env_name}")
    where, is_main = filming_folder(folder, options.log.videos), distributed.is_main()
    run = make_run(options, CheckpointSeries(folder))
    with run, contextlib.ExitStack() as stack:
        open_run(run, agent, options)
        about = About(folder, run.run_id, run.settings, agent.total_steps)
        sinks = open_trackers(options.log, about) if is_main else []
        metrics = MetricsFile(folder / "metrics.jsonl", agent.total_steps, sinks)
        stack.callback(metrics.close)
        own: list[Callable] = [metrics, _warner()] if is_main else []
        watch = stack.enter_context(preemption.PreemptionWatch())
        earlier = _plain_rates(folder / "metrics.jsonl", agent.total_steps)
        saver = _saver(run.series, config, options.num_checkpoints, watch, earlier)
        history = agent.train(env, [*own, saver, *callbacks], is_main, line_seconds=options.log.seconds)
        run.series.wait()
        distributed.barrier("finish", PEER_SECONDS)
        if agent.total_steps < config.total_timesteps:
            raise watch.stop(f"{agent.total_steps:,} steps in {folder}")
        if is_main and history:
            for path in film(env, agent, where, options.log.videos):
                metrics.video(agent.total_steps, f"videos/{path.stem}", path)
            metrics.table(agent.total_steps, "results", ("result", "value"), results(agent, history))
    if is_main:
        show(options, agent, history, folder / "metrics.jsonl")
    return history


def show(options: RLOptions, agent: Any, history: dict[str, list[float]], metrics: Any) -> None:
    """Draws the learning curve and prints the results."""
    from simscaleai_jax.rl.curves import plot_learning_curve
    from simscaleai_jax.rl.progress import read_metrics

    folder = metrics.parent
    if not history:
        print(f"Nothing to do: the run in {folder} has its {agent.total_steps:,} steps (see --total-steps).")
        return
    curve = plot_learning_curve(read_metrics(metrics), folder / "learning_curve.png", f"PPO on {options.env_name}")
    rows = [*results(agent, history), ("checkpoint", folder), ("learning curve", curve), ("metrics", metrics)]
    print_table(f"PPO on {options.env_name}", ("result", "value"), rows)


def results(agent: Any, history: dict[str, list[float]]) -> list[tuple[str, float]]:
    """Where training has ended: name and number."""
    rows = [(name, history[name][-1]) for name in ("success_rate", "episode_reward", "episode_length", "approx_kl")]
    return [*rows, ("steps in all", agent.total_steps), ("steps per second", round(history["steps_per_second"][-1]))]


def film(env: Any, agent: Any, folder: Path | None, count: int) -> list[Path]:
    """Films fresh episodes of the trained policy; none where `folder` is None (`filming_folder`)."""
    from simscaleai_jax.core.streams import Stream
    from simscaleai_jax.rl.evaluator import EvalConfig

    if folder is None:
        return []
    config = EvalConfig(count, env.functional.max_episode_steps, stream=Stream.VALIDATION)
    return evaluate_filmed(env.functional, agent.policy(), config, folder, count)[1]


def make_training_env(options: RLOptions) -> Any:
    """The batched environment that the options describe; cameras only with an image encoder."""
    from simscaleai_jax.sim.factory import make_batched_env

    size = options.env.image_size or DEFAULT_IMAGE_SIZE
    env = dataclasses.replace(options.env, cameras=options.env.cameras or DEFAULT_CAMERAS, image_size=size)
    settings = env.settings()
    if options.ppo.encoder == "none":
        settings["cameras"] = []
    return make_batched_env(options.env_name, **settings)


def make_run(options: RLOptions, series: Any) -> Any:
    """The run that the options describe, in the folder of `series`."""
    from simscaleai_jax.core.runs.folder import RunFolder, RunRules, flat_settings

    rules = RunRules(MAY_CHANGE, ("init_from",), "take another --output")
    settings = flat_settings(options) | {"output": str(series.folder)}
    for name in ("env.xml_path", "init_from"):
        settings[name] = settings[name] and str(paths.locate(settings[name]))

    def of_checkpoint(manifest: Any) -> dict[str, Any]:
        known = {f"ppo.{name}": value for name, value in manifest.config.items()}
        return known | ({"env_name": manifest.env["name"]} if manifest.env.get("name") else {})

    return RunFolder(series, "ppo", settings, rules, of_checkpoint)


def open_run(run: Any, agent: Any, options: RLOptions) -> None:
    """Goes on with the run in the folder, or starts one, from the weights of `init_from` where that is given."""
    newest = run.open(options.resume)
    if newest is not None:
        agent.load(str(newest))
    elif options.init_from is not None:
        agent.load_weights(options.init_from)
    run.record(agent.total_steps)


def _plain_rates(metrics: Any, total_steps: int) -> list[float]:
    """plain_success_rate of the updates that a continued run has behind it."""
    from simscaleai_jax.rl.progress import read_metrics

    rows = read_metrics(metrics)
    return [
        rate
        for steps, rate in zip(rows.get("total_steps", ()), rows.get("plain_success_rate", ()), strict=True)
        if steps <= total_steps
    ]


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


def _saver(
    series: Any, config: PPOConfig, count: int, watch: Any, earlier: Sequence[float] = ()
) -> Callable[[Any, dict[str, float]], bool]:
    """A callback that saves `count` checkpoints over the run, the last one at its end or when a signal ends it.

    The best one is that whose latest BEST_OVER updates have the best mean `plain_success_rate`: a curriculum's eased
    starts say nothing about the task, and one update's episodes are too few. Less than a point between two is chance:
    then the newer one is the best. `earlier`: the rates of a continued run.
    """
    import math

    from simscaleai_jax.rl.ppo.storage import make_manifest

    due = {math.ceil(config.num_updates * (i + 1) / max(count, 1)) * config.n_steps for i in range(max(count, 1))}
    passed: set[int] = set()
    recent = deque(earlier, BEST_OVER)

    def save(agent: Any, row: dict[str, float]) -> bool:
        passed.update(steps for steps in due if steps <= row["total_steps"])
        recent.append(row["plain_success_rate"])
        is_current = int(row["total_steps"]) == agent.total_steps  # the state is that of the end of the dispatch
        is_stopped = is_current and watch.is_requested()
        if is_current and (passed or is_stopped):
            passed.clear()
            due.difference_update([steps for steps in due if steps <= agent.total_steps])
            known = [success for success in recent if math.isfinite(success)]
            metric = round(sum(known) / len(known), 2) if known else None
            series.save(agent.total_steps, agent.state, make_manifest(agent), metric)
        return not is_stopped

    return save
