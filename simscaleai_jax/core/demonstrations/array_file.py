"""A file of plain arrays that are mapped into memory: data first, a JSON footer that says where everything lies last.

    "SSARRAYS" | array | array | ... | footer (JSON) | length of the footer (8 bytes, little endian) | "SSARRAYS"

Arrays start at multiples of 64 bytes and may be appended in pieces, so that a table larger than memory can be written.
A file that was cut has no footer and is refused.
"""

import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MAGIC = b"SSARRAYS"
ALIGNMENT = 64
TAIL = struct.Struct("<Q8s")


class ArrayWriter:
    """Appends arrays to an open binary file; `finish` makes it readable."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.entries: dict[str, dict[str, Any]] = {}
        self.open_array = ""
        self.position = file.write(MAGIC)

    def append(self, name: str, rows: np.ndarray) -> None:
        """Adds rows to the array `name`; the pieces of one array follow each other.

        Raises:
          ValueError: another array was begun meanwhile, or pieces differ in their row shape or dtype.
        """
        rows = np.ascontiguousarray(rows)
        described = {"dtype": rows.dtype.str, "row": list(rows.shape[1:])}
        if name not in self.entries:
            self._write(bytes(-self.position % ALIGNMENT))
            self.entries[name] = described | {"offset": self.position, "length": 0}
            self.open_array = name
        entry = self.entries[name]
        if name != self.open_array or entry | described != entry:
            raise ValueError(f"Array {name!r} is {entry}; cannot append rows {described} after {self.open_array!r}.")
        self._write(rows.data.cast("B") if rows.size else b"")
        entry["length"] += len(rows)

    def finish(self, meta: dict[str, Any]) -> None:
        """Writes the footer, with `meta` (JSON values) in it, and flushes."""
        footer = json.dumps({"arrays": self.entries, "meta": meta}).encode()
        self._write(footer)
        self._write(TAIL.pack(len(footer), MAGIC))
        self.file.flush()

    def _write(self, content: Any) -> None:
        view = memoryview(content)
        while view.nbytes:  # an unbuffered file may take less
            taken = self.file.write(view)
            view = view[taken:]
            self.position += taken


def read_footer(path: Path) -> dict[str, Any]:
    """The footer: {"arrays", "meta"}.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is cut or something else.
    """
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        if size >= len(MAGIC) + TAIL.size:
            file.seek(size - TAIL.size)
            length, magic = TAIL.unpack(file.read(TAIL.size))
            start = size - TAIL.size - length
            if magic == MAGIC and start >= len(MAGIC):
                file.seek(start)
                return json.loads(file.read(length))
    raise ValueError(f"{path} is cut, or no file of arrays ({size} bytes).")


def map_array(path: Path, entry: dict[str, Any]) -> np.ndarray:
    """A read-only view of one array of the footer on the mapped file."""
    shape = (entry["length"], *entry["row"])
    if not all(shape):
        return np.zeros(shape, entry["dtype"])
    return np.memmap(path, entry["dtype"], "r", entry["offset"], shape).view(np.ndarray)
