"""`simscale recipe`: demonstrations, training and evaluation in turn, from one file."""

import dataclasses
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from simscaleai_jax.core import paths
from simscaleai_jax.core.config import read_yaml, to_dict
from simscaleai_jax.core.errors import check_names, unknown_name
from simscaleai_jax.tools.arguments import STAGES, is_recipe, parse, presets
from simscaleai_jax.tools.commands import dagger, datagen, eval, train
from simscaleai_jax.tools.output import print_table

DESCRIPTION = """Make demonstrations, train on them and evaluate the policy, as a recipe says.

A recipe is a YAML file with the options of `simscale datagen`, `train`, perhaps `dagger`, and `eval`; those that ship
with simscale are listed below, and their headers say what they reach. Options of these commands may follow, with the
command's name before them. What is done is not done again: the same command goes on where it was stopped. recipe.json
in the run's folder says how long each part took.

Examples:
  simscale recipe bc_pick_place
  simscale recipe flow_pick_place --datagen.n-episodes 25 --train.max-steps 2000 --folder outputs/few
  simscale recipe my_recipe.yaml --eval.physics batched"""

RECORD = "recipe.json"


@dataclasses.dataclass(frozen=True)
class RecipeOptions:
    """Options of `simscale recipe`.

    Attributes:
      recipe: one that ships with simscale, or a YAML file.
      folder: where demonstrations and run go; default: where the recipe says.
    """

    recipe: Annotated[str, tyro.conf.Positional]
    folder: str | None = None


@dataclasses.dataclass(frozen=True)
class Stage:
    """One of the commands, ready to run.

    Attributes:
      name: of the command.
      settings: everything that it depends on.
      run: runs it, or goes on with it.
      outputs: what it leaves.
    """

    name: str
    settings: dict[str, Any]
    run: Callable[[], None]
    outputs: tuple[Path, ...]


def main(argv: list[str]) -> None:
    """Runs what is not done yet, and prints how long it took."""
    rest, given = stage_arguments(argv)
    known = "\n".join(f"  {name}" for name, path in presets().items() if is_recipe(read_yaml(path)))
    options = parse(RecipeOptions, rest, "recipe", f"{DESCRIPTION}\n\nRecipes:\n{known}")
    run(recipe_file(options.recipe), given, options.folder)


def run(recipe: Path, given: dict[str, list[str]], folder: str | None = None) -> dict[str, Any]:
    """Runs a recipe; returns its record: stage -> {"settings", "seconds", "is_done"}.

    Args:
      recipe: the file. given: stage -> arguments that win over it. folder: as the option.
    Raises:
      ValueError: something that one of the commands refuses.
    """
    stages, where = make_stages(recipe, given, folder)
    record = json.loads(where.read_text()) if where.is_file() else {}
    is_fresh = False
    for stage in stages:
        known = record.get(stage.name, {})
        is_done = known.get("is_done") and known["settings"] == stage.settings
        if is_done and not is_fresh and all(path.exists() for path in stage.outputs):
            continue
        is_fresh = True
        _run_stage(stage, record, where)
    rows = [(stage.name, f"{record[stage.name]['seconds'] / 60:.1f} min") for stage in stages]
    print_table(f"Recipe {recipe.stem}" + ("" if is_fresh else ": nothing to do"), ("part", "took"), rows)
    print(f"Results: {stages[-1].outputs[0]}")
    return record


