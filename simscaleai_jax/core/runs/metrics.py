"""A run's numbers as files: metrics.jsonl, and the same rows as metrics.csv."""

import csv
import io
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simscaleai_jax.core import paths

JSONL, CSV = "metrics.jsonl", "metrics.csv"
UPLOAD_SECONDS = 30.0  # between two writes into an object store, where nothing can be appended
Row = dict[str, float]


class MetricsFiles:
    """Both files in a run's folder; columns of the CSV grow when a new number appears."""

    def __init__(self, folder: str | Path, step_name: str = "step") -> None:
        """Names the files; nothing is touched before `truncate` or `append`."""
        folder = paths.locate(folder)
        self.jsonl, self.csv = folder / JSONL, folder / CSV
        self._step_name = step_name
        self._columns: list[str] = []
        self._is_remote = paths.is_remote(folder)
        self._rows: list[Row] = []  # kept for object stores only
        self._uploaded = 0.0

    def truncate(self, step: float) -> None:
        """Keeps rows up to `step`: a run that was killed has written some after its last checkpoint."""
        rows = [row for row in read_rows(self.jsonl) if row[self._step_name] <= step]
        self.jsonl.parent.mkdir(parents=True, exist_ok=True)
        paths.write_whole(self.jsonl, "".join(_json_line(row) for row in rows))
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        self._rows = rows if self._is_remote else []
        self._rewrite_csv(rows)

    def append(self, row: Row) -> None:
        """Adds a row to both files (in an object store every now and then: see `close`)."""
        new = [name for name in row if name not in self._columns]
        self._columns += new
        if self._is_remote:
            self._rows.append(row)
            if time.monotonic() - self._uploaded > UPLOAD_SECONDS:
                self._upload()
            return
        with self.jsonl.open("a") as file:
            file.write(_json_line(row))
        if new:
            self._rewrite_csv(read_rows(self.jsonl))
            return
        with self.csv.open("a", newline="") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(row)

    def close(self) -> None:
        """Writes what is not written yet."""
        if self._is_remote and self._rows:
            self._upload()

    def _upload(self) -> None:
        self.jsonl.write_text("".join(_json_line(row) for row in self._rows))
        self._rewrite_csv(self._rows)
        self._uploaded = time.monotonic()

    def _rewrite_csv(self, rows: list[Row]) -> None:
        content = io.StringIO(newline="")
        writer = csv.DictWriter(content, self._columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        paths.write_whole(self.csv, content.getvalue())


def read_rows(path: str | Path) -> list[Row]:
    """Rows of a metrics.jsonl, NaN for null; a last line that was cut is left out."""
    rows, path = [], paths.locate(path)
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append({name: math.nan if value is None else value for name, value in json.loads(line).items()})
        except json.JSONDecodeError:
            break
    return rows


def _json_line(row: Mapping[str, Any]) -> str:
    return json.dumps({name: value if math.isfinite(value) else None for name, value in row.items()}) + "\n"
