"""Videos of frames: MP4 through imageio, GIF through Pillow."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

SUFFIXES = (".mp4", ".gif")


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float = 20) -> Path:
    """Writes uint8 (H, W, 3) frames, all of one size, and returns the path written.

    The suffix chooses the format. An MP4 becomes a GIF beside it, with a warning, where no ffmpeg is to be had. Missing
    folders are made; the file appears under its name only when it is complete.

    Raises:
      ValueError: no frames, a frame of another shape or dtype, fps not positive, or a suffix other than .mp4 and .gif.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"a video's name ends in {' or '.join(SUFFIXES)}, got {path.name!r}")
    if not fps > 0:
        raise ValueError(f"fps must be positive, got {fps}")
    stack = _checked(frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".mp4":
        if _has_ffmpeg():
            return _write_whole(path, lambda part: _write_mp4(part, stack, fps))
        path = path.with_suffix(".gif")
        warnings.warn(f"no ffmpeg (pip install imageio-ffmpeg): writing {path.name}", UserWarning, stacklevel=2)
    return _write_whole(path, lambda part: _write_gif(part, stack, fps))


def _checked(frames: Iterable[np.ndarray]) -> list[np.ndarray]:
    stack = [np.asarray(frame) for frame in frames]
    if not stack:
        raise ValueError("a video needs at least one frame, got none")
    for index, frame in enumerate(stack):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
            raise ValueError(f"frame {index} must be uint8 (H, W, 3), got {frame.dtype} {frame.shape}")
        if frame.shape != stack[0].shape:
            raise ValueError(f"frame {index} has shape {frame.shape}, the first has {stack[0].shape}")
    return stack


def _has_ffmpeg() -> bool:
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return False
    return True


def _write_whole(path: Path, write) -> Path:
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _write_mp4(path: Path, frames: list[np.ndarray], fps: float) -> None:
    """H.264 in yuv420p, which every player opens; it needs even sides, so the last row or column is repeated if odd."""
    import imageio.v2 as imageio

    height, width = frames[0].shape[:2]
    pad = ((0, height % 2), (0, width % 2), (0, 0))
    quality = ["-crf", "18", "-movflags", "+faststart"]
    options = {"codec": "libx264", "quality": None, "macro_block_size": 2, "output_params": quality}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # JAX's threads, for which ffmpeg does not wait
        with imageio.get_writer(path, format="FFMPEG", fps=fps, ffmpeg_log_level="error", **options) as writer:
            for frame in frames:
                writer.append_data(np.pad(frame, pad, mode="edge"))


def _write_gif(path: Path, frames: list[np.ndarray], fps: float) -> None:
    from PIL import Image

    # Maximum coverage keeps the colours of small things, such as a target, which a median cut drops.
    method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    images = [Image.fromarray(frame).quantize(256, method, dither=dither) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0)
