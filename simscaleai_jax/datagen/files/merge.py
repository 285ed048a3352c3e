"""Joins the shards of a run into one file, the same that an unsharded run would have written."""

import os
from collections.abc import Sequence
from pathlib import Path

from simscaleai_jax.core.demonstrations import DemonstrationFile, demo_name, split_masks
from simscaleai_jax.datagen.files.assemble import assemble
from simscaleai_jax.datagen.files.disk import check_room, explain
from simscaleai_jax.datagen.files.shards import check_same_settings, missing_numbers

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
      OSError: it cannot be written; nothing is left under the final name.
    """
    output = Path(output_path)
    if output.exists():
        raise ValueError(f"{output} exists; delete it first or choose another name.")
    if not paths:
        raise ValueError("No files to merge.")
    files = sorted(
        (DemonstrationFile(path) for path in paths), key=lambda file: file.attributes.get("first_episode", 0)
    )
    settings = _common_settings(files)
    numbers = [int(name.removeprefix("demo_")) for file in files for name in file.names]
    wanted = int(settings["n_episodes"])
    if len(set(numbers)) != len(numbers):
        raise ValueError(
            f"The files overlap: {len(numbers) - len(set(numbers))} episodes are in more than one of them."
        )
    missing = missing_numbers(numbers, 0, wanted)
    if missing:
        raise ValueError(f"{demo_name(missing[0])} is missing: the files hold {len(numbers)} of {wanted} episodes.")
    stored = files[0].file["data"].attrs
    attributes = {name: stored[name] for name in stored if name not in (*OWN_ATTRIBUTES, *SUMMARY_ATTRIBUTES)}
    masks = split_masks(wanted, int(settings["seed"]), float(settings["valid_fraction"]))
    temporary = output.with_name(output.name + ".tmp")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        check_room(output.parent, 0 if link else sum(file.path.stat().st_size for file in files))
        assemble(temporary, [file.path for file in files], list(range(wanted)), attributes, masks, link)
        os.replace(temporary, output)
    except OSError as error:
        raise explain(error, output) from error
    return output


def _common_settings(files: Sequence[DemonstrationFile]) -> dict:
    for file in files:
        if "settings" not in file.attributes:
            raise ValueError(
                f"{file.path} is not a file of generate_dataset; only the shards of one run can be merged."
            )
        advice = "Only the shards of one run can be merged."
        check_same_settings(str(file.path), file.attributes["settings"], files[0].attributes["settings"], advice)
    return files[0].attributes["settings"]
