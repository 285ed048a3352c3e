"""`simscale train` as it is called, and `simscale eval` on what it leaves."""

import json
import types

import h5py
import numpy as np
import pytest

from simscaleai_jax.core import checkpoint
from simscaleai_jax.datagen.generator import json_values
from simscaleai_jax.sim.factory import make_env
from simscaleai_jax.sim.registry import build_config, find_task
from simscaleai_jax.tools import cli
from simscaleai_jax.tools.commands.train import env_record, make_eval_fn
from simscaleai_jax.training.data import DummyTrajectoryDataset
from simscaleai_jax.training.data.augment import ImageAugmentation
from simscaleai_jax.training.logs import read_rows

SMALL = ["--model.hidden-dim", "16", "--model.n-layers", "1", "--device", "cpu", "--max-steps", "4"]
SETTINGS = {"dt": 0.01, "control_dt": 0.05, "max_episode_steps": 8}


def train(folder, *options):
    return cli.main(["train", *SMALL, "--checkpoint-dir", str(folder), *options])


def write_demos(path, name, settings):
    """A file of two random episodes whose observations are those of an environment."""
    env = make_env(name, **settings | {"cameras": []})
    spaces = env.observation_space.spaces
    env.close()
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = 16
        data.attrs["env_args"] = json.dumps({"env_name": name, "type": 1, "env_kwargs": settings})
        for number in range(2):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = 8
            demo["actions"] = rng.uniform(-1, 1, (8, 4)).astype(np.float32)
            demo["rewards"] = np.zeros(8, np.float32)
            for key, space in spaces.items():
                demo[f"obs/{key}"] = rng.normal(size=(8, *space.shape)).astype(np.float32)
    return path


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    return write_demos(tmp_path_factory.mktemp("demos") / "reach.h5", "reach", SETTINGS)


def test_without_a_data_set_it_says_loudly_that_the_data_are_random(tmp_path, capsys):
    assert train(tmp_path) == 0
    shown = capsys.readouterr()
    assert "NO DATA SET WAS GIVEN" in shown.err
    assert "RANDOM DUMMY DATA" in shown.err
    assert "simscale eval" in shown.out


