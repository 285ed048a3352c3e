"""robomimic's and Minari's own readers on what we export."""

import numpy as np
import pytest

import simscaleai_jax.sim as sim
from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.datagen.formats.minari_export import export_minari
from simscaleai_jax.datagen.formats.robomimic_export import export_robomimic
from simscaleai_jax.datagen.generator import generate_dataset

pytestmark = pytest.mark.clients
STATES = ["ee_pos", "joint_pos", "joint_vel", "target_pos"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("demos") / "reach.h5"
    camera = {"name": "front_cam", "width": 32, "height": 32}
    options = {"dt": 0.01, "max_steps": 20, "num_envs": 3, "cameras": [camera], "env_options": {"impl": "c"}}
    generate_dataset("reach", 4, str(path), "scripted", False, seed=0, **options)
    return path


def test_robomimics_loader_reads_every_step(source, tmp_path):
    obs_utils = pytest.importorskip("robomimic.utils.obs_utils")
    from robomimic.utils.dataset import SequenceDataset

    demos = DemonstrationFile(source)
    path = export_robomimic(source, tmp_path / "robomimic.h5")
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": STATES, "rgb": ["image"]}})
    loader = SequenceDataset(
        str(path), [*STATES, "image"], ("actions", "rewards", "dones"), seq_length=1, frame_stack=1,
        hdf5_cache_mode=None, hdf5_use_swmr=False, load_next_obs=True,
    )  # fmt: skip
    assert len(loader) == demos.lengths.sum()
    row = 0
    for episode, length in enumerate(demos.lengths):
        states = {key: demos.read(episode, f"obs/{key}") for key in STATES}
        actions, pictures = demos.read(episode, "actions"), demos.read(episode, "obs/image")
        for step in range(length):
            item = loader[row]
            for key in STATES:
                np.testing.assert_array_equal(item["obs"][key][0], states[key][step])
                after = states[key][min(step + 1, length - 1)]
                np.testing.assert_array_equal(item["next_obs"][key][0], after)
            np.testing.assert_array_equal(item["actions"][0], actions[step])
            np.testing.assert_array_equal(item["obs"]["image"][0], pictures[step])
            assert item["dones"][0] == (step == length - 1)
            row += 1


def test_minari_reads_every_episode_and_makes_the_environment_again(source, tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    demos = DemonstrationFile(source)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    folder = export_minari(source, tmp_path / "reach-v0")
    dataset = minari.load_dataset("reach-v0")
    assert minari.MinariDataset(folder / "data").total_steps == dataset.total_steps == demos.lengths.sum()
    assert dataset.total_episodes == len(demos.names)
    for index, episode in enumerate(dataset.iterate_episodes()):
        assert sorted(episode.observations) == demos.obs_keys
        for key, values in episode.observations.items():
            np.testing.assert_array_equal(values[:-1], demos.read(index, f"obs/{key}"))
        assert len(values) == demos.lengths[index] + 1
        np.testing.assert_array_equal(episode.actions, demos.read(index, "actions"))
        np.testing.assert_array_equal(episode.rewards, demos.read(index, "rewards"))
        ended = episode.terminations | episode.truncations
        assert ended.tolist() == [False] * (len(ended) - 1) + [True]
        assert episode.terminations[-1] == demos.group(index).attrs["terminated"]
    facts = next(iter(dataset.storage.get_episode_metadata([0])))
    assert facts["language"] == demos.language(0)
    assert facts["success"] == demos.success(0)
    env = dataset.recover_environment()
    made = sim.make_env("reach", dt=0.01, control_dt=0.05, max_episode_steps=20)
    assert env.unwrapped.config.control_dt == made.config.control_dt
    assert set(env.reset(seed=0)[0]) == set(demos.obs_keys)
    assert not list(tmp_path.glob(".*")), "nothing is left behind"


def test_minaris_folder_is_checked_first(source, tmp_path):
    pytest.importorskip("minari")
    with pytest.raises(ValueError, match=r"called NAME-vN.*got 'reach'"):
        export_minari(source, tmp_path / "reach")
    (tmp_path / "reach-v0").mkdir()
    with pytest.raises(ValueError, match="exists"):
        export_minari(source, tmp_path / "reach-v0")
