"""Checkpoints: one directory holds everything needed to resume exactly and to rebuild the policy without flags.

    manifest.json   what it is (`Manifest`), every array's shape and dtype, every file's size and CRC32
    tree/           the arrays, written by Orbax under flat names such as "params/critic/kernel"

A directory appears under its final name only when it is complete (it is written beside it and renamed). `read_manifest`
checks that nothing is missing or cut short without importing JAX, so that a wrong path fails before anything compiles.
Saving must be called by every process; process 0 writes.
"""

import dataclasses
import json
import shutil
import uuid
import zlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from simscaleai_jax.core.config import from_dict, to_dict
from simscaleai_jax.core.errors import suggest

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
TREE = "tree"
SERIES = "series.json"  # written by checkpoint_series; read here so that a run's folder can be given for its checkpoint
LEARNED = ("params/", "ema_params/", "opt_state/")  # names of what training changes begin so
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
    path = Path(path).absolute()
    check_writable(path)
    record = manifest_record(manifest)
    from simscaleai_jax.core.flat_tree import host_arrays

    arrays = host_arrays(tree)
    check_finite(arrays)
    write_arrays(path, arrays, record)
    return path


def load(path: str | Path, target: Any = None) -> tuple[Any, Manifest]:
    """Reads a checkpoint: (tree, manifest).

    Without `target` the tree is nested dicts of NumPy arrays (PRNG keys as uint32 data). With `target`, a pytree of
    arrays or shape structs, the result has its structure, dtypes, shardings and typed keys.

    Raises:
      FileNotFoundError: nothing at `path`, or a directory without a checkpoint in it.
      ValueError: cut short, written by something else or by a later format, or other arrays than `target` wants.
    """
    path = resolve(path)
    manifest = read_manifest(path)
    arrays = _read_arrays(path)
    from simscaleai_jax.core import flat_tree

    tree = flat_tree.nest(arrays) if target is None else flat_tree.restore(arrays, target, str(path))
    return tree, manifest


def read_manifest(path: str | Path) -> Manifest:
    """Reads the manifest and checks that every file is there in its full size; needs no JAX, raises like `load`."""
    path = resolve(path)
    record = _read_record(path)
    for name, size in record["files"].items():
        file = path / name
        if not file.is_file():
            raise ValueError(f"Checkpoint {path} is incomplete: its file {name} is missing.")
        if file.stat().st_size != size:
            raise ValueError(f"Checkpoint {path} is cut short: {name} has {file.stat().st_size} bytes of {size}.")
    return from_dict(Manifest, record["manifest"], where=f"{path}: ")


def resolve(path: str | Path) -> Path:
    """The checkpoint that `path` means: itself; for the folder of a run its best, latest or newest whole one."""
    path = Path(path).absolute()
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
    return [path for path in sorted(folder.glob("step_*")) if is_complete(path)]


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


def check_finite(arrays: Mapping[str, np.ndarray]) -> None:
    """Raises a ValueError when weights or the optimizer's moments are not finite: what was saved before is better."""
    for name, array in arrays.items():
        if name.startswith(LEARNED) and array.dtype.kind != "i" and not np.isfinite(array).all():
            raise ValueError(
                f"{name!r} holds numbers that are not finite, so nothing is saved; checkpoints are from before."
            )


def manifest_record(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON values, with the versions of the installed packages.

    Raises:
      ValueError: a value that JSON cannot hold; the message names its field.
    """
    check_savable(manifest)
    return to_dict(dataclasses.replace(manifest, versions=_versions()))


def check_savable(manifest: Manifest) -> None:
    """Raises a ValueError that names what no file can keep of a manifest; called before a run is lost by it."""
    try:
        to_dict(manifest)
    except ValueError as error:
        raise ValueError(f"A checkpoint of {manifest.model_name!r} cannot be saved: {error}") from None


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], record: dict[str, Any]) -> None:
    """Writes arrays and manifest beside `path`, then renames; process 0 alone does anything."""
    import jax

    if jax.process_index() != 0:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        _write_tree(temporary / TREE, {name: array for name, array in arrays.items() if array.size})
        files = [file for file in sorted(temporary.rglob("*")) if file.is_file()]
        content = {
            "manifest": record,
            "arrays": {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in arrays.items()},
            "files": {str(file.relative_to(temporary)): file.stat().st_size for file in files},
            "crc32": {str(file.relative_to(temporary)): zlib.crc32(file.read_bytes()) for file in files},
        }
        (temporary / MANIFEST).write_text(json.dumps(content, indent=1))
        _replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _versions() -> dict[str, str]:
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
        _ = (record["files"], record["arrays"], record["crc32"])
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} was not written by this package or is cut short ({error!r}).") from None
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has checkpoint format {version}; this version reads up to {FORMAT_VERSION}. Update the package."
        )
    return record


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    import orbax.checkpoint as ocp

    record = _read_record(path)
    for name, checksum in record["crc32"].items():
        if zlib.crc32((path / name).read_bytes()) != checksum:
            raise ValueError(f"Checkpoint {path} is damaged: the contents of {name} do not match their checksum.")
    specs = record["arrays"]
    stored = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name, spec in specs.items() if 0 not in spec["shape"]}
    with _checkpointer() as checkpointer:
        arrays = checkpointer.restore(path / TREE, restore_args=stored) if stored else {}
    return {
        name: arrays[name] if name in stored else np.zeros(spec["shape"], spec["dtype"]) for name, spec in specs.items()
    }


def _write_tree(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    if not arrays:
        folder.mkdir(parents=True)
        return
    folder.parent.mkdir(parents=True)
    with _checkpointer() as checkpointer:
        checkpointer.save(folder, arrays)


def _checkpointer() -> Any:
    import jax
    import orbax.checkpoint as ocp

    process = {jax.process_index()}
    options = ocp.options.MultiprocessingOptions(primary_host=jax.process_index(), active_processes=process)
    if jax.process_count() > 1:
        options.barrier_sync_key_prefix = f"process{jax.process_index()}"
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def _replace(new: Path, path: Path) -> None:
    """Renames `new` to `path`; an earlier checkpoint there is moved aside first, put back on failure, deleted last."""
    if not path.exists():
        new.rename(path)
        return
    aside = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    path.rename(aside)
    try:
        new.rename(path)
    except OSError:
        aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)
