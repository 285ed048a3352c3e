"""The parquet files of a LeRobot data set: their columns, and files that end where they are large enough."""

import importlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from simscaleai_jax.datagen.formats.lerobot_features import Features

CHUNKS_SIZE = 1000  # files per chunk folder
FILE_MB = 100  # of a parquet file


def require_extra() -> None:
    """Raises an ImportError that names the extra to install where pyarrow or pandas is missing."""
    try:
        for name in ("pandas", "pyarrow"):
            importlib.import_module(name)
    except ImportError as error:
        message = "LeRobot data sets need pyarrow and pandas: pip install 'simscaleai-jax[lerobot]'"
        raise ImportError(message) from error


def place(number: int) -> tuple[int, int]:
    """(chunk, file) of the file of a number."""
    return number // CHUNKS_SIZE, number % CHUNKS_SIZE


class RollingWriter:
    """Writes tables one after the other, each into one file, and begins a new file where one has reached FILE_MB; to be
    closed, or used in a `with` statement.

    Args:
      folder: of the data set. path: of a file in it, with fields `chunk_index` and `file_index`.
    """

    def __init__(self, folder: Path, path: str) -> None:
        self.folder, self.path = folder, path
        self._writer: Any = None
        self._number, self._reserved = -1, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reserve(self, size: int) -> tuple[int, int]:
        """(chunk, file) of where the next table of `size` bytes goes."""
        if self._number < 0 or self._reserved + size > FILE_MB * 2**20:
            self.close()
            self._number, self._reserved = self._number + 1, 0
        self._reserved += size
        return place(self._number)

    def write(self, table: Any) -> None:
        """Writes the table as one row group to where it was reserved."""
        writer = self._writer or self._open(table.schema)
        writer.write_table(table, row_group_size=max(table.num_rows, 1))

    def close(self) -> None:
        """Completes the file that is open."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, schema: Any) -> Any:
        import pyarrow.parquet as pq

        chunk, file = place(self._number)
        path = self.folder / self.path.format(chunk_index=chunk, file_index=file)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(path, schema, compression="snappy")
        return self._writer


def frame_schema(features: Features) -> Any:
    """Columns of the data files; videos lie in files of their own."""
    import pyarrow as pa

    def column(feature: dict[str, Any]) -> Any:
        if feature["dtype"] == "image":
            return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        value = pa.bool_() if feature["dtype"] == "bool" else pa.type_for_alias(feature["dtype"])
        return value if feature["shape"] == [1] else pa.list_(value, feature["shape"][0])

    return pa.schema([(name, column(feature)) for name, feature in features.items() if feature["dtype"] != "video"])


def frame_table(columns: Mapping[str, Any], schema: Any) -> Any:
    """A table of frames: (R,) or (R, n) arrays, and of pictures lists of their PNG files."""
    import pyarrow as pa

    arrays = []
    for field in schema:
        column = columns[field.name]
        if isinstance(column, list):
            arrays.append(pa.array([{"bytes": png, "path": None} for png in column], field.type))
        elif column.ndim == 2 and column.shape[1] > 1:
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(column.ravel()), column.shape[1]))
        else:
            arrays.append(pa.array(column.ravel(), field.type))  # a vector of one component is stored as a number
    return pa.Table.from_arrays(arrays, schema=schema)


def episode_table(columns: Mapping[str, Any]) -> Any:
    """A table of episodes: (E,) numbers, (E, ...) arrays as nested lists, and lists of strings, one for each."""
    import pyarrow as pa

    arrays = {
        name: pa.array([[text] for text in column]) if isinstance(column, list) else _nested(column)
        for name, column in columns.items()
    }
    return pa.table(arrays)


def png(frame: np.ndarray) -> bytes:
    """A picture (H, W, 3) uint8 as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def matrix(column: Any) -> np.ndarray:
    """(T, n) float32 of a column of numbers or of lists of as many."""
    import pyarrow as pa

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = array if pa.types.is_primitive(array.type) else array.flatten()
    return flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(column), -1)


def _nested(column: np.ndarray) -> Any:
    """An array (E, ...) as lists of lists."""
    import pyarrow as pa

    array = pa.array(column.ravel())
    for axis in range(column.ndim - 1, 0, -1):
        count = int(np.prod(column.shape[:axis], dtype=int))
        offsets = np.arange(count + 1, dtype=np.int32) * column.shape[axis]
        array = pa.ListArray.from_arrays(pa.array(offsets), array)
    return array
