"""How commands read their options: a dataclass, a YAML file under it, and flags over it."""

import dataclasses
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import tyro

from simscaleai_jax.core.config import apply_overrides, from_dict, read_yaml
from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.tools.names import Names

STAGES = ("datagen", "train", "dagger", "eval")  # commands that a recipe runs, in turn
OPTIONAL = ("dagger",)  # those that it may do without

# What a data file's environment settings say about the world that its episodes were played in. Left out are `seed`,
# `impl` and `renderer`, which say how it was computed, and `domain_randomization`: a policy that learned from
# randomized episodes is judged on the nominal model, unless somebody asks for more; `randomization` then holds their
# ranges.
WORLD_SETTINGS = (
    "xml_path", "robot", "controller", "dt", "control_dt", "max_episode_steps", "cameras", "task", "randomization",
)  # fmt: skip


def parse[T](
    cls: type[T],
    argv: Sequence[str],
    command: str,
    description: str,
    names: Names | None = None,
    file_names: Names | None = None,
) -> T:
    """Fills the dataclass `cls` from its defaults, then a preset or the file named by `--config`, then the options.

    A field `settings: dict[str, Any]` takes any name as `--settings.NAME VALUE`, the value as YAML reads it.

    Args:
      cls: the options; a field `config` means that files and presets are taken.
      argv: what follows the command; may begin with a preset's name.
      command: its name.
      description: for `--help`.
      names: other names of the options. file_names: the same in files, where they differ.
    Raises:
      FileNotFoundError, ValueError: the file is missing or holds a key that `cls` does not have, there is no such
        preset, or a value is no YAML.
      SystemExit: what tyro does after `--help` or a wrong option.
    """
    names = names or Names()
    argv = names.in_arguments(with_preset(argv, cls), command)
    path = config_path(argv)
    default = None
    if path is not None:
        values = (file_names or names).in_mapping(read_options(path, command), path)
        default = from_dict(cls, values, where=f"{path}: ")
    argv, named = take_named(argv, open_fields(cls))
    if named:
        default = apply_overrides(cls() if default is None else default, named)
    filled = tyro.cli(cls, args=argv, default=default, prog=f"simscale {command}", description=description)
    return cast(T, filled)


def with_preset(argv: Sequence[str], cls: type) -> list[str]:
    """`argv` with a leading preset's name as `--config` and its file.

    Raises:
      ValueError: there is no preset of that name; the nearest one is named.
    """
    takes_presets = any(field.name == "config" for field in dataclasses.fields(cls))
    if not takes_presets or not argv or argv[0].startswith("-"):
        return list(argv)
    known = presets()
    name = argv[0].removesuffix(".yaml")
    if name not in known:
        raise unknown_name("preset", argv[0], known)
    return ["--config", str(known[name]), *argv[1:]]


def read_options(path: str | Path, command: str) -> dict[str, Any]:
    """What a file says to a command; of a recipe (`simscale recipe`), its part.

    Raises:
      FileNotFoundError, ValueError: there is no such file, it is no YAML, or a recipe that says nothing to the command.
    """
    said = read_yaml(path)
    if not is_recipe(said):
        return said
    if command not in said:
        raise ValueError(f"{path} is a recipe for {', '.join(STAGES)} and says nothing to `simscale {command}`.")
    return said[command]


def is_recipe(said: Mapping[str, Any]) -> bool:
    """Whether a file's content has the parts of a recipe, and nothing else."""
    return set(STAGES) - set(OPTIONAL) <= set(said) <= set(STAGES) and all(
        isinstance(part, Mapping) for part in said.values()
    )


def presets() -> dict[str, Path]:
    """The files of options that ship with the package, recipes among them: name -> file."""
    folder = Path(__file__).parents[1] / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def open_fields(cls: type, prefix: str = "") -> Iterator[str]:
    """Dotted names of the fields of `cls`, and of those within it, that hold settings by any name."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from open_fields(hint, f"{prefix}{field.name}.")
        elif typing.get_origin(hint) is dict:
            yield prefix + field.name


def take_named(argv: Sequence[str], fields: Iterable[str]) -> tuple[list[str], dict[str, Any]]:
    """Takes `--FIELD.NAME VALUE...` out of the arguments: (the others, "FIELD.NAME" -> value).

    Several values make a list; none means yes, or no for `--FIELD.no-NAME`.

    Raises:
      ValueError: a value that YAML cannot read.
    """
    rest: list[str] = []
    taken: dict[str, list[str]] = {}
    prefixes = tuple(f"--{field}." for field in fields)
    into = rest
    for argument in argv:
        if argument.startswith(prefixes):
            name, is_joined, value = argument.removeprefix("--").partition("=")
            into = taken[name] = [value] if is_joined else []
        elif into is not rest and not re.match(r"-(?![\d.])", argument):
            into.append(argument)
        else:
            into = rest
            rest.append(argument)
    return rest, dict(_named_value(name, values) for name, values in taken.items())


def _named_value(path: str, values: Sequence[str]) -> tuple[str, Any]:
    import yaml

    field, _, name = path.rpartition(".")
    name = name.replace("-", "_")
    if not values:
        return f"{field}.{name.removeprefix('no_')}", not name.startswith("no_")
    try:
        read = [yaml.safe_load(value) for value in values]
    except yaml.YAMLError:
        raise ValueError(f"--{path} {' '.join(values)}: wanted numbers, words or a list as in YAML.") from None
    return f"{field}.{name}", read[0] if len(read) == 1 else read


def config_path(argv: Sequence[str]) -> str | None:
    """The value of `--config` in `--config PATH` or `--config=PATH`."""
    for i, argument in enumerate(argv):
        if argument == "--config" and i + 1 < len(argv):
            return argv[i + 1]
        if argument.startswith("--config="):
            return argument.partition("=")[2]
    return None


def recorded_env(record: Mapping[str, Any], chosen: str | None) -> tuple[str, dict[str, Any]]:
    """Name and settings of the environment that a checkpoint belongs to; none of its settings for another one.

    The physics engine that it was trained on is left out: whatever this machine has plays it.

    Args:
      record: the manifest's `env`.
      chosen: the value of --env-name.
    Raises:
      ValueError: neither names an environment.
    """
    recorded = record.get("name")
    name = chosen or recorded
    if not name:
        raise ValueError("The checkpoint names no environment; give --env-name.")
    settings = dict(record.get("config") or {}) if recorded in (None, name) else {}
    settings.pop("impl", None)
    return name, settings


def demonstrated_env(attributes: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Name (None where the file does not say) and settings of the environment that a data file was recorded in.

    Args:
      attributes: of the file, as `DemonstrationFile.attributes`.
    """
    env_args = attributes.get("env_args", {})
    if not isinstance(env_args, Mapping):
        return None, {}
    settings = env_args.get("env_kwargs") or {}
    return env_args.get("env_name"), {name: settings[name] for name in WORLD_SETTINGS if name in settings}


def check_scene_file(settings: Mapping[str, Any], dataset: str | Path) -> None:
    """Raises a FileNotFoundError where the scene that `dataset` was recorded in is a file that is not there."""
    path = settings.get("xml_path")
    if path and not Path(path).is_file():
        raise FileNotFoundError(
            f"{dataset} was recorded in the scene {path!r}, and there is no such file; put it there, or start from the "
            "folder that this path belongs to."
        )


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}
