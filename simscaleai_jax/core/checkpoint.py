"""Checkpoints: one directory holds everything needed to resume exactly and to rebuild the policy without flags.

    manifest.json   what it is (`Manifest`), every array's shape and dtype, where its parts lie, sizes and checksums
    tree/           the arrays under flat names such as "params/critic/kernel" (`checkpoint_files`)

Every process writes the parts that its devices hold, and reads those that they need, on any number of devices. A
directory appears under its final name only when it is complete (it is written beside it and renamed; in an object store
the manifest comes last). `read_manifest` checks that nothing is missing or cut short without importing JAX, so that a
wrong path fails before anything compiles. Saving must be called by every process, in the same order.
"""

import dataclasses
import json
import threading
import time
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

from simscaleai_jax.core import paths
from simscaleai_jax.core.checkpoint_files import Snapshot, open_arrays, write_part
from simscaleai_jax.core.config import from_dict, to_dict
from simscaleai_jax.core.errors import suggest

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
TREE = "tree"
SERIES = "series.json"  # written by checkpoint_series; read here so that a run's folder can be given for its checkpoint
LEARNED = ("params/", "ema_params/", "opt_state/")  # names of what training changes begin so
PART_SECONDS = 1800  # for the other processes to write theirs
PACKAGES = ("simscaleai-jax", "jax", "flax", "optax", "orbax-checkpoint", "mujoco", "mujoco-mjx", "numpy")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a checkpoint is; JSON values only.

    Attributes:
      kind: who wrote it and who reads it: "ppo" or "model".
      model_name: registered name of the module ("actor_critic", "bc", "vla").
      model_kwargs: constructor arguments that rebuild the module.
      observation_spec: observation key -> {"shape": [...], "dtype": "float32"} of one unbatched observation.
      action_spec: {"shape": [A], "dtype": "float32", "low": -1.0, "high": 1.0}.
      statistics: name -> name prefix in the tree of the normalisation statistics that belong to it.
      env: {"name": registered name or None, "config": fields of its SimConfig that differ from the defaults}.
      step: updates or optimizer steps done.
      config: the trainer's config.
      extra: anything else that its writer wants to keep.
      versions: package -> version at the time of writing.
    """

    kind: str
    model_name: str
    model_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    observation_spec: dict[str, Any] = dataclasses.field(default_factory=dict)
    action_spec: dict[str, Any] = dataclasses.field(default_factory=dict)
    statistics: dict[str, Any] = dataclasses.field(default_factory=dict)
    env: dict[str, Any] = dataclasses.field(default_factory=dict)
    step: int = 0
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    format_version: int = FORMAT_VERSION


def save(path: str | Path, tree: Any, manifest: Manifest) -> Path:
    """Writes a checkpoint and returns its absolute path; an earlier checkpoint at `path` is replaced.

    Args:
      path: directory to create.
      tree: pytree of arrays, PRNG keys and Python numbers.
      manifest: what it is; `versions` is filled in here.
    Raises:
      ValueError: `path` holds something else than a checkpoint, the manifest holds values that JSON cannot, or weights
        are not finite.
    """
    from simscaleai_jax.core import distributed, flat_tree

    path = paths.locate(path)
    check_writable(path)
    record = manifest_record(manifest)
    write(path, flat_tree.snapshot(tree), record, make_token())
    distributed.barrier("checkpoint", PART_SECONDS)
    return path


def load(path: str | Path, target: Any = None) -> tuple[Any, Manifest]:
    """Reads a checkpoint: (tree, manifest).

    Without `target` the tree is nested dicts of NumPy arrays (PRNG keys as uint32 data). With `target`, a pytree of
    arrays or shape structs, the result has its structure, dtypes, shardings and typed keys, and each process reads only
    what its devices are to hold.

    Raises:
      FileNotFoundError: nothing at `path`, or a directory without a checkpoint in it.
      ValueError: cut short, damaged, written by something else or by a later format, or other arrays than `target`
        wants.
    """
    import numpy as np

    path = resolve(path)
    arrays, manifest = open_tree(path)
    from simscaleai_jax.core import flat_tree

    if target is not None:
        return flat_tree.restore(arrays, target, str(path)), manifest
    return flat_tree.nest({name: np.asarray(array) for name, array in arrays.items()}), manifest


def open_tree(path: str | Path) -> tuple[dict[str, Any], Manifest]:
    """A checkpoint's arrays by their flat names, to be read by parts, and its manifest; raises like `load`."""
    path = resolve(path)
    manifest = read_manifest(path)
    record = _read_record(path)
    if manifest.format_version == 1:
        from simscaleai_jax.core import checkpoint_v1

        return checkpoint_v1.read_arrays(path, record, TREE), manifest
    return open_arrays(path, record), manifest


