"""Writes a file for robomimic's own tools from any layout that we read.

Our files are in robomimic's layout already. What differs, and what this adds: `next_obs`, which robomimic's loader
reads by default, and HDF5's oldest file format, which every HDF5 library opens.
"""

import json
import os
import tempfile
from pathlib import Path

import numpy as np

from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.core.demonstrations.layout import H5, Episode, demo_name, write_episode, write_masks
from simscaleai_jax.datagen.files.disk import explain, new_hdf5
from simscaleai_jax.datagen.files.merge import OWN_ATTRIBUTES

DEFAULTED = ("success", "terminated", "attempts", "language")  # attributes that `write_episode` always writes


def export_robomimic(source: str | Path, output: str | Path) -> Path:
    """Copies episodes, attributes and masks, with `next_obs` (the last observation follows itself where it is missing).

    Raises:
      ValueError: the output exists. OSError: it cannot be written; nothing is left under its name.
    """
    output = Path(output)
    if output.exists():
        raise ValueError(f"{output} exists; delete it first or choose another name.")
    demos = DemonstrationFile(source)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
            temporary = Path(folder) / output.name
            _write(demos, temporary)
            os.replace(temporary, output)
    except OSError as error:
        raise explain(error, output) from error
    return output


def _write(demos: DemonstrationFile, path: Path) -> None:
    with new_hdf5(path) as (file, check):
        data = file.create_group("data")
        for index in range(len(demos.names)):
            group = data.create_group(demo_name(index))
            write_episode(group, _episode(demos, index))
            _copy_attributes(demos.group(index), group, ("num_samples",))
            check()
        default = {"env_name": str(demos.attributes.get("env_name", "unknown")), "type": 2, "env_kwargs": {}}
        data.attrs["env_args"] = json.dumps(default)
        data.attrs["total"] = int(demos.lengths.sum())
        _copy_attributes(demos.holder, data, OWN_ATTRIBUTES)  # without which a file is robomimic's
        write_masks(file, {name: [demo_name(i) for i in chosen] for name, chosen in demos.masks.items()})


def _copy_attributes(source: H5, target: H5, own: tuple[str, ...]) -> None:
    """All but `own`; what the source does not say is not said: not known is not failed."""
    for name in set(DEFAULTED) & set(target.attrs) - set(source.attrs):
        del target.attrs[name]
    for name in source.attrs:
        if name not in own:
            target.attrs[name] = source.attrs[name]


def _episode(demos: DemonstrationFile, index: int) -> Episode:
    obs = {key: demos.read(index, f"obs/{key}") for key in demos.obs_keys}
    has_next = f"next_obs/{demos.obs_keys[0]}" in demos.specs
    after = {
        key: demos.read(index, f"next_obs/{key}") if has_next else np.concatenate([value[1:], value[-1:]])
        for key, value in obs.items()
    }
    has = demos.specs
    return Episode(
        obs=obs,
        actions=demos.read(index, "actions"),
        rewards=demos.read(index, "rewards") if "rewards" in has else np.zeros(int(demos.lengths[index]), np.float32),
        success=False,
        states=demos.read(index, "states") if "states" in has else None,
        actions_executed=demos.read(index, "actions_executed") if "actions_executed" in has else None,
        next_obs=after,
    )
