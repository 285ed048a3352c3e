"""What a model is given of a data set: scaling, limits, sizes, windows; and what is refused before it compiles."""

import dataclasses

import h5py
import numpy as np
import pytest

from simscaleai_jax.core.observations import is_own_state
from simscaleai_jax.models.normalization import CAREFUL, Scaling
from simscaleai_jax.tools.commands import train
from simscaleai_jax.training import storage
from simscaleai_jax.training.data import TrajectoryDataset
from simscaleai_jax.training.setup import action_limits, data_spec, dataset_statistics, model_arguments

LENGTH = 8


def write(path, *, scale=1.0, pictures=(), length=LENGTH):
    """Two episodes: joints that move, an object that hardly does, a constant; actions of a range `scale`."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(2):
            demo = file.create_group(f"data/demo_{number}")
            demo["actions"] = (scale * np.linspace(-1.0, 0.5, length)[:, None] * np.ones(3)).astype(np.float32)
            demo["rewards"] = np.zeros(length, np.float32)
            demo["obs/joint_pos"] = rng.normal(size=(length, 2)).astype(np.float32)
            demo["obs/object_pos"] = (1.0 + 1e-5 * rng.normal(size=(length, 1))).astype(np.float32)
            demo["obs/target_pos"] = np.full((length, 1), 4.0, np.float32)
            for key in pictures:
                demo[f"obs/{key}"] = rng.integers(0, 256, (length, 12, 12, 3), np.uint8)
    return path


def test_what_hardly_moves_is_not_blown_up(tmp_path):
    dataset = TrajectoryDataset(write(tmp_path / "a.h5"))
    plain, careful = dataset_statistics(dataset), dataset_statistics(dataset, CAREFUL)
    assert plain.state_std[2] == pytest.approx(1e-5, rel=0.5)
    assert careful.state_std[2] == pytest.approx(CAREFUL.state_floor)
    assert (plain.state_std[3], careful.state_std[3]) == (1.0, 1.0)
    np.testing.assert_allclose(plain.state_std[:2], careful.state_std[:2])
    far = {"joint_pos": np.full((1, 2), 1e6, np.float32), "object_pos": np.ones((1, 1)), "target_pos": np.ones((1, 1))}
    assert careful.normalize_observations(far)["state"].max() == CAREFUL.state_clip
    assert plain.normalize_observations(far)["state"].max() > 1e5
    assert "state_clip" not in plain.arrays()


def test_the_range_of_the_actions_becomes_one(tmp_path):
    dataset = TrajectoryDataset(write(tmp_path / "a.h5", scale=4.0))
    assert np.array_equal(dataset_statistics(dataset).action_std, np.ones(3))
    statistics = dataset_statistics(dataset, Scaling(actions=True))
    scaled = np.asarray(statistics.normalize_actions(dataset.column("actions")))
    assert (scaled.min(), scaled.max()) == (-1.0, 1.0)
    np.testing.assert_allclose(statistics.denormalize_actions(scaled), dataset.column("actions"), atol=1e-6)
    assert action_limits(dataset) == {"low": [-4.0] * 3, "high": [2.0] * 3}
    assert action_limits(TrajectoryDataset(write(tmp_path / "b.h5"))) == {"low": -1.0, "high": 1.0}


def test_models_say_how_they_are_built_from_data(tmp_path):
    pictures = ("agentview_image", "wrist_image")
    data = data_spec(TrajectoryDataset(write(tmp_path / "a.h5", pictures=pictures), 4, obs_horizon=1))
    assert (data.state_dim, data.action_dim, data.action_horizon) == (4, 3, 4)
    wanted = {"state_dim": 4, "action_dim": 3, "action_horizon": 4, "use_image": True, "image_key": "agentview_image"}
    assert model_arguments("bc", data, {}) == wanted | {"image_channels": 3, "image_size": 12}
    assert model_arguments("bc", data, {"image_key": "wrist_image"})["image_key"] == "wrist_image"
    assert model_arguments("vla", data, {})["image_key"] == "agentview_image"
    blind = dataclasses.replace(data, pictures={})
    assert not model_arguments("bc", blind, {})["use_image"]
    with pytest.raises(ValueError, match="needs a picture"):
        model_arguments("vla", blind, {})


def options(path, *more):
    return train.parse_options(["--dataset", str(path), "--model.hidden-dim", "8", *more])


def test_options_choose_what_is_read(tmp_path):
    path = write(tmp_path / "a.h5", pictures=("agentview_image", "wrist_image"))
    chosen = options(path, "--data.robot-only", "--data.cameras", "wrist_image", "--data.seq-len", "3")
    dataset = train.open_dataset(chosen, None)
    assert dataset.obs_keys == ["joint_pos", "wrist_image"]
    model = train.make_model(chosen, dataset)
    assert (model.action_horizon, model.image_key, model.state_dim) == (3, "wrist_image", 2)
    everything = options(path)
    dataset = train.open_dataset(everything, None)
    model = train.make_model(everything, dataset)
    assert train.read_alone(dataset, model).obs_keys == ["agentview_image", "joint_pos", "object_pos", "target_pos"]
    blind = train.open_dataset(options(path, "--data.cameras"), None)
    assert blind.obs_keys == ["joint_pos", "object_pos", "target_pos"]
    own = ["joint_pos", "joint_vel", "ee_pos", "gripper_state", "touch", "robot0_eef_pos"]
    others = ["ee_to_object", "object_pos", "target_pos", "object_to_target", "ee_to_object_near"]
    assert [is_own_state(name) for name in own + others] == [True] * len(own) + [False] * len(others)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data.cameras", "wrist"], r"Unknown camera .*'wrist'.*'wrist_image'"),
        (["--data.episodes", "3"], "holds 2 demonstrations; wanted at least 3"),
        (["--data.seq-len", "9"], "longer than every episode"),
        (["--data.seq-len", "3", "--model.action-horizon", "4"], "give one of them"),
        (["--data.obs-keys", "joint_po"], "Did you mean 'joint_pos'"),
        (["--data.obs-keys", "object_pos", "--data.robot-only", "--data.cameras"], "No observation is left"),
    ],
)
def test_bad_input_is_named_before_anything_is_compiled(tmp_path, more, message):
    path = write(tmp_path / "a.h5", pictures=("agentview_image", "wrist_image"))
    with pytest.raises(ValueError, match=message):
        train.open_dataset(options(path, *more), None)


def test_a_file_of_options_may_be_shortened(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("max_steps: 3000\nwarmup_steps: 300\n")
    assert train.parse_options(["--config", str(file)]).warmup_steps == 300
    assert train.parse_options(["--config", str(file), "--max-steps", "50"]).warmup_steps == 5
    with pytest.raises(ValueError, match="warmup-steps 300 is more"):
        train.parse_options(["--config", str(file), "--max-steps", "50", "--warmup-steps", "300"])


def test_few_episodes_prove_nothing():
    assert storage.pooled([[0.5, 50], [0.9, 60], [1.0, 60]]) == [[0.9, 60], [1.0, 60]]
    assert storage.pooled([[0.5, 100], [0.9, 100]]) == [[0.9, 100]]
    assert storage.judgement([[1.0, 20]], is_last=False) is None
    assert storage.judgement([[1.0, 20]], is_last=True) == 1.0
    assert storage.judgement([[0.5, 30], [1.0, 90]], is_last=False) == pytest.approx(0.875)