def read_manifest(path: str | Path) -> Manifest:
    """Reads the manifest and checks that every file is there in its full size; needs no JAX, raises like `load`."""
    path = resolve(path)
    record = _read_record(path)
    sizes = record.get("files") or {name: part["size"] for name, part in record["parts"].items()}
    for name, size in sizes.items():
        file = path / name
        if not file.is_file():
            raise ValueError(f"Checkpoint {path} is incomplete: its file {name} is missing.")
        if file.stat().st_size != size:
            raise ValueError(f"Checkpoint {path} is cut short: {name} has {file.stat().st_size} bytes of {size}.")
    return from_dict(Manifest, record["manifest"], where=f"{path}: ")


def resolve(path: str | Path) -> Path:
    """The checkpoint that `path` means: itself; for the folder of a run its best, latest or newest whole one."""
    path = paths.locate(path)
    if not path.exists():
        near = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FileNotFoundError(f"Checkpoint {str(path)!r} does not exist.{suggest(path.name, near)}")
    if not path.is_dir():
        raise ValueError(f"{path} is a file; a checkpoint is a directory with {MANIFEST} in it.")
    if (path / MANIFEST).is_file():
        return path
    index = read_index(path)
    named = [path / index[name] for name in ("best", "latest") if index.get(name)]
    candidates = [step for step in named if step.is_dir()] or complete_steps(path)[-1:]
    return candidates[0] if candidates else path


def is_complete(path: Path) -> bool:
    """Whether `path` is itself a checkpoint with all of its files."""
    try:
        read_manifest(path)
    except (OSError, ValueError):
        return False
    return (path / MANIFEST).is_file()


def complete_steps(folder: Path) -> list[Path]:
    """The complete checkpoints of a run's folder, oldest first; cut or foreign directories are left out."""
    found = sorted(folder.glob("step_*"), key=lambda path: (len(path.name), path.name))  # ten digits come after nine
    return [path for path in found if is_complete(path)]


def read_index(folder: Path) -> dict[str, Any]:
    """What series.json says about a run's folder; empty where it is missing or damaged."""
    try:
        index = json.loads((folder / SERIES).read_text())
    except (OSError, json.JSONDecodeError):
        return {}
    return index if isinstance(index, dict) else {}


def check_writable(path: Path) -> None:
    """Raises a ValueError when writing a checkpoint to `path` would destroy something that is not one."""
    if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).is_file():
        raise ValueError(f"{path} is not empty and holds no checkpoint; choose another path for the checkpoint.")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; a checkpoint is a directory.")


def check_finite(snapshot: Snapshot) -> None:
    """Raises a ValueError when weights or the optimizer's moments are not finite: what was saved before is better.

    Every process checks the share that it holds and writes.
    """
    import numpy as np

    for piece in snapshot.pieces:
        if piece.name.startswith(LEARNED) and piece.data.dtype.kind != "i" and not np.isfinite(piece.data).all():
            raise ValueError(
                f"{piece.name!r} holds numbers that are not finite, so nothing is saved; checkpoints are from before."
            )


