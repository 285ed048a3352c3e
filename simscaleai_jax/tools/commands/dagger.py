"""`simscale dagger`: a trained policy acts, an expert says what would have been right, and training goes on."""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from simscaleai_jax.core import paths
from simscaleai_jax.core.checkpoint import read_manifest
from simscaleai_jax.core.config import from_dict, to_dict
from simscaleai_jax.core.intervals import wilson
from simscaleai_jax.core.runs.folder import nested_settings, read_run
from simscaleai_jax.tools.arguments import demonstrated_env, parse
from simscaleai_jax.tools.commands import datagen, train
from simscaleai_jax.tools.output import print_table

DESCRIPTION = """Let an expert correct a policy that was trained on demonstrations (DAgger).

In each round the policy plays, the expert labels every state that it has reached, and training goes on from the last
weights on everything gathered so far. Environment, model and settings are those of the run. What is done is not done
again: the same command goes on where it was stopped.

Examples:
  simscale dagger checkpoints/bc_pick_place
  simscale dagger checkpoints/bc_pick_place --expert checkpoints/ppo_pick_place --rounds 8 --n-episodes 20"""

RECORD = "dagger.json"


@dataclasses.dataclass(frozen=True)
class DaggerOptions:
    """Options of `simscale dagger`.

    Attributes:
      run: folder of a run of `simscale train`.
      rounds: how often policy and expert take their turns.
      n_episodes: episodes that the policy plays in each round.
      max_steps: updates of each round.
      expert: who labels: "scripted", or a checkpoint.
      eval_episodes: fresh episodes after each round.
      output: folder of the rounds; default: "dagger" in the run's.
      seed: of the episodes that are labelled.
    """

    run: Annotated[str, tyro.conf.Positional]
    rounds: int = 5
    n_episodes: int = 50
    max_steps: int = 1000
    expert: str = "scripted"
    eval_episodes: int = 100
    output: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "n_episodes", "max_steps", "eval_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}.")


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What all rounds share.

    Attributes:
      options: of the command.
      training: of the run.
      demos: its data set.
      env_name, env_settings: where its demonstrations were made.
    """

    options: DaggerOptions
    training: train.TrainOptions
    demos: Path
    env_name: str
    env_settings: dict[str, Any]

    def run(self, number: int) -> Path:
        """The folder of a round's training."""
        return round_folder(self.options, number)

    def labels(self, number: int) -> Path:
        """What a round has labelled; of round 0, the demonstrations."""
        return self.run(number).with_suffix(".h5") if number else self.demos


def parse_options(argv: list[str]) -> DaggerOptions:
    """The options that the arguments say."""
    return parse(DaggerOptions, argv, "dagger", DESCRIPTION)


def round_folder(options: DaggerOptions, number: int) -> Path:
    """The folder of a round's training; of round 0, the run that is taught."""
    run = paths.local(options.run, "A run that is taught")
    if number == 0:
        return run
    where = run / "dagger" if options.output is None else paths.local(options.output, "The output of DAgger")
    return where / f"round_{number}"


def main(argv: list[str]) -> None:
    """Parses the options, teaches, prints a row for each round."""
    options = parse_options(argv)
    record = teach(options)
    rows = [(row["round"], row["episodes"], row["labels"], _rate(row, options.eval_episodes)) for row in record]
    print_table(f"{options.run}, taught by {options.expert}", ("round", "episodes", "labels", "success"), rows)
    print(f"Next: {shlex.join(['simscale', 'eval', str(round_folder(options, options.rounds))])}")


def teach(options: DaggerOptions) -> list[dict[str, Any]]:
    """Runs the rounds that are missing.

    Returns:
      What dagger.json records, from round 0 (the run as it was) on: {"round", "episodes" and "labels" so far,
      "success_rate"}.
    Raises:
      FileNotFoundError, ValueError: the folder holds no run of demonstrations, they are gone or say not where they were
        made, or there is no such expert; or the rounds in `output` were made otherwise.
    """
    lesson = prepare(options)
    where = lesson.run(1).parent / RECORD
    record = _known_rounds(where, _settings(options))
    for number in range(len(record), options.rounds + 1):
        record.append(_evaluated(lesson) if number == 0 else _round(lesson, number))
        where.parent.mkdir(parents=True, exist_ok=True)
        paths.write_whole(where, json.dumps({"settings": _settings(options), "rounds": record}, indent=1))
    return record[: options.rounds + 1]


