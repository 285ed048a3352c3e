"""The commands of data sets, run through `simscale` itself."""

import json
import pathlib

import h5py
import matplotlib
import numpy as np
import pytest
from matplotlib import image as images

from simscaleai_jax.core.checkpoint import Manifest, save
from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.datagen.generator import json_values
from simscaleai_jax.sim.factory import load_scene
from simscaleai_jax.sim.randomization import PRESETS
from simscaleai_jax.sim.registry import asset, build_config, find_task
from simscaleai_jax.tools import viz_dataset
from simscaleai_jax.tools.cli import main
from simscaleai_jax.tools.commands import datagen
from simscaleai_jax.training.data import TrajectoryDataset

from . import demo_files
from .toy import ToyEnv

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("demos") / "demos.h5"
    demo_files.write_file(file, image=16)
    return str(file)


@pytest.mark.wide
def test_viz_commands_write_pictures(path, tmp_path, capsys):
    for name, *options in (("viz-dataset",), ("viz-trajectory", "--episode", "2")):
        target = tmp_path / "figures" / f"{name}.png"
        assert main([name, path, *options, "--save", str(target)]) == 0
        assert str(target) in capsys.readouterr().out
        picture = images.imread(target)
        assert min(picture.shape[:2]) > 600
        assert picture[..., :3].std() > 0.05  # not blank


def test_figures_show_the_numbers_of_the_file(path):
    dataset = TrajectoryDataset(path)
    figure = viz_dataset.plot_dataset(path)
    by_title = {axis.get_title(): axis for axis in figure.axes}
    lengths = sum(patch.get_height() for patch in by_title["Episode length"].patches)
    assert lengths == 4
    widths = {
        label.get_text(): bar.get_width()
        for label, bar in zip(
            by_title["Outcome and splits"].get_yticklabels(), by_title["Outcome and splits"].patches, strict=True
        )
    }
    assert widths == {"success": 2, "failure": 2, "mask train": 3, "mask valid": 1}
    figure = viz_dataset.plot_trajectory(path, 2)
    by_title = {axis.get_title(): axis for axis in figure.axes}
    assert {"ee_pos", "joint_pos", "target_pos", "action", "reward", "image"} <= set(by_title)
    np.testing.assert_allclose(by_title["ee_pos"].lines[1].get_ydata(), dataset.demos.read(2, "obs/ee_pos")[:, 1])
    assert "success" in figure.get_suptitle()


def read_as_robomimic_does(path):
    """Sizes and sums of everything that a robomimic training run reads, with h5py alone."""
    seen = {}
    with h5py.File(path, "r", swmr=True, libver="latest") as file:
        assert json.loads(file["data"].attrs["env_args"])["type"] == 2
        demos = [name.decode("utf-8") for name in np.array(file["mask/train"][:])]
        demos += [name.decode("utf-8") for name in np.array(file["mask/valid"][:])]
        for demo in sorted(demos, key=lambda name: int(name[5:])):
            length = int(file[f"data/{demo}"].attrs["num_samples"])
            for key in file[f"data/{demo}/obs"]:
                rows = file[f"data/{demo}/obs/{key}"][()].astype("float32")
                assert rows.shape[0] == length
                seen[demo, key] = rows.sum()
            for key in ("actions", "rewards", "dones"):
                rows = file[f"data/{demo}/{key}"][()].astype("float32")
                assert rows.shape[0] == length
                seen[demo, key] = rows.sum()
        assert file["data"].attrs["total"] == sum(file[f"data/{demo}"].attrs["num_samples"] for demo in demos)
    assert len({demo for demo, _ in seen}) == 3
    return seen


