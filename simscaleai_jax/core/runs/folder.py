"""A run's folder belongs to one run: its whole configuration is in `run.json`, and the same command continues it.

    folder/run.json         {"kind", "id", "settings", "changes", "created", "versions"}
    folder/step_000000100/  its checkpoints (`checkpoint_series`)

A setting that differs from the recorded one is refused, with the old and the new value; the few that may change are
taken, and recorded with the step at which they did.
"""

import dataclasses
import fnmatch
import json
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Self

from simscaleai_jax.core import checkpoint, distributed, paths
from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.core.checkpoint_series import CheckpointSeries
from simscaleai_jax.core.config import init_fields, to_dict
from simscaleai_jax.core.errors import ExpectedError
from simscaleai_jax.core.flat_tree import nest

RUN = "run.json"
REFUSED = -2  # what process 0 tells the others in place of a step


@dataclasses.dataclass(frozen=True)
class RunRules:
    """What may differ when a run is started again.

    Attributes:
      may_change: settings that are taken as they are now, as patterns ("lr", "log.*").
      origins: settings that say where the run came from ("resume_from"); they may be left out later, not replaced.
      advice: how to say that another folder is wanted.
    """

    may_change: Collection[str] = ()
    origins: Collection[str] = ()
    advice: str = "choose another folder"


class RunFolder:
    """Holds a run's folder from `open` to `close`."""

    def __init__(
        self,
        series: CheckpointSeries,
        kind: str,
        settings: Mapping[str, Any],
        rules: RunRules,
        settings_of: Callable[[Manifest], Mapping[str, Any]] = lambda manifest: manifest.config,
    ) -> None:
        """Describes the run; nothing is touched yet.

        Args:
          series: its checkpoints.
          kind: "ppo", "model": runs of different kinds never share a folder.
          settings: the whole configuration, flat (`flat_settings`).
          rules: what may differ later.
          settings_of: which settings a checkpoint's manifest knows, for folders from before there was a run.json.
        """
        self.series, self.kind, self.rules = series, kind, rules
        self.settings = json.loads(json.dumps(dict(settings)))
        self.run_id = uuid.uuid4().hex[:12]
        self._settings_of = settings_of
        self._stored: dict[str, Any] = {}

    def open(self, may_continue: bool = True) -> Path | None:
        """Takes the folder and returns the newest complete checkpoint of the run in it, None for a new run.

        Every process calls it; process 0 decides.

        Args:
          may_continue: False refuses a folder that holds a run.
        Raises:
          FolderInUseError: a run is going on there.
          ValueError: the folder holds another run; the message names every setting that differs.
        """
        step, error = -1, None
        try:
            self.series.hold()
            step = self._find(may_continue) if distributed.is_main() else -1
        except (ValueError, OSError, ExpectedError) as refused:
            step, error = REFUSED, refused
        step = distributed.agree(step)
        if error is not None:
            self.series.close()
            raise error
        if step == REFUSED:
            raise ExpectedError("Process 0 has refused this run and says why.")
        return None if step < 0 else self.series.folder / f"step_{step:09d}"

    def record(self, step: int) -> dict[str, tuple[Any, Any]]:
        """Writes run.json, once the run is known to start or to go on at `step`; returns what has changed."""
        old = self._stored.get("settings", {})
        changed = differences(old, self.settings, self.rules.origins)
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        notes = [{"step": step, "time": now, "name": n, "old": a, "new": b} for n, (a, b) in changed.items()]
        kept = {name: old[name] for name in self.rules.origins if old.get(name) and not self.settings.get(name)}
        content = {
            "kind": self.kind,
            "id": self.run_id,
            "settings": self.settings | kept,
            "changes": [*self._stored.get("changes", []), *notes],
            "created": self._stored.get("created", now),
            "versions": checkpoint.installed_versions(),
        }
        if distributed.is_main():
            paths.write_whole(self.series.folder / RUN, json.dumps(content, indent=1))
        return changed

    def close(self) -> None:
        """Waits for the last checkpoint and gives the folder back."""
        self.series.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        import jax

        is_failed = kind is not None and not issubclass(kind, SystemExit | KeyboardInterrupt)
        if is_failed and jax.process_count() > 1:  # the others may be dead: nobody waits for their parts
            self.series.abandon()
        else:
            self.close()

    def _find(self, may_continue: bool) -> int:
        """The step to go on from, -1 for none; keeps what the folder says about its run."""
        newest = self.series.latest()
        if newest is None:
            return -1  # whatever was started here has left nothing to go on from
        step = int(newest.name.removeprefix("step_"))
        if not may_continue:
            raise ValueError(
                f"{self.series.folder} holds a run (its newest checkpoint is {newest.name}) and is not to be "
                f"continued; {self.rules.advice}."
            )
        self._stored = read_run(self.series.folder)
        if not self._stored:
            manifest = checkpoint.read_manifest(newest)
            self._stored = {"kind": manifest.kind, "settings": dict(self._settings_of(manifest))}
        if self._stored["kind"] != self.kind:
            raise ValueError(
                f"{self.series.folder} holds a run of kind {self._stored['kind']!r}, wanted {self.kind!r}; "
                f"{self.rules.advice}."
            )
        self._check(step)
        self.run_id = self._stored.get("id", self.run_id)
        return step

    def _check(self, step: int) -> None:
        changed = differences(self._stored["settings"], self.settings, self.rules.origins)
        refused = {name: values for name, values in changed.items() if not self._may_change(name)}
        if refused:
            listed = "; ".join(f"{name} is {old!r} there and {new!r} here" for name, (old, new) in refused.items())
            raise ValueError(
                f"{self.series.folder} holds a run of other settings, at step {step:,}: {listed}. Start it with its "
                f"own settings, or {self.rules.advice}. What may change: {', '.join(self.rules.may_change)}."
            )

    def _may_change(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.rules.may_change)


def read_run(folder: str | Path) -> dict[str, Any]:
    """What run.json says; empty where there is none.

    Raises:
      ValueError: it is damaged.
    """
    path = paths.locate(folder) / RUN
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
        _ = content["kind"], content["settings"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); delete it to go on without the check of settings.") from None
    return content


def flat_settings(config: Any, prefix: str = "") -> dict[str, Any]:
    """A config's fields by dotted names, JSON values; fields that are mappings stay whole.

    >>> flat_settings(RLOptions())["ppo.lr"]
    0.0003
    """
    flat: dict[str, Any] = {}
    values = to_dict(config)
    for name in init_fields(type(config)):
        value = getattr(config, name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            flat |= flat_settings(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = values[name]
    return flat


def nested_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that `flat_settings` has named, as nested mappings."""
    return nest(settings, ".")


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], origins: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Settings that both have, with other values: name -> (old, new). An origin that is left out is no difference."""
    return {
        name: (old[name], value)
        for name, value in new.items()
        if name in old and old[name] != value and not (name in origins and value is None)
    }
