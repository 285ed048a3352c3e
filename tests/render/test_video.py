"""Videos that players can open, and clear refusals."""

import subprocess
import sys
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from simscaleai_jax.sim.video import write_video


def moving_square(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    frames = np.full((count, height, width, 3), 30, np.uint8)
    for i in range(count):
        frames[i, 8:24, 4 * i : 4 * i + 16] = (250, 40, 40)
    return list(frames)


def decoded(path, height: int, width: int) -> np.ndarray:
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run([get_ffmpeg_exe(), "-v", "error", "-i", path, *raw], capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63)])
def test_mp4_holds_every_frame(tmp_path, height, width):
    """Odd sides are padded by a row or column, because yuv420p needs even ones."""
    frames = moving_square(10, height, width)
    path = write_video(tmp_path / "new" / "run.mp4", iter(frames), fps=10)
    back = decoded(path, height + height % 2, width + width % 2)
    assert len(back) == 10
    error = np.abs(back[:, :height, :width].astype(float) - np.stack(frames))
    assert error.mean() < 8
    assert [p.name for p in path.parent.iterdir()] == ["run.mp4"]


def test_gif_holds_every_frame(tmp_path):
    frames = moving_square(5)
    path = write_video(tmp_path / "run.gif", frames, fps=20)
    with Image.open(path) as gif:
        assert gif.n_frames == 5
        assert gif.info["duration"] == 50
        gif.seek(4)
        np.testing.assert_allclose(np.asarray(gif.convert("RGB"), float), frames[4], atol=12)


def test_a_film_that_jax_drew_is_written_without_a_warning(tmp_path):
    jnp.zeros(1).block_until_ready()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        write_video(tmp_path / "run.mp4", moving_square(3))
    assert not [str(one.message) for one in said if "fork" in str(one.message)]


def test_without_ffmpeg_a_gif_is_written_with_a_warning(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.warns(UserWarning, match="run.gif"):
        path = write_video(tmp_path / "run.mp4", moving_square(3))
    assert path == tmp_path / "run.gif"
    assert path.stat().st_size > 0


@pytest.mark.parametrize(
    ("name", "frames", "fps", "message"),
    [
        ("a.avi", moving_square(2), 20, r"\.mp4 or \.gif"),
        ("a.mp4", [], 20, "at least one frame"),
        ("a.mp4", moving_square(2), 0, "fps must be positive"),
        ("a.mp4", [np.zeros((4, 4, 3))], 20, "frame 0 must be uint8"),
        ("a.mp4", [np.zeros((4, 4), np.uint8)], 20, "frame 0 must be uint8"),
        ("a.gif", [*moving_square(1), *moving_square(1, 10)], 20, "frame 1 has shape"),
    ],
)
def test_bad_input_leaves_nothing_behind(tmp_path, name, frames, fps, message):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, frames, fps)
    assert not list(tmp_path.iterdir())
