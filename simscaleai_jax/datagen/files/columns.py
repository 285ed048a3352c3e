"""What a part or a shard knows about all of its episodes at once, so that assembling need not open thousands of arrays.

A part carries its columns joined, next to its episodes; a finished shard has its index. Images are in neither.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from simscaleai_jax.core.demonstrations.index import Index, open_index
from simscaleai_jax.core.demonstrations.index_builder import Piece
from simscaleai_jax.core.demonstrations.layout import H5, Episode
from simscaleai_jax.core.observations import is_image_key

COLUMNS = "columns"  # group of a part


def write_columns(file: H5, episodes: Sequence[Episode]) -> None:
    """Writes the joined columns and the summary of a part."""
    columns = file.create_group(COLUMNS)
    columns["actions"] = np.concatenate([episode.actions for episode in episodes])
    for key in episodes[0].obs:
        if not is_image_key(key):
            columns[f"obs/{key}"] = np.concatenate([episode.obs[key] for episode in episodes])
    columns["summary/success"] = np.array([episode.success for episode in episodes])
    columns["summary/attempts"] = np.array([episode.attempts for episode in episodes], np.int32)
    rewards = [episode.rewards.astype(np.float32) for episode in episodes]
    columns["summary/returns"] = np.array([values.sum(dtype=np.float64) for values in rewards])
    columns.create_dataset(
        "summary/languages", data=[episode.language for episode in episodes], dtype=h5py.string_dtype()
    )


def read_pieces(sources: Sequence[Path]) -> Iterator[Piece] | None:
    """The episodes of parts or shards, joined, one source at a time; None where a source knows nothing of itself."""
    with h5py.File(sources[0], "r") as first:
        if COLUMNS in first:
            return map(_part_piece, sources)
    if all(open_index(source) is not None for source in sources):
        return map(_shard_piece, sources)
    return None


def _part_piece(source: Path) -> Piece:
    with h5py.File(source, "r") as file:
        group: H5 = file[COLUMNS]
        summary = {name: values[()] for name, values in group["summary"].items()}
        columns = {"actions": group["actions"][()]}
        columns |= {f"obs/{key}": values[()] for key, values in group.get("obs", {}).items()}
    languages = [text.decode() for text in summary.pop("languages").tolist()]
    return Piece(columns, languages=languages, **summary)


def _shard_piece(source: Path) -> Piece:
    index = open_index(source)
    if index is None:
        raise ValueError(f"{source} was changed while it was merged.")
    return index_piece(index)


def index_piece(index: Index) -> Piece:
    """A file's episodes from its index: views."""
    columns = {key: index.rows(key, 0, len(index.table)) for key in index.columns}
    languages = index.instructions[index.languages].tolist()
    return Piece(columns, index.success, index.attempts, index.returns, languages)
