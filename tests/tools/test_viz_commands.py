"""viz-env, viz-cameras, viz-live and videos of recorded episodes, through the command line."""

import json
import shutil
import subprocess
from pathlib import Path

import h5py
import mujoco.viewer
import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from simscaleai_jax.core.checkpoint import Manifest, save
from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.core.receding_horizon import Policy
from simscaleai_jax.core.streams import Stream, host_seed
from simscaleai_jax.sim import make_env
from simscaleai_jax.sim.registry import asset
from simscaleai_jax.tools import cli, viz_env, viz_live


def decoded(path, height: int, width: int) -> np.ndarray:
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run([get_ffmpeg_exe(), "-v", "error", "-i", path, *raw], capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


@pytest.mark.wide
def test_viz_env_draws_start_and_steps(tmp_path, capsys):
    assert cli.main(["viz-env", "--n-steps", "3", "--save", str(tmp_path / "new" / "frames.png")]) == 0
    assert "frames.png" in capsys.readouterr().out
    assert min(Image.open(tmp_path / "new" / "frames.png").size) > 200
    figure = viz_env.plot_env("reach", 3, seed=1)
    titles = [axis.get_title().partition(",")[0] for axis in figure.axes]
    assert titles == ["step 0", "step 1", "step 2", "step 3"]
    first, last = (figure.axes[i].images[0].get_array() for i in (0, 3))
    assert np.any(first != last)


@pytest.mark.wide
def test_viz_env_writes_a_video(tmp_path):
    assert cli.main(["viz-env", "--n-steps", "4", "--save", str(tmp_path / "run.mp4")]) == 0
    assert len(decoded(tmp_path / "run.mp4", 360, 480)) == 5


@pytest.mark.wide
def test_viz_cameras_shows_what_render_camera_returns(tmp_path):
    assert cli.main(["viz-cameras", "--save", str(tmp_path / "cameras.png")]) == 0
    assert min(Image.open(tmp_path / "cameras.png").size) > 200
    figure = viz_env.plot_cameras("reach", seed=3)
    shown = [axis for axis in figure.axes if axis.images and axis.get_title()]
    assert sorted(axis.get_title().partition(":")[0] for axis in shown[::3]) == ["front_cam", "side_cam", "wrist_cam"]
    env = make_env("reach", cameras=[{"name": "front_cam", "width": 240, "height": 240, "fov": 45.0}])
    env.reset(seed=host_seed(3, Stream.VIEWER))
    images = env.unwrapped.render_camera("front_cam", depth=True, segmentation=True)
    row = next(i for i, axis in enumerate(shown) if axis.get_title().startswith("front_cam"))
    is_hit = images["segmentation"] >= 0
    np.testing.assert_allclose(shown[row + 1].images[0].get_array()[is_hit], images["depth"][is_hit], rtol=1e-4)
    colours = viz_env.geom_colours(env.unwrapped.model.ngeom)
    assert len(np.unique(colours, axis=0)) == len(colours)
    np.testing.assert_array_equal(shown[row + 2].images[0].get_array(), colours[images["segmentation"]])


class FakeViewer:
    """Stands in for the window: counts what it is asked to show."""

    synced, closed = 0, 0

    def sync(self) -> None:
        FakeViewer.synced += 1

    def close(self) -> None:
        FakeViewer.closed += 1


def test_viz_live_shows_every_step(monkeypatch, capsys):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(mujoco.viewer, "launch_passive", lambda model, data: FakeViewer())
    FakeViewer.synced = FakeViewer.closed = 0
    assert cli.main(["viz-live", "--n-episodes", "2", "--max-steps", "3"]) == 0
    assert (FakeViewer.synced, FakeViewer.closed) == (2 * (1 + 3), 1)
    assert "Episodes of reach" in capsys.readouterr().out


def test_viz_live_plays_a_checkpoint_in_its_own_environment(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(mujoco.viewer, "launch_passive", lambda model, data: FakeViewer())
    policy = Policy(lambda params, obs, key: np.ones((1, 4), np.float32), (), 4)
    monkeypatch.setattr("simscaleai_jax.policy.load_policy", lambda path: policy)
    config = {"max_episode_steps": 2, "dt": 0.01, "cameras": []}
    manifest = Manifest(kind="ppo", model_name="actor_critic", env={"name": "pick_place", "config": config})
    save(tmp_path / "done", {"a": np.zeros(1)}, manifest)
    for options, steps in (((), 2), (("--max-steps", "1"), 1)):
        FakeViewer.synced = 0
        assert cli.main(["viz-live", "--checkpoint", str(tmp_path / "done"), "--n-episodes", "1", *options]) == 0
        assert FakeViewer.synced == 1 + steps
        assert "pick_place" in capsys.readouterr().out


def test_viz_live_without_a_display_says_what_to_do(monkeypatch, capsys):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert cli.main(["viz-live"]) == 1
    assert "found no display" in capsys.readouterr().err


@pytest.fixture
def write_recorded(tmp_path):
    """write(name, observations, env_kwargs): a robomimic file of one episode of three states of reach."""
    env = make_env("reach", cameras=[])
    env.reset(seed=0)
    data = env.unwrapped.data
    states = np.tile(np.concatenate([data.qpos, data.qvel]), (3, 1))
    states[:, 0] += [0.0, 0.3, 0.6]

    def write(name: str, observations: dict, env_kwargs: dict | None = None) -> str:
        with h5py.File(tmp_path / name, "w") as file:
            demos = file.create_group("data")
            demos.attrs["total"] = 3
            demos.attrs["env_args"] = json.dumps({"env_name": "reach", "type": 2, "env_kwargs": env_kwargs or {}})
            demo = demos.create_group("demo_0")
            demo.attrs["num_samples"] = 3
            demo["actions"], demo["states"] = np.zeros((3, 4), np.float32), states
            for key, value in observations.items():
                demo[f"obs/{key}"] = value
        return str(tmp_path / name)

    return write


@pytest.fixture
def recorded(write_recorded):
    """Two files with a moving target, the second with images."""
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.full((1, 32, 48, 3), 60, np.uint8)
    goals = np.array([[0.5, 0.0, 0.3], [0.5, 0.2, 0.3], [0.5, 0.2, 0.5]], np.float32)
    moving = {"target_pos": goals}
    return write_recorded("drawn.h5", moving), write_recorded("filmed.h5", moving | {"image": images})


def test_an_episode_with_images_becomes_a_video_of_them(recorded, tmp_path):
    save = str(tmp_path / "filmed.mp4")
    assert cli.main(["viz-trajectory", recorded[1], "--save", save]) == 0
    frames = decoded(save, 32, 48)
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [0, 60, 120], atol=4)


@pytest.mark.wide
def test_an_episode_without_images_is_drawn_from_its_states(recorded, tmp_path):
    path = viz_live.write_episode_video(recorded[0], 0, tmp_path / "drawn.gif")
    with Image.open(path) as gif:
        frames = []
        for index in range(gif.n_frames):
            gif.seek(index)
            frames.append(np.asarray(gif.convert("RGB"), int))
    assert len(frames) == 3
    assert frames[0].shape == (360, 480, 3)
    green = [np.argwhere((f[..., 1] > f[..., 0] + 60) & (f[..., 1] > f[..., 2] + 60)).mean(axis=0) for f in frames]
    assert green[1][1] > green[0][1] + 10  # the target moved to the left of the robot: right in the picture
    assert green[2][0] < green[1][0] - 10  # and then up


@pytest.mark.wide
def test_an_episode_is_drawn_in_the_scene_that_it_was_recorded_in(write_recorded, tmp_path, capsys):
    scenes = Path(asset("reach.xml")).parent
    shutil.copy(scenes / "panda.xml", tmp_path)
    scene = tmp_path / "blue.xml"
    scene.write_text((scenes / "reach.xml").read_text().replace('rgba=".12 .85 .3 1"', 'rgba=".1 .1 .9 1"'))
    settings = {"xml_path": str(scene), "task": {"success_distance": 0.03}, "cameras": [], "seed": None, "impl": "jax"}
    states = {"ee_pos": np.zeros((3, 3), np.float32)}
    path = write_recorded("blue.h5", states, settings)
    frame, *_ = viz_live._drawn_states(DemonstrationFile(path), 0)
    red, green, blue = np.moveaxis(frame.astype(int), -1, 0)
    assert frame.shape == (360, 480, 3)
    assert ((blue > red + 60) & (blue > green + 60)).sum() > 100
    scene.unlink()
    assert cli.main(["viz-trajectory", path, "--save", str(tmp_path / "lost.gif")]) == 1
    assert f"recorded in the scene '{scene}', and there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["viz-env", "--n-steps", "0", "--save", "x.png"], "--n-steps must be at least 1"),
        (["viz-env", "--env-name", "reech", "--save", "x.png"], "Did you mean 'reach'"),
        (["viz-cameras", "--env-name", "reech", "--save", "x.png"], "Did you mean 'reach'"),
        (["viz-live", "--n-episodes", "0"], "--n-episodes must be at least 1"),
    ],
)
def test_bad_options(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