def prepare(options: DaggerOptions) -> Lesson:
    """Reads the run and checks what the rounds need; raises as `teach`."""
    from simscaleai_jax.core.demonstrations import DemonstrationFile

    folder = paths.local(options.run, "A run that is taught")
    run = read_run(folder)
    if run.get("kind") != "model" or not run["settings"].get("dataset_path"):
        raise ValueError(f"{folder} holds no run of `simscale train` on demonstrations.")
    training = from_dict(train.TrainOptions, nested_settings(run["settings"]))
    demos = paths.local(training.dataset_path, "A data set")
    attributes = DemonstrationFile(demos).attributes
    name, settings = demonstrated_env(attributes)
    if name is None:
        raise ValueError(f"{demos} does not say which environment it comes from; there the policy would have to act.")
    settings["domain_randomization"] = attributes.get("domain_randomization", False)
    _check_expert(options.expert, name, settings)
    return Lesson(options, training, demos, name, settings)


def _check_expert(expert: str, env_name: str, settings: Mapping[str, Any]) -> None:
    """Raises a ValueError where the expert cannot act in the environment."""
    from simscaleai_jax.core.errors import check_names
    from simscaleai_jax.sim.factory import make_functional_env
    from simscaleai_jax.sim.registry import find_expert

    env = make_functional_env(env_name, **settings)
    if expert == datagen.SCRIPTED:
        find_expert(env_name, env.task)
        return
    needed = read_manifest(expert).observation_spec
    check_names(f"observation that the expert {expert} needs, among those of the data:", needed, env.observation_spec)


def _round(lesson: Lesson, number: int) -> dict[str, Any]:
    """Labels, training and evaluation of a round."""
    from simscaleai_jax.datagen.files.collection import collect_files

    options = lesson.options
    making = datagen.DatagenOptions(
        n_episodes=options.n_episodes,
        output=str(lesson.labels(number)),
        checkpoint=str(lesson.run(number - 1)),
        expert=options.expert,
        seed=options.seed + number,
        valid_fraction=0.0,
    )
    datagen.generate(making, lesson.env_name, dict(lesson.env_settings))
    gathered = lesson.run(number).with_name(f"all_{number}.h5")
    files = [lesson.labels(before) for before in range(number + 1)]
    if not gathered.exists():
        collect_files(files, gathered)
    numbers = train.train(
        dataclasses.replace(
            lesson.training,
            dataset_path=str(gathered),
            checkpoint_dir=str(lesson.run(number)),
            init_from=str(lesson.run(number - 1)),
            resume_from=None,
            max_steps=options.max_steps,
            warmup_steps=None,
            eval_every=options.max_steps,
            save_every=options.max_steps,
            data=dataclasses.replace(lesson.training.data, split=None),
            eval=train.TrainEvalOptions(episodes=options.eval_episodes),
        )
    )
    return _row(number, gathered, numbers["eval/success_rate"])


def _evaluated(lesson: Lesson) -> dict[str, Any]:
    """Round 0: the run as it is."""
    from simscaleai_jax.policy import load_policy

    policy = load_policy(lesson.run(0))
    env = read_manifest(lesson.run(0)).env
    results = train.make_eval_fn(env, lesson.options.eval_episodes, str(lesson.demos))(policy)
    return _row(0, lesson.demos, results["success_rate"])


def _row(number: int, gathered: Path, success_rate: float) -> dict[str, Any]:
    from simscaleai_jax.core.demonstrations import DemonstrationFile

    lengths = DemonstrationFile(gathered).lengths
    return {"round": number, "episodes": len(lengths), "labels": int(lengths.sum()), "success_rate": success_rate}


def _settings(options: DaggerOptions) -> dict[str, Any]:
    """What the rounds depend on; more of them may be asked for later."""
    return {name: value for name, value in to_dict(options).items() if name not in ("run", "rounds", "output")}


def _known_rounds(where: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    if not where.is_file():
        return []
    known = json.loads(where.read_text())
    if known["settings"] != settings:
        raise ValueError(f"{where} records rounds with {known['settings']}, here {settings}; choose another --output.")
    return known["rounds"]


def _rate(row: Mapping[str, Any], episodes: int) -> str:
    low, high = wilson(row["success_rate"], episodes)
    return f"{row['success_rate']:.3f} [{low:.3f}, {high:.3f}]"
