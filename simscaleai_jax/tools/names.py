"""Other names that options go by: documented ones, which stay, and old ones, taken with a note for a while."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Names:
    """Other names of a command's options, without the leading dashes.

    Attributes:
      kept: documented name -> today's; "env.domain-randomization=True" also says the value.
      old: the same for names that will go.
    """

    kept: Mapping[str, str] = dataclasses.field(default_factory=dict)
    old: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def known(self) -> dict[str, str]:
        """Both kinds: other name -> today's."""
        return {**self.kept, **self.old}

    def in_arguments(self, argv: Sequence[str], command: str) -> list[str]:
        """The arguments with today's names; says on stderr which old ones it met."""
        renamed: list[str] = []
        said: dict[str, str] = {}
        for argument in argv:
            name, equals, value = argument.removeprefix("--").partition("=")
            name = name.replace("_", "-")
            if not argument.startswith("--") or name not in self.known:
                renamed.append(argument)
                continue
            new, has_value, fixed = self.known[name].partition("=")
            renamed += [f"--{new}{equals}{value}"] if not has_value else [f"--{new}", fixed]
            if name in self.old:
                said[f"--{name}"] = f"--{new}"
        _say(command, said)
        return renamed

    def in_mapping(self, values: Mapping[str, Any], where: str) -> dict[str, Any]:
        """What a file says, with today's names; a name that means a group of its own stays where it holds a mapping.

        Raises:
          ValueError: two names of one setting.
        """
        values = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
        result, said = dict(values), {}
        for name, value in values.items():
            key = str(name).replace("_", "-")
            if key not in self.known or (isinstance(value, Mapping) and key in GROUPS):
                continue
            new, has_value, fixed = self.known[key].partition("=")
            del result[name]
            _put(result, new.replace("-", "_").split("."), fixed == "True" if has_value else value, f"{where}: {name}")
            if key in self.old:
                said[name] = new.replace("-", "_")
        _say(where, said)
        return result


GROUPS = ("model", "eval", "data", "log", "env", "ppo")


def _put(values: dict[str, Any], parts: list[str], value: Any, where: str) -> None:
    *parents, last = parts
    for parent in parents:
        values = values.setdefault(parent, {})
    if last in values:
        raise ValueError(f"{where} and {'.'.join(parts)} are two names of one setting; keep the latter.")
    values[last] = value


def _say(where: str, renamed: Mapping[str, str]) -> None:
    for old, new in renamed.items():
        print(f"simscale: {where}: {old} is now {new}; the old name works for a while yet.", file=sys.stderr)