def make_stages(recipe: Path, given: dict[str, list[str]], folder: str | None) -> tuple[list[Stage], Path]:
    """The commands of a recipe, their options checked, and the file of its record."""
    moved = _moved(folder)
    words = {name: ["--config", str(recipe), *moved[name], *given.get(name, [])] for name in ("datagen", "train")}
    making = datagen.parse_options(words["datagen"])
    wanted = ["--data.episodes", str(making.n_episodes)]
    words["train"] = [*words["train"][:2], *wanted, *words["train"][2:]]
    training = train.parse_options(words["train"])
    if paths.locate(making.output) != paths.locate(training.dataset_path):
        raise ValueError(
            f"{recipe}: datagen writes {making.output!r} and train reads {training.dataset_path!r}; wanted one file."
        )
    demos = paths.local(making.output, "A data set")
    run_folder = paths.local(training.checkpoint_dir, "The run of a recipe")
    judged, results = run_folder, run_folder / "eval.json"
    stages = [
        Stage("datagen", to_dict(making), lambda: datagen.main(words["datagen"]), (demos,)),
        Stage("train", to_dict(training), lambda: train.main(words["train"]), (run_folder / "series.json",)),
    ]
    if "dagger" in read_yaml(recipe):
        taught = [str(run_folder), *_words(recipe, "dagger", dagger.DaggerOptions, "run"), *given.get("dagger", [])]
        teaching = dagger.parse_options(taught)
        judged = dagger.round_folder(teaching, teaching.rounds)
        stages.append(Stage("dagger", to_dict(teaching), lambda: dagger.main(taught), (judged / "series.json",)))
    elif given.get("dagger"):
        raise ValueError(f"{recipe} has no part 'dagger' for {' '.join(given['dagger'])}.")
    judging = [str(judged), *_words(recipe, "eval", eval.EvalOptions, "checkpoint"), "--output", str(results)]
    judging += given.get("eval", [])
    stages.append(Stage("eval", {"arguments": judging}, lambda: eval.main(judging), (results,)))
    return [_plain(stage) for stage in stages], run_folder / RECORD


def stage_arguments(argv: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Takes `--STAGE.OPTION VALUE...` out of the arguments: (the others, stage -> its own)."""
    rest: list[str] = []
    found: dict[str, list[str]] = {name: [] for name in STAGES}
    into = rest
    for word in argv:
        match = re.match(rf"--({'|'.join(STAGES)})\.(.+)", word)
        if match:
            into = found[match[1]]
            into.append(f"--{match[2]}")
        elif into is rest or re.match(r"-(?![\d.])", word):
            into = rest
            rest.append(word)
        else:
            into.append(word)
    return rest, found


def recipe_file(name: str) -> Path:
    """The file of a recipe.

    Raises:
      FileNotFoundError, ValueError: no such file or recipe, or a file that is none; the nearest name is told.
    """
    recipes = {known: path for known, path in presets().items() if is_recipe(read_yaml(path))}
    path = recipes.get(name.removesuffix(".yaml")) or Path(name)
    if path.suffix != ".yaml":
        raise unknown_name("recipe", name, recipes)
    if not is_recipe(read_yaml(path)):
        raise ValueError(f"{path} is no recipe: wanted the parts {', '.join(STAGES)}.")
    return path


def _run_stage(stage: Stage, record: dict[str, Any], where: Path) -> None:
    """Runs a stage and keeps the record, also of one that is stopped; what comes after it counts no more."""
    before = record.get(stage.name, {})
    spent = before.get("seconds", 0.0) if before.get("settings") == stage.settings and not before["is_done"] else 0.0
    for later in STAGES[STAGES.index(stage.name) :]:
        record.pop(later, None)
    entry = record[stage.name] = {"settings": stage.settings, "seconds": spent, "is_done": False}
    start = time.time()
    try:
        stage.run()
        entry["is_done"] = True
    finally:
        entry["seconds"] = spent + time.time() - start
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(json.dumps(record, indent=1) + "\n")


def _moved(folder: str | None) -> dict[str, list[str]]:
    """Arguments that put demonstrations and run into a folder."""
    if folder is None:
        return {name: [] for name in STAGES}
    demos = f"{folder}/demos.h5"
    return {"datagen": ["--output", demos], "train": ["--dataset", demos, "--checkpoint-dir", f"{folder}/run"]}


def _plain(stage: Stage) -> Stage:
    """The stage with its settings as they look in the record."""
    return dataclasses.replace(stage, settings=json.loads(json.dumps(stage.settings, default=str)))


def _words(recipe: Path, command: str, options: type, subject: str) -> list[str]:
    """The recipe's part for a command that takes no file of options, as arguments; `subject` comes first, elsewhere."""
    said = read_yaml(recipe)[command]
    names = [field.name for field in dataclasses.fields(options) if field.name != subject]
    check_names(f"{recipe}: setting of {command}:", said, names)
    return [word for name, value in said.items() for word in (f"--{name.replace('_', '-')}", str(value))]