def manifest_record(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON values, with the versions of the installed packages.

    Raises:
      ValueError: a value that JSON cannot hold; the message names its field.
    """
    check_savable(manifest)
    return to_dict(dataclasses.replace(manifest, versions=installed_versions()))


def check_savable(manifest: Manifest) -> None:
    """Raises a ValueError that names what no file can keep of a manifest; called before a run is lost by it."""
    try:
        to_dict(manifest)
    except ValueError as error:
        raise ValueError(f"A checkpoint of {manifest.model_name!r} cannot be saved: {error}") from None


def make_token() -> str:
    """A name for what a save leaves unfinished, the same in every process."""
    from simscaleai_jax.core import distributed

    return f"{distributed.agree(uuid.uuid4().int % 2**31):08x}"


def write(
    path: Path, snapshot: Snapshot, record: dict[str, Any], token: str, is_abandoned: threading.Event | None = None
) -> None:
    """Writes this process's part beside `path`; process 0 then waits for the others', adds the manifest and renames.

    Args:
      path: the checkpoint.
      snapshot: this process's share of the arrays.
      record: `manifest_record`.
      token: the same in every process, another one for every save.
      is_abandoned: set by another thread when a process is dead whose part would be waited for.
    Raises:
      OSError: this part, or another process's, could not be written; nothing is left under the final name.
      ValueError: weights in this part are not finite.
    """
    import jax

    index, count = jax.process_index(), jax.process_count()
    is_remote = paths.is_remote(path)
    folder = path if is_remote else path.parent / f".{path.name}.{token}.tmp"
    try:
        check_finite(snapshot)
        if is_remote and index == 0:
            (path / MANIFEST).unlink(missing_ok=True)  # what is there now is no longer whole
        (folder / TREE).mkdir(parents=True, exist_ok=True)
        part = write_part(folder / TREE / _part_name(index), snapshot.pieces) if snapshot.pieces else None
        if index:
            _tell(folder, index, token, {"part": part})
            return
        parts = [part, *(_hear(folder, other, token, is_abandoned) for other in range(1, count))]
        content = {
            "manifest": record,
            "arrays": snapshot.arrays,
            "parts": {f"{TREE}/{_part_name(i)}": part for i, part in enumerate(parts) if part},
        }
        paths.write_whole(folder / MANIFEST, json.dumps(content))
        if not is_remote:
            _replace(folder, path)
    except (OSError, ValueError) as error:
        if index:
            _tell(folder, index, token, {"error": str(error)})
        raise
    finally:
        if index == 0 and not is_remote:
            paths.remove_tree(folder)


def _part_name(index: int) -> str:
    return f"part-{index:05d}.bin"


def _tell(folder: Path, index: int, token: str, message: dict[str, Any]) -> None:
    paths.write_whole(folder / f"part-{index:05d}.{token}.json", json.dumps(message))


def _hear(folder: Path, index: int, token: str, is_abandoned: threading.Event | None) -> dict[str, Any] | None:
    """What another process has written; an OSError where it could not, or says nothing."""
    file = folder / f"part-{index:05d}.{token}.json"
    until = time.monotonic() + PART_SECONDS
    while not file.is_file():
        if time.monotonic() > until or (is_abandoned is not None and is_abandoned.is_set()):
            raise OSError(f"Process {index} did not write its part of {folder}.")
        time.sleep(0.01)
    message = json.loads(file.read_text())
    file.unlink(missing_ok=True)
    if "error" in message:
        raise OSError(f"Process {index} could not write its part of {folder}: {message['error']}")
    return message["part"]


def installed_versions() -> dict[str, str]:
    """Package -> version of what is installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _read_record(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(f"{path} holds no checkpoint: {MANIFEST} is missing. Was writing it interrupted?")
    try:
        record = json.loads(file.read_text())
        version = record["manifest"]["format_version"]
        _ = record["arrays"], record["files" if version == 1 else "parts"]
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} was not written by this package or is cut short ({error!r}).") from None
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has checkpoint format {version}; this version reads up to {FORMAT_VERSION}. Update the package."
        )
    return record


def _replace(new: Path, path: Path) -> None:
    """Renames `new` to `path`; an earlier checkpoint there is moved aside first, put back on failure, deleted last."""
    if not path.exists():
        new.rename(path)
        return
    aside = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    path.rename(aside)  # a reader that has opened its files can read them on
    try:
        new.rename(path)
    except OSError:
        aside.rename(path)
        raise
    paths.remove_tree(aside)