def test_merge_and_export_commands(path, tmp_path, capsys):
    episodes = demo_files.write_file(tmp_path / "one.h5", (5, 3, 8))
    shards = []
    for index in range(2):
        writer = demo_files.make_writer(tmp_path / "s.h5", 3, index, 2)
        for number in writer.missing():
            writer.add(number, episodes[number])
        shards.append(str(writer.finish()))
    assert main(["merge", str(tmp_path / "m.h5"), *shards, "--copy"]) == 0
    assert main(["merge", str(tmp_path / "linked.h5"), *shards, "--link"]) == 0
    assert read_as_robomimic_does(tmp_path / "m.h5") == read_as_robomimic_does(tmp_path / "linked.h5")
    assert main(["merge", str(tmp_path / "x.h5"), *shards, "--link", "--copy"]) == 1
    assert "exclude each other" in capsys.readouterr().err
    for shard in shards:
        pathlib.Path(shard).unlink()  # copies stand alone
    assert main(["export-dataset", str(tmp_path / "m.h5"), str(tmp_path / "lerobot"), "--to", "lerobot"]) == 0
    assert main(["export-dataset", str(tmp_path / "lerobot"), str(tmp_path / "back.h5"), "--from", "lerobot"]) == 0
    assert main(["export-dataset", str(tmp_path / "m.h5"), str(tmp_path / "r.h5"), "--to", "robomimic"]) == 0
    for name in ("m.h5", "back.h5", "r.h5"):
        assert len(TrajectoryDataset(tmp_path / name)) == 16
    assert main(["export-dataset", str(tmp_path / "m.h5"), str(tmp_path / "x")]) == 1
    assert "--to lerobot, --to robomimic or --to minari" in capsys.readouterr().err
    assert main(["viz-trajectory", path, "--episode", "9"]) == 1
    assert "has episodes 0 to 3, not 9" in capsys.readouterr().err


def test_datagen_passes_every_option_on(monkeypatch, capsys, tmp_path):
    seen = {}

    def fake(*args, **options):
        seen.update(options, args=args)
        return {"total_episodes": 7, "success_rate": 0.5, "paths": ["a", "b"]}

    monkeypatch.setattr("simscaleai_jax.datagen.generate_dataset", fake)
    monkeypatch.setattr(datagen, "load_policy", lambda path: f"policy of {path}")
    command = (
        "datagen --env-name pick_place --n-episodes 7 --output x.h5 --policy scripted --randomize --seed 5 --num-envs 3"
    )
    more = (
        "--env.cameras front_cam wrist_cam --env.image-size 64 --only-success --shards 2 --env.dt 0.01 "
        "--noise-std 0.2 --next-obs"
    )
    assert main([*command.split(), *more.split()]) == 0
    assert seen["args"] == ("pick_place", 7, str(pathlib.Path("x.h5").absolute()), "scripted", True, 200, 5)
    assert seen["cameras"] == [{"name": name, "width": 64, "height": 64} for name in ("front_cam", "wrist_cam")]
    assert (seen["num_envs"], seen["shards"], seen["only_success"], seen["dt"]) == (3, 2, True, 0.01)
    assert (seen["noise"].std, seen["with_next_obs"], seen["policy"]) == (0.2, True, None)
    assert f"simscale merge {pathlib.Path('x.h5').absolute()} a b" in capsys.readouterr().out
    assert seen["env_options"] == {}
    task = {"relative_observations": True}
    config = {"dt": 0.005, "max_episode_steps": 50, "domain_randomization": True, "cameras": ["front_cam"]}
    run, env = str(tmp_path / "run"), {"name": "pick_place", "config": config | {"task": task}}
    save(run, {"a": np.zeros(1)}, Manifest("ppo", "actor_critic", env=env))
    assert main(["datagen", "--checkpoint", run]) == 0
    default = str(pathlib.Path("data/dataset.h5").absolute())
    assert seen["args"] == ("pick_place", 100, default, "policy", True, 50, 42)
    assert (seen["dt"], seen["cameras"], seen["env_options"]) == (0.005, ["front_cam"], {"task": task})
    assert (seen["policy"], seen["policy_name"], seen["noise"]) == (f"policy of {run}", run, None)
    first = seen["policy_digest"]
    changes = "--env.dt 0.01 --env.max-episode-steps 9 --env.cameras wrist_cam"
    save(run, {"a": np.ones(1)}, Manifest("ppo", "actor_critic", env=env, step=7))  # trained further, in its place
    assert main(["datagen", "--checkpoint", run, *changes.split()]) == 0
    assert (seen["args"][5], seen["dt"], seen["cameras"][0]["name"]) == (9, 0.01, "wrist_cam")
    assert len({first, seen["policy_digest"], ""}) == 3
    assert main(["datagen", "--checkpoint", run, "--env-name", "reach"]) == 0
    assert seen["args"] == ("reach", 100, default, "policy", False, 200, 42)
    assert (seen["dt"], seen["env_options"]) == (None, {})


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("", (False, None, "")),
        ("--randomize", (True, PRESETS["default"], "")),
        ("--env.randomization heavy", (True, PRESETS["heavy"], "")),
        ("--randomize --env.randomization light --env.xml-path {scene}", (True, PRESETS["light"], "{scene}")),
    ],
)
def test_datagen_takes_a_preset_and_a_scene_and_stores_them(options, wanted, monkeypatch, tmp_path):
    """In the world that the options describe, the toy plays: no physics is compiled."""
    scene, path = asset("reach.xml"), tmp_path / "a.h5"

    def toy(name, **settings):
        env = ToyEnv()
        env.config = build_config(None, find_task(name).config_cls, settings)
        load_scene(find_task(name), env.config)
        return env

    monkeypatch.setattr("simscaleai_jax.sim.factory.make_functional_env", toy)
    assert main(["datagen", "--n-episodes", "2", "--output", str(path), *options.format(scene=scene).split()]) == 0
    attributes = DemonstrationFile(path).attributes
    stored = attributes["env_args"]["env_kwargs"]
    is_randomized, ranges, xml_path = wanted
    assert attributes["domain_randomization"] is stored["domain_randomization"] is is_randomized
    assert stored["randomization"] == (None if ranges is None else json_values(ranges))
    assert stored["xml_path"] == xml_path.format(scene=scene)


