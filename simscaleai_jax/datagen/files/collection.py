"""Several data sets as one file of links: what has been gathered so far, without a copy of it."""

import os
from collections.abc import Sequence
from pathlib import Path

import h5py

from simscaleai_jax.core.demonstrations.layout import FORMAT_VERSION, demo_name
from simscaleai_jax.core.demonstrations.reader import DemonstrationFile
from simscaleai_jax.datagen.files.disk import new_hdf5

COPIED = ("env_args", "robot_type", "joint_names", "policy_type", "seed", "domain_randomization")


def collect_files(paths: Sequence[Path], output: Path) -> int:
    """Writes at `output` a data set of all episodes of `paths`, in order, as links: they must stay where they are.

    What the file says of environment and robot is what the first of them says.

    Returns:
      Its number of steps.
    Raises:
      FileNotFoundError, ValueError: a file is none of ours, or its observations or actions are others than the first's.
      OSError: it cannot be written; nothing is left under the final name.
    """
    files = [DemonstrationFile(path) for path in paths]
    for file in files:
        _check_alike(files[0], file)
    total = sum(int(file.lengths.sum()) for file in files)
    temporary = output.with_name(f".{output.name}.collecting")
    with new_hdf5(temporary, libver="latest") as (new, _):
        data = new.create_group("data", track_order=True)
        where, count = os.path.realpath(output.parent), 0
        for file in files:
            target = os.path.relpath(os.path.realpath(file.path), where)
            for name in file.names:
                data[demo_name(count)] = h5py.ExternalLink(target, f"/data/{name}")
                count += 1
        data.attrs.update({name: files[0].holder.attrs[name] for name in COPIED if name in files[0].holder.attrs})
        numbers = {"format_version": FORMAT_VERSION, "first_episode": 0, "num_episodes": count, "total": total}
        data.attrs.update(numbers | {"complete": True})
    for file in files:
        file.close()
    os.replace(temporary, output)
    return total


def _check_alike(first: DemonstrationFile, other: DemonstrationFile) -> None:
    for file in (first, other):
        if file.layout != "simscaleai":
            raise ValueError(f"{file.path} is not a file of simscale datagen; only those are collected.")
    ours, theirs = ({key: file.specs[key] for key in _keys(file)} for file in (first, other))
    if ours != theirs:
        differing = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
        raise ValueError(f"{other.path} and {first.path} differ in {', '.join(differing)}; wanted the same of both.")


def _keys(file: DemonstrationFile) -> list[str]:
    return ["actions", *(f"obs/{key}" for key in file.obs_keys)]
