"""Joins the shards of a run into one file, the same that an unsharded run would have written."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simscaleai_jax.core.demonstrations import DemonstrationFile, demo_name, split_masks
from simscaleai_jax.datagen.files.assemble import assemble, publish
from simscaleai_jax.datagen.files.disk import check_room, explain
from simscaleai_jax.datagen.files.locks import LOCK_FILE, lock_folder
from simscaleai_jax.datagen.files.shards import Shard, check_same_settings, missing_numbers

OWN_ATTRIBUTES = ("total", "format_version", "first_episode", "num_episodes", "complete", "shard")
SUMMARY_ATTRIBUTES = ("mean_return", "successes", "attempts")


def merge_files(paths: Sequence[str | Path], output_path: str | Path, link: bool = False) -> Path:
    """Writes one complete file from all shards of one run.

    Args:
      paths: the shards, in any order.
      output_path: must not exist yet.
      link: store links instead of copies: instant and small, but the shards must stay in place.

    Raises:
      ValueError: shards are missing (the first missing episode is named), belong to different runs or overlap, or the
        output exists.
      ExpectedError: another process is writing the output.
      OSError: it cannot be written; nothing is left under the final name.
    """
    output = Path(output_path)
    if not paths:
        raise ValueError("No files to merge.")
    try:
        folder = Shard(output, 0, 0).parts_folder
        held = lock_folder(folder, output)
        try:
            if output.exists():
                raise ValueError(f"{output} exists; delete it first or choose another name.")
            _merge([Path(path) for path in paths], output, link)
        finally:
            _remove_lock(folder)
            os.close(held)
    except OSError as error:
        raise explain(error, output) from error
    return output


def _merge(paths: Sequence[Path], output: Path, link: bool) -> None:
    facts = sorted((_shard_facts(path) for path in paths), key=lambda shard: shard["first_episode"])
    settings = _common_settings(facts)
    numbers = [number for shard in facts for number in shard["numbers"]]
    wanted = int(settings["n_episodes"])
    if len(set(numbers)) != len(numbers):
        raise ValueError(
            f"The files overlap: {len(numbers) - len(set(numbers))} episodes are in more than one of them."
        )
    missing = missing_numbers(numbers, 0, wanted)
    if missing:
        raise ValueError(f"{demo_name(missing[0])} is missing: the files hold {len(numbers)} of {wanted} episodes.")
    masks = split_masks(wanted, int(settings["seed"]), float(settings["valid_fraction"]))
    sources = [shard["path"] for shard in facts]
    check_room(output.parent, 0 if link else sum(path.stat().st_size for path in sources))
    temporary = output.with_name(f".{output.name}.merging")  # beside it: links are relative
    assemble(temporary, sources, list(range(wanted)), facts[0]["attributes"], masks, link)
    publish(temporary, output)


def _shard_facts(path: Path) -> dict[str, Any]:
    """What merging has to know of a shard; it is closed again, because there may be more shards than open files."""
    file = DemonstrationFile(path)
    stored = file.holder.attrs
    facts = {
        "path": path,
        "settings": file.attributes.get("settings"),
        "first_episode": file.attributes.get("first_episode", 0),
        "numbers": [int(name.rpartition("_")[2]) for name in file.names],
        "attributes": {n: stored[n] for n in stored if n not in (*OWN_ATTRIBUTES, *SUMMARY_ATTRIBUTES)},
    }
    file.close()
    return facts


def _common_settings(facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    for shard in facts:
        if shard["settings"] is None:
            raise ValueError(
                f"{shard['path']} is not a file of generate_dataset; only the shards of one run can be merged."
            )
        advice = "Only the shards of one run can be merged."
        check_same_settings(str(shard["path"]), shard["settings"], facts[0]["settings"], advice)
    return facts[0]["settings"]


def _remove_lock(folder: Path) -> None:
    """Removes the folder if nothing but the lock is in it: parts of an unfinished run of that name stay."""
    if [entry.name for entry in folder.iterdir()] == [LOCK_FILE]:
        shutil.rmtree(folder, ignore_errors=True)