def test_a_log_says_how_far_the_episodes_are(monkeypatch, capsys):
    monkeypatch.setattr(datagen.time, "monotonic", iter([0.0, 12.0, 14.0, 24.0, 30.0]).__next__)
    with datagen.episode_progress(8) as say:
        for done in (5, 6, 7, 8):  # four were there before
            say(done, 8)
    assert capsys.readouterr().out.strip().splitlines() == [
        "Making 8 episodes; compiling first.",
        "episodes 5/8  12 s",
        "episodes 7/8  24 s, about 6 s left",
        "episodes 8/8  30 s, about 0 s left",
    ]


def test_datagen_refuses_a_scene_that_is_not_there_and_a_preset_that_there_is_not(capsys, tmp_path):
    common = ["datagen", "--n-episodes", "1", "--output", str(tmp_path / "a.h5")]
    assert main([*common, "--env.xml-path", "nowhere.xml"]) == 1
    assert f"no MJCF file at '{pathlib.Path('nowhere.xml').absolute()}'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*common, "--env.randomization", "heavyy"])
    assert "light" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


ADDRESS = ["--coordinator", "host:1", "--num-processes", "2", "--process-id", "1"]


@pytest.mark.parametrize("index", [0, 1])
def test_datagen_joins_a_run_of_several_processes(index, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr("jax.process_index", lambda: index)
    monkeypatch.setattr(
        "simscaleai_jax.core.distributed.initialize", lambda *joined, backend: calls.append((*joined, backend))
    )
    monkeypatch.setattr("simscaleai_jax.core.distributed.barrier", lambda name, seconds: calls.append(name))

    def fake(*args, **options):
        calls.append("generate")
        return {"total_episodes": 3, "paths": [f"own of {index}"]}

    monkeypatch.setattr("simscaleai_jax.datagen.generate_dataset", fake)
    assert main(["datagen", "--distributed", *ADDRESS, "--output", "x.h5", "--n-episodes", "6"]) == 0
    assert calls == [("host:1", 2, 1, "auto"), "generate", "all shards"]
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Demonstrations of reach, process {index} of 2" in shown
    names = ("x.h5", "x-00000-of-00002.h5", "x-00001-of-00002.h5")
    join = " ".join(str(pathlib.Path(name).absolute()) for name in names)
    assert (f"simscale merge {join}" in shown) is (index == 0)
    assert main(["datagen", "--output", "x.h5"]) == 0
    assert ("host:1", 2, 1, "auto") not in calls[3:]


def test_datagen_ends_at_once_when_a_peer_is_lost(monkeypatch):
    """A clean exit would wait for the dead one."""
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr("simscaleai_jax.core.distributed.initialize", lambda *joined, backend: None)
    left = []
    monkeypatch.setattr("simscaleai_jax.core.distributed.leave_broken_run", left.append)

    def fail(*args, **options):
        raise RuntimeError("Gloo all-reduce failed: Connection closed by peer")

    monkeypatch.setattr("simscaleai_jax.datagen.generate_dataset", fail)
    assert main(["datagen", "--distributed"]) == 0
    assert "Start all 2 processes again" in str(left[0])
