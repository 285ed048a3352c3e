"""What pictures learn to tell in training, and no policy reads."""

import h5py
import numpy as np
import pytest

from simscaleai_jax.core.checkpoint import read_manifest, resolve
from simscaleai_jax.tools import cli
from simscaleai_jax.training.data import TrajectoryDataset, make_loader
from simscaleai_jax.training.data.auxiliary import AuxiliaryLoader
from simscaleai_jax.training.logs import read_rows

KEYS = ("object_pos", "target_pos")


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """Two cameras that see a bright column at the object's first number."""
    path, rng = tmp_path_factory.mktemp("demos") / "seen.h5", np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(12):
            demo = file.create_group(f"data/demo_{number}")
            columns = rng.integers(2, 13, 16)
            images = np.zeros((16, 16, 16, 3), np.uint8)
            images[np.arange(16), :, columns] = 255
            for key in ("image", "image_side_cam"):
                demo[f"obs/{key}"] = images
            place = (columns / 8.0 - 1.0).astype(np.float32)
            demo["obs/object_pos"] = np.stack([place, place**2, -place], axis=-1)
            demo["obs/target_pos"] = rng.normal(size=(16, 3)).astype(np.float32) + 5.0
            demo["obs/ee_pos"] = rng.normal(size=(16, 3)).astype(np.float32)
            demo["actions"] = np.tile(0.5 * place[:, None], (1, 4))
            demo["rewards"] = np.zeros(16, np.float32)
    return path


def test_it_stands_apart_with_mean_0_and_deviation_1(demos):
    dataset = TrajectoryDataset(demos, obs_keys=["ee_pos", "image", *KEYS], obs_horizon=2, seq_len=3)
    stats = dataset.stats(list(KEYS))["observations"]
    loader = AuxiliaryLoader(make_loader(dataset, 64, seed=1), KEYS, stats)
    plain = next(make_loader(dataset, 64, seed=1))
    batch = next(loader)
    assert set(batch["observations"]) == {"ee_pos", "image"}
    assert batch["actions"].shape == (64, 3, 4)
    told = np.concatenate([np.asarray(plain["observations"][key])[:, -1] for key in KEYS], axis=-1)
    mean, std = (np.concatenate([stats[key][part] for key in KEYS]) for part in ("mean", "std"))
    np.testing.assert_allclose(batch["auxiliary"], (told - mean) / std, rtol=1e-4, atol=1e-4)
    state = loader.get_state()
    following = next(loader)
    loader.set_state(state)
    np.testing.assert_array_equal(next(loader)["auxiliary"], following["auxiliary"])


@pytest.mark.wide
def test_pictures_learn_to_tell_it_and_the_policy_needs_it_not(demos, tmp_path):
    words = ["train", "--dataset", str(demos), "--checkpoint-dir", str(tmp_path), "--max-steps", "150"]
    words += ["--model.use-image", "True", "--model.cameras", "image", "image_side_cam", "--model.hidden-dim", "16"]
    words += ["--model.image-pooling", "keypoints", "--model.image-embed-dim", "16", "--batch-size", "32"]
    words += ["--data.auxiliary-keys", "object_pos", "--data.robot-only", "--lr", "1e-2", "--log-every", "30"]
    assert cli.main(words) == 0
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert rows[-1]["auxiliary_mae"] < 0.5 * rows[0]["auxiliary_mae"]
    manifest = read_manifest(resolve(tmp_path))
    assert set(manifest.observation_spec) == {"ee_pos", "image", "image_side_cam"}
    assert manifest.model_kwargs["auxiliary_size"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.auxiliary-keys", "object_po"], "Did you mean 'object_pos'"),
        (["--data.auxiliary-keys", "image"], "state (--data.auxiliary-keys): 'image'"),
        (["--data.auxiliary-keys", "object_pos", "--data.cameras"], "no picture is read that could tell them"),
        (["--model", "flow", "--data.auxiliary-keys", "object_pos"], "'auxiliary_size'"),
        (
            ["--model.use-image", "False", "--data.auxiliary-keys", "object_pos"],
            "auxiliary_size is set, and no picture",
        ),
        (["--model.use-image", "False", "--model.cameras", "image"], "cameras is set, and no picture is seen"),
    ],
)
def test_what_cannot_be_told_is_named(demos, tmp_path, words, message, capsys):
    assert cli.main(["train", "--dataset", str(demos), "--checkpoint-dir", str(tmp_path), *words]) == 1
    assert message in " ".join(capsys.readouterr().err.split())
