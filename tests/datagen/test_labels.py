"""An expert labels what another policy reaches, and several such files make one data set."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.datagen import generate_dataset
from simscaleai_jax.datagen.files.collection import collect_files
from simscaleai_jax.training.data import TrajectoryDataset

from .toy import ToyEnv, toy_expert


def clumsy(obs, key):
    """Half as far as the expert, and with a push sideways."""
    return 0.5 * toy_expert(obs, key) + jnp.array([0.2, 0.0, 0.0, 0.0])


def generate(path, env=None, **options):
    acting = {"policy_type": "policy", "policy": clumsy, "policy_name": "clumsy", "n_episodes": 6, "seed": 3}
    return generate_dataset("toy", output_path=str(path), env=env or ToyEnv(), **{**acting, **options})


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    path = tmp_path_factory.mktemp("labelled") / "a.h5"
    generate(path, expert=toy_expert, expert_name="toy")
    return path


def test_labels_are_the_experts_and_states_the_learners(labelled):
    file, act = DemonstrationFile(labelled), jax.jit(jax.vmap(lambda obs: (toy_expert(obs, None), clumsy(obs, None))))
    for number in range(6):
        obs = {key: file.read(number, f"obs/{key}") for key in ("ee_pos", "target_pos")}
        right, done = (np.clip(actions, -1.0, 1.0) for actions in act(obs))
        np.testing.assert_allclose(file.read(number, "actions"), right, atol=1e-6)
        np.testing.assert_allclose(file.read(number, "actions_executed"), done, atol=1e-6)
        moved = np.diff(obs["ee_pos"], axis=0)
        np.testing.assert_allclose(moved, 0.1 * done[:-1, :3], atol=1e-5)


def test_the_file_says_who_has_labelled_it(labelled):
    assert DemonstrationFile(labelled).attributes["settings"]["expert"] == "toy"
    before = labelled.read_bytes()
    generate(labelled, expert=toy_expert, expert_name="toy")
    assert labelled.read_bytes() == before
    with pytest.raises(ValueError, match="expert"):
        generate(labelled, expert=toy_expert, expert_name="another")
    with pytest.raises(ValueError, match="expert"):
        generate(labelled)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expert": "scriptd"}, "Unknown expert 'scriptd'.*Did you mean 'scripted'"),
        ({"expert": toy_expert}, "expert= needs an expert_name"),
        ({"expert": "scripted"}, "has no task for a scripted expert"),
    ],
)
def test_bad_experts(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        generate(tmp_path / "a.h5", **options)


def test_files_are_collected_as_links(tmp_path):
    env = ToyEnv(image=True)
    for name, count in (("a", 3), ("b", 2)):
        generate(tmp_path / f"{name}.h5", env, expert=toy_expert, expert_name="toy", n_episodes=count, seed=count)
    generate(tmp_path / "c.h5", env, n_episodes=2)  # who acts labels: nothing else was executed
    paths = [tmp_path / f"{name}.h5" for name in "abc"]
    steps = collect_files(paths, tmp_path / "all.h5")
    parts, whole = [TrajectoryDataset(path) for path in paths], TrajectoryDataset(tmp_path / "all.h5")
    assert len(whole) == steps == sum(map(len, parts))
    for key in ("actions", "obs/ee_pos"):
        np.testing.assert_array_equal(whole.column(key), np.concatenate([part.column(key) for part in parts]))
    last = whole[steps - 1]["observations"]["image"]
    np.testing.assert_array_equal(last, parts[2][len(parts[2]) - 1]["observations"]["image"])
    assert whole.demos.attributes["env_args"] == parts[0].demos.attributes["env_args"]
    size = sum(path.stat().st_size for path in paths)
    assert (tmp_path / "all.h5").stat().st_size < size / 3
    with h5py.File(tmp_path / "all.h5") as file:
        assert "settings" not in file["data"].attrs, "no run of datagen may take it for its own"


def test_files_that_do_not_belong_together_are_named(tmp_path):
    generate(tmp_path / "a.h5", n_episodes=2)
    generate(tmp_path / "b.h5", ToyEnv(image=True), n_episodes=2)
    with pytest.raises(ValueError, match=r"b\.h5 and .*a\.h5 differ in obs/image"):
        collect_files([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "all.h5")
    assert not (tmp_path / "all.h5").exists()