def test_demonstrations_are_trained_on_and_evaluated_without_flags(demos, tmp_path, capsys):
    run, results = tmp_path / "run", tmp_path / "results.json"
    assert train(run, "--dataset", str(demos), "--batch-size", "4", "--eval.episodes", "1", "--log-every", "2") == 0
    assert "DUMMY" not in capsys.readouterr().err
    rows = read_rows(run / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [2, 4]
    names = {name for row in rows for name in row}
    assert {"eval/success_rate", "eval/mean_length"} <= names, "closed loop, in the demos' world"
    manifest = checkpoint.read_manifest(run)
    assert manifest.env["name"] == "reach"
    assert SETTINGS.items() <= manifest.env["config"].items()
    options = ["--n-episodes", "1", "--physics", "host", "--output", str(results)]
    assert cli.main(["eval", str(run), *options]) == 0
    assert json.loads(results.read_text())["host"]["mean_length"] <= 8, "the environment's settings travel, too"


@pytest.mark.wide
def test_a_policy_that_sees_what_a_task_setting_adds_is_evaluated_with_it(tmp_path):
    chosen = SETTINGS | {"relative_observations": True, "domain_randomization": True, "cameras": []}
    settings = json_values(build_config(None, find_task("pick_place").config_cls, chosen))  # as datagen stores it
    demos = write_demos(tmp_path / "pick.h5", "pick_place", settings)
    assert train(tmp_path / "run", "--dataset", str(demos), "--batch-size", "4", "--eval.episodes", "1") == 0
    manifest = checkpoint.read_manifest(tmp_path / "run")
    assert manifest.env["config"]["task"] == settings["task"]
    assert "domain_randomization" not in manifest.env["config"], "it is judged on the nominal model"
    assert "object_to_target" in manifest.observation_spec
    assert cli.main(["eval", str(tmp_path / "run"), "--n-episodes", "1", "--physics", "host"]) == 0


def test_the_world_of_the_demonstrations_is_recorded_and_their_luck_is_not():
    ranges = {"gravity": [0.9, 1.0]}
    world = SETTINGS | {"xml_path": "lab.xml", "task": {"success_distance": 0.1}, "randomization": ranges}
    luck = {"domain_randomization": True, "seed": 3, "impl": "warp", "renderer": "jax"}
    env_args = {"env_name": "reach", "env_kwargs": world | luck | {"cameras": ["front_cam"]}}
    demos = types.SimpleNamespace(attributes={"env_args": env_args})
    dataset = types.SimpleNamespace(demos=demos, image_keys=["image"])
    assert env_record(dataset) == {"name": "reach", "config": world | {"cameras": ["front_cam"]}}
    dataset.image_keys = []
    assert env_record(dataset)["config"] == world | {"cameras": []}
    with pytest.raises(FileNotFoundError, match=r"a\.h5 was recorded in the scene 'lab\.xml', and there is no"):
        make_eval_fn(env_record(dataset), 1, "a.h5")
    env_args["env_name"] = "panda"
    with pytest.raises(ValueError, match=r"Unknown environment of a\.h5: 'panda'\..* Available: .*reach"):
        make_eval_fn(env_record(dataset), 1, "a.h5")


def test_images_are_varied_in_training_and_not_in_evaluation(tmp_path, monkeypatch, capsys):
    asked = []

    def fake(dataset, batch_size, *, augmentation=None, **settings):
        asked.append(augmentation)
        assert settings["device_mb"] == 12.5
        if len(asked) == 2:
            raise ValueError("enough was seen")

    monkeypatch.setattr("simscaleai_jax.training.data.make_loader", fake)
    dataset = DummyTrajectoryDataset(16, include_image=True)
    monkeypatch.setattr("simscaleai_jax.tools.commands.train.open_dataset", lambda options, split: dataset)
    options = ["--random-shift", "2", "--random-saturation", "0.5", "--eval.split", "valid", "--data.no-normalize"]
    options += ["--device-mb", "12.5"]
    assert train(tmp_path, *options) == 1
    assert "enough was seen" in capsys.readouterr().err
    assert asked == [ImageAugmentation(2, 0.0, 0.0, 0.5), None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--random-shift", "4"], "varies images, and there are none in the data"),
        (["--device", "tpu"], "No 'tpu' device on this machine; found: cpu"),
        (["--warmup-steps", "9"], "--warmup-steps 9 is more than --max-steps 4"),
        (["--model", "bcc"], "Did you mean 'bc'"),
        (["--batch-size", "12", "--num-devices", "8"], "nearest: 8 or 16"),
        (["--eval.episodes", "1"], "does not say which environment it comes from"),
        (["--model-kwargs", "{"], "--model-kwargs is not JSON"),
        (["--model.state-dim", "5"], "does not fit the model 'bc'"),
        (["--dataset", "nothing.h5"], "nothing.h5"),
    ],
)
def test_wrong_options_end_in_one_clear_line(options, message, tmp_path, capsys):
    assert train(tmp_path / "run", *options) != 0
    shown = capsys.readouterr().err
    assert message in " ".join(shown.split())
    assert "Traceback" not in shown


@pytest.mark.wide
def test_a_model_is_evaluated_on_what_it_was_told_to_read(demos, tmp_path):
    """The environment tells more, also while the model trains."""
    words = ["--dataset", str(demos), "--data.robot-only", "--batch-size", "4", "--eval.episodes", "2"]
    assert train(tmp_path, *words, "--eval-every", "4") == 0
    (row,) = [row for row in read_rows(tmp_path / "metrics.jsonl") if "eval/success_rate" in row]
    assert row["step"] == 4
    spec = checkpoint.read_manifest(checkpoint.resolve(tmp_path)).observation_spec
    assert "target_pos" not in spec
    assert "ee_pos" in spec
