"""Videos of a LeRobot data set: the frames of many episodes, one after the other, in an mp4 file for each camera.

ffmpeg (which imageio-ffmpeg brings) encodes and decodes as a process of its own, so that it works beside us. Every
second frame is a key frame and none refers to a later one: readers jump to single frames.
"""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.datagen.formats.lerobot_parquet import place

FILE_MB = 200  # of a video file
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
PIXELS = "yuv420p"
CODECS = {
    "h264": ["-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-bf", "0", "-g", "2"],
    "av1": ["-c:v", "libsvtav1", "-preset", "10", "-crf", "24", "-g", "2", "-svtav1-params", "pred-struct=1"],
}


class VideoWriter:
    """Appends episodes to the videos of one camera.

    Args:
      folder: of the data set. feature: name of the camera's feature. shape: (H, W, 3). fps: frames per second.
      codec: a name of CODECS.

    Raises:
      ValueError: an unknown codec, or a side that is odd.
    """

    def __init__(self, folder: Path, feature: str, shape: list[int], fps: int, codec: str) -> None:
        if codec not in CODECS:
            raise unknown_name("codec", codec, CODECS)
        if shape[0] % 2 or shape[1] % 2:
            raise ValueError(f"{feature} is {shape[0]}x{shape[1]}; videos need even sides, so store it as png.")
        self.folder, self.feature, self.shape, self.fps, self.codec = folder, feature, shape, fps, codec
        self._process: subprocess.Popen | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._number, self._frames = -1, 0

    def add(self, frames: np.ndarray) -> dict[str, float]:
        """Appends (T, H, W, 3) uint8 and says where that is, as columns of meta/episodes.

        Raises:
          OSError: ffmpeg has stopped; the message is its own.
        """
        if self._process is None or self._path().stat().st_size > FILE_MB * 2**20:
            self.close()
            self._open()
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(np.ascontiguousarray(frames).data)
        except BrokenPipeError:
            raise self._failure() from None
        first, self._frames = self._frames, self._frames + len(frames)
        chunk, file = place(self._number)
        found = {"chunk_index": chunk, "file_index": file}
        found |= {"from_timestamp": first / self.fps, "to_timestamp": self._frames / self.fps}
        return {f"videos/{self.feature}/{name}": value for name, value in found.items()}

    def close(self) -> None:
        """Completes the file that is open.

        Raises:
          OSError: ffmpeg could not.
        """
        if self._process is None:
            return
        process, self._process = self._process, None
        process.communicate()
        if process.returncode:
            raise self._failure()

    def abandon(self) -> None:
        """Ends ffmpeg where the data set is given up."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        self._errors.close()

    def info(self) -> dict[str, Any]:
        """What meta/info.json says of the videos."""
        height, width, channels = self.shape
        sizes = {"video.height": height, "video.width": width, "video.codec": self.codec, "video.pix_fmt": PIXELS}
        rate = {"video.fps": self.fps, "video.channels": channels}
        return sizes | rate | {"has_audio": False, "is_depth_map": False}

    def _path(self) -> Path:
        chunk, file = place(self._number)
        return self.folder / VIDEO_PATH.format(video_key=self.feature, chunk_index=chunk, file_index=file)

    def _open(self) -> None:
        self._number, self._frames = self._number + 1, 0
        path = self._path()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # its size is asked for before ffmpeg has begun
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{self.shape[1]}x{self.shape[0]}", "-r", str(self.fps)]
        command = [*_ffmpeg(), "-y", *source, "-i", "-", *CODECS[self.codec], "-pix_fmt", PIXELS, str(path)]
        environment = {**os.environ, "SVT_LOG": "1"}  # errors alone
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=self._errors, stderr=self._errors, env=environment
        )

    def _failure(self) -> OSError:
        self._errors.seek(0)
        return OSError(f"ffmpeg could not write {self._path().name}: {_last_line(self._errors.read())}")


class VideoReader:
    """Reads the frames of a video in their order.

    Args:
      path: the file. height, width: of its frames.
    """

    def __init__(self, path: Path, height: int, width: int) -> None:
        self.path, self.shape = path, (height, width, 3)
        self.position = 0
        sizes = ["-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-f", "rawvideo", "-fps_mode", "passthrough"]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [*_ffmpeg(), "-i", str(path), *sizes, "-"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip

    def read(self, first: int, count: int) -> np.ndarray:
        """(count, H, W, 3) uint8 from frame `first` on, which lies at the reader's position or later.

        Raises:
          ValueError: an earlier frame, or the video is shorter or cannot be read.
        """
        if first < self.position:
            raise ValueError(f"{self.path}: frame {first} was asked for after frame {self.position - 1}.")
        assert self._process.stdout is not None
        size = int(np.prod(self.shape))
        while self.position < first:
            self._take(size)
        return np.frombuffer(self._take(count * size, count), np.uint8).reshape(count, *self.shape)

    def close(self) -> None:
        """Ends ffmpeg."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _take(self, size: int, count: int = 1) -> bytes:
        assert self._process.stdout is not None
        content = self._process.stdout.read(size)
        if len(content) < size:
            self._errors.seek(0)
            reason = _last_line(self._errors.read()) or "it is shorter than meta/episodes says"
            raise ValueError(f"{self.path} cannot be read from frame {self.position} on: {reason}.")
        self.position += count
        return content


class Videos:
    """The videos of a data set, read from front to back: one is open for each camera."""

    def __init__(self, source: Path, info: dict[str, Any], features: list[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.source, self.info = source, info
        self.open: dict[str, VideoReader] = {}
        self.places: dict[int, dict[str, Any]] = {}
        if features:
            names = [f"videos/{f}/{n}" for f in features for n in ("chunk_index", "file_index", "from_timestamp")]
            paths = sorted((source / "meta" / "episodes").glob("*/*.parquet"))
            table = pa.concat_tables([pq.read_table(path, columns=["episode_index", *names]) for path in paths])
            self.places = {row["episode_index"]: row for row in table.to_pylist()}

    def read(self, feature: str, number: int, length: int) -> np.ndarray:
        """(length, H, W, 3) uint8: the frames of an episode."""
        row = self.places[number]
        chunk, file, start = (row[f"videos/{feature}/{n}"] for n in ("chunk_index", "file_index", "from_timestamp"))
        name = self.info["video_path"].format(video_key=feature, chunk_index=chunk, file_index=file)
        reader = self.open.get(feature)
        if reader is None or reader.path != self.source / name:
            if reader is not None:
                reader.close()
            reader = self.open[feature] = VideoReader(self.source / name, *_height_width(self.info, feature))
        return reader.read(round(start * self.info["fps"]), length)

    def close(self) -> None:
        """Ends all readers."""
        for reader in self.open.values():
            reader.close()


def _height_width(info: dict[str, Any], feature: str) -> tuple[int, int]:
    shape, names = info["features"][feature]["shape"], info["features"][feature].get("names") or [""]
    height, width = shape[1:] if str(names[0]).startswith("channel") else shape[:2]
    return int(height), int(width)


def _ffmpeg() -> list[str]:
    import imageio_ffmpeg

    return [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error"]


def _last_line(content: bytes) -> str:
    lines = content.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
