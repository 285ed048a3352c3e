"""The two file formats of torch weights. torch itself is needed for .pt only.

`.safetensors`: float32 tensors, string metadata model_name, model_kwargs (JSON), step, format_version, and of a policy
statistics, policy (what acting needs, see `acting`) and manifest (the checkpoint's), all JSON.
`.pt`: a plain dict {"model_state_dict", "model_name", "model_kwargs", "step"}, loadable with weights_only=True, and the
same further entries.
"""

import dataclasses
import json
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FORMAT_VERSION = 1
EXTRAS = ("statistics", "policy", "manifest")
SUFFIXES = {".safetensors": "safetensors", ".pt": "pt", ".pth": "pt"}


@dataclasses.dataclass(frozen=True)
class TorchRecord:
    """What a file of torch weights holds.

    Attributes:
      state_dict: torch name -> float32 array in torch's layout.
      model_name: "bc", "vla", "actor_critic", or a head's name; "" where the file does not say.
      model_kwargs: constructor arguments.
      step: training steps done.
      statistics: name -> list of numbers, {} without any.
      policy: acting record (`acting`), {} for a bare module.
      manifest: fields of the checkpoint's manifest, {} for a bare module.
    """

    state_dict: dict[str, np.ndarray]
    model_name: str
    model_kwargs: dict[str, Any]
    step: int = 0
    statistics: dict[str, Any] = dataclasses.field(default_factory=dict)
    policy: dict[str, Any] = dataclasses.field(default_factory=dict)
    manifest: dict[str, Any] = dataclasses.field(default_factory=dict)

    def extras(self) -> dict[str, Any]:
        """The entries beyond the documented ones that this record has."""
        return {name: value for name in EXTRAS if (value := getattr(self, name))}


def file_format(path: str | Path, given: str | None = None) -> str:
    """ "safetensors" or "pt", as given or by the suffix; a ValueError names the choices."""
    chosen = given or SUFFIXES.get(Path(path).suffix, "")
    if chosen not in ("safetensors", "pt"):
        raise ValueError(f"Unknown format {given or Path(path).suffix!r} of {path}. Available: safetensors, pt.")
    return chosen


def write(path: str | Path, record: TorchRecord, format: str | None = None) -> Path:
    """Writes a record and returns the path, under which there is a whole file or what was there before."""
    write_fn = _write_safetensors if file_format(path, format) == "safetensors" else _write_pt
    return write_whole(path, lambda temporary: write_fn(temporary, record))


def write_whole(path: str | Path, write_fn: Callable[[Path], Any]) -> Path:
    """`write_fn` writes under a temporary name; under `path` there is a whole file or what was there before."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        write_fn(temporary)
        os.replace(temporary, path)
    return path


def read(path: str | Path) -> TorchRecord:
    """Reads a record.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a file of weights, or one of a later format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Torch weights {str(path)!r} do not exist.")
    return _read_safetensors(path) if file_format(path) == "safetensors" else _read_pt(path)


def import_torch_module(purpose: str) -> Any:
    """torch, or an ImportError that names the extra to install."""
    try:
        import torch
    except ImportError:
        raise ImportError(
            f"torch is needed to {purpose}: pip install 'simscaleai-jax[torch]' (.safetensors needs no torch)."
        ) from None
    return torch


def _write_safetensors(path: Path, record: TorchRecord) -> None:
    from safetensors.numpy import save_file

    save_file(record.state_dict, path, metadata=_metadata(record))


def _write_pt(path: Path, record: TorchRecord) -> None:
    torch = import_torch_module("write .pt files")
    content: dict[str, Any] = {
        "model_state_dict": {name: torch.from_numpy(value.copy()) for name, value in record.state_dict.items()},
        "model_name": record.model_name,
        "model_kwargs": record.model_kwargs,
        "step": record.step,
    }
    torch.save(content | record.extras(), path)


def _metadata(record: TorchRecord) -> dict[str, str]:
    metadata = {
        "format": "pt",
        "format_version": str(FORMAT_VERSION),
        "model_name": record.model_name,
        "model_kwargs": json.dumps(record.model_kwargs),
        "step": str(record.step),
    }
    return metadata | {name: json.dumps(value) for name, value in record.extras().items()}


def _read_safetensors(path: Path) -> TorchRecord:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}.") from None
    if int(metadata.get("format_version", FORMAT_VERSION)) > FORMAT_VERSION:
        raise ValueError(
            f"{path} has weights format {metadata['format_version']}; this version reads {FORMAT_VERSION}."
        )
    return TorchRecord(
        state_dict=tensors,
        model_name=metadata.get("model_name", ""),
        model_kwargs=json.loads(metadata.get("model_kwargs", "{}")),
        step=int(metadata.get("step", 0)),
        **{name: json.loads(metadata.get(name, "{}")) for name in EXTRAS},
    )


def _read_pt(path: Path) -> TorchRecord:
    torch = import_torch_module("read .pt files")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is not a whole .pt file of plain tensors: {reason}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; wanted a dict with 'model_state_dict'.")
    state_dict = content.get("model_state_dict", content)
    if not all(isinstance(value, torch.Tensor) for value in state_dict.values()):
        raise ValueError(f"{path} has no 'model_state_dict'; its keys are {sorted(map(str, content))}.")
    return TorchRecord(
        state_dict={name: value.float().numpy() for name, value in state_dict.items()},
        model_name=content.get("model_name", "") if state_dict is not content else "",
        model_kwargs=dict(content.get("model_kwargs", {})) if state_dict is not content else {},
        step=int(content.get("step", 0)) if state_dict is not content else 0,
        **{name: dict(content.get(name, {})) if state_dict is not content else {} for name in EXTRAS},
    )
