"""Writes a Minari data set (HDF5) from a demonstration file of any layout that we read, through Minari's own storage.

Minari wants one observation more than actions: the last one is repeated where the file has no `next_obs`. Pictures are
stored as they are. Instruction and success are metadata of each episode.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.datagen.formats.lerobot_features import env_entry
from simscaleai_jax.registration import spec_of

NAME = re.compile(r"[\w-]+?-v\d+$")


def export_minari(source: str | Path, output: str | Path) -> Path:
    """Exports one data set.

        minari.MinariDataset(OUTPUT / "data")   # from anywhere
        minari.load_dataset("expert-v0")        # where OUTPUT is expert-v0 in the folder of Minari's data sets

    Args:
      source: a demonstration file.
      output: a folder NAME-vN, which is the data set's id, that does not exist yet; it appears complete or not at all.

    Raises:
      ImportError: Minari is missing.
      ValueError: the folder exists, or its name ends with no version.
    """
    storage_cls = _storage_class()
    output = Path(output)
    if output.exists():
        raise ValueError(f"{output} exists; delete it first or choose another name.")
    if not NAME.match(output.name):
        raise ValueError(f"Minari's data sets are called NAME-vN (expert-v0), got {output.name!r}.")
    demos = DemonstrationFile(source)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        temporary = Path(folder) / output.name
        temporary.mkdir()
        _write(demos, storage_cls, temporary / "data", output.name)
        os.replace(temporary, output)
    return output


def _write(demos: DemonstrationFile, storage_cls: Any, path: Path, name: str) -> None:
    import minari

    env = env_entry(demos)
    spec = spec_of(env["env_name"], {"cameras": []} | env["env_kwargs"] | {"impl": "auto"})
    spaces = {"observation_space": _observation_space(demos), "action_space": _action_space(demos)}
    storage = storage_cls.new(path, **spaces, env_spec=spec, data_format="hdf5", jpeg_encoding=False)
    storage.update_metadata(
        {
            "dataset_id": name,
            "minari_version": minari.__version__,
            "algorithm_name": str(demos.attributes.get("policy_type", "unknown")),
            "description": f"Demonstrations of {env['env_name'] or 'an unnamed environment'} in simulation.",
            "requirements": ["simscaleai-jax"],
        }
    )
    storage.update_episodes(_episodes(demos))
    known = ({"language": demos.language(i), "success": demos.success(i)} for i in range(len(demos.names)))
    storage.update_episode_metadata([{key: value for key, value in row.items() if value is not None} for row in known])


def _episodes(demos: DemonstrationFile) -> Iterator[Any]:
    from minari.data_collector import EpisodeBuffer

    for index, length in enumerate(demos.lengths.tolist()):
        rewards = demos.read(index, "rewards") if "rewards" in demos.specs else np.zeros(length, np.float32)
        is_last = np.arange(length) == length - 1
        is_terminated = bool(demos.group(index).attrs.get("terminated", demos.success(index)))
        yield EpisodeBuffer(
            observations={key: _with_next(demos, index, key) for key in demos.obs_keys},
            actions=demos.read(index, "actions"),  # pyright: ignore[reportArgumentType]
            rewards=rewards,  # pyright: ignore[reportArgumentType]
            terminations=is_last & is_terminated,  # pyright: ignore[reportArgumentType]
            truncations=is_last & (not is_terminated),  # pyright: ignore[reportArgumentType]
        )


def _with_next(demos: DemonstrationFile, index: int, key: str) -> np.ndarray:
    """(T + 1, ...) observations."""
    obs = demos.read(index, f"obs/{key}")
    last = demos.read(index, f"next_obs/{key}")[-1:] if f"next_obs/{key}" in demos.specs else obs[-1:]
    return np.concatenate([obs, last])


def _observation_space(demos: DemonstrationFile) -> Any:
    from gymnasium import spaces

    boxes: dict[str, spaces.Space] = {}
    for key in demos.obs_keys:
        shape, dtype = demos.specs[f"obs/{key}"]
        is_picture = dtype == np.uint8
        low, high = (0, 255) if is_picture else (-np.inf, np.inf)
        boxes[key] = spaces.Box(low, high, shape, np.uint8 if is_picture else np.float32)
    return spaces.Dict(boxes)


def _action_space(demos: DemonstrationFile) -> Any:
    from gymnasium import spaces

    return spaces.Box(-1.0, 1.0, demos.specs["actions"][0], np.float32)


def _storage_class() -> Any:
    try:
        import minari.dataset._storages.hdf5_storage  # noqa: F401
        from minari.dataset.minari_storage import MinariStorage
    except ImportError as error:
        raise ImportError("Minari's format needs Minari: pip install 'simscaleai-jax[minari]'.") from error
    return MinariStorage
