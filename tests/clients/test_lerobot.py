"""LeRobot 0.6 itself: reads what we export, trains its own policies on it, and plays theirs and ours in our
environments.
"""

import json
import os
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest

import simscaleai_jax.sim as sim
from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.datagen.formats.lerobot_export import export_lerobot
from simscaleai_jax.datagen.generator import generate_dataset
from simscaleai_jax.interop import export_policy
from simscaleai_jax.policy import load_policy
from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig

pytestmark = pytest.mark.clients
pytest.importorskip("lerobot")
SIDE = 32
STEPS = 6
SMALL = {
    "act": ["--policy.dim_model=32", "--policy.n_heads=2", "--policy.dim_feedforward=32", "--policy.chunk_size=4",
            "--policy.n_action_steps=2"],
    "diffusion": ["--policy.down_dims=[16,32]", "--policy.n_groups=4", "--policy.num_inference_steps=2",
                  "--policy.horizon=8", "--policy.n_action_steps=4", "--policy.crop_shape=null",
                  "--policy.diffusion_step_embed_dim=16", "--policy.use_group_norm=true"],
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Demonstrations of reach, as they come from data generation."""
    path = tmp_path_factory.mktemp("demos") / "reach.h5"
    camera = {"name": "front_cam", "width": SIDE, "height": SIDE}
    options = {"dt": 0.01, "max_steps": 20, "num_envs": 3, "cameras": [camera], "env_options": {"impl": "c"}}
    generate_dataset("reach", 3, str(path), "scripted", False, seed=0, **options)
    return path


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    return export_lerobot(source, tmp_path_factory.mktemp("lerobot") / "reach", images="h264")


def load(folder, **options) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("local/reach", root=folder, video_backend="pyav", **options)


@pytest.mark.parametrize("images", ["png", "h264", "av1"])
def test_its_reader_gives_what_was_recorded(source, tmp_path, caplog, images):
    dataset = load(export_lerobot(source, tmp_path / "reach", images=images))
    assert not [record.message for record in caplog.records if "nknown" in record.message]
    demos = DemonstrationFile(source)
    assert (len(dataset), dataset.num_episodes) == (demos.lengths.sum(), len(demos.names))
    assert dataset.meta.camera_keys == ["observation.images.front_cam"]
    row = 0
    for episode, length in enumerate(demos.lengths):
        pictures = demos.read(episode, "obs/image") / 255.0
        states = [demos.read(episode, f"obs/{key}") for key in ("ee_pos", "joint_pos", "joint_vel")]
        for frame in range(length):
            item = dataset[row]
            np.testing.assert_array_equal(item["observation.state"], np.concatenate([s[frame] for s in states]))
            np.testing.assert_array_equal(
                item["observation.environment_state"], demos.read(episode, "obs/target_pos")[frame]
            )
            np.testing.assert_array_equal(item["action"], demos.read(episode, "actions")[frame])
            assert (int(item["episode_index"]), int(item["frame_index"])) == (episode, frame)
            assert item["task"] == demos.language(episode)
            picture = item["observation.images.front_cam"].numpy().transpose(1, 2, 0)
            assert np.abs(picture - pictures[frame]).mean() < (1e-6 if images == "png" else 0.03)
            row += 1


def run(module, *arguments):
    """One of LeRobot's commands, which finds our plugin by its name."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def evaluate(policy, output, *arguments):
    chosen = [f"--policy.path={policy}", f"--output_dir={output}", "--policy.device=cpu", "--env.type=simscale"]
    run("lerobot.scripts.lerobot_eval", *chosen, "--eval.n_episodes=2", "--eval.batch_size=2", *arguments)
    return json.loads((output / "eval_info.json").read_text())["overall"]


@pytest.mark.parametrize("policy", list(SMALL))
def test_it_trains_its_own_policies_and_plays_them(folder, tmp_path, policy):
    chosen = [f"--dataset.root={folder}", "--dataset.repo_id=local/reach", "--dataset.video_backend=pyav"]
    chosen += [f"--output_dir={tmp_path / 'out'}", f"--policy.type={policy}", "--policy.push_to_hub=false"]
    chosen += ["--policy.device=cpu", f"--steps={STEPS}", "--batch_size=4", "--num_workers=0", "--log_freq=1"]
    run(
        "lerobot.scripts.lerobot_train",
        *chosen,
        "--wandb.enable=false",
        "--policy.pretrained_backbone_weights=null",
        *SMALL[policy],
    )
    trained = tmp_path / "out" / "checkpoints" / "last" / "pretrained_model"
    inputs = json.loads((trained / "config.json").read_text())["input_features"]
    assert set(inputs) == {"observation.state", "observation.environment_state", "observation.images.front_cam"}
    found = evaluate(trained, tmp_path / "eval", f"--env.dataset={folder}", "--eval.use_async_envs=false")
    assert (found["n_episodes"], len(found["video_paths"])) == (2, 2)


def test_a_policy_of_ours_acts_there_as_here(tmp_path):
    import torch
    from lerobot_env_simscale.__main__ import write_folder
    from lerobot_env_simscale.environment import make_env
    from lerobot_env_simscale.modeling_simscale import SimscalePolicy

    settings = {"cameras": [], "max_episode_steps": 9, "dt": 0.01}
    spec = sim.make_functional_env("reach", **settings).observation_spec
    agent = PPOAgent(20, 4, PPOConfig(hidden_dim=16))
    agent.observation_spec = {key: {"shape": list(leaf.shape), "dtype": "float32"} for key, leaf in spec.items()}
    agent.env_record = {"name": "reach", "config": settings}
    agent.save(str(tmp_path / "ours"))
    folder = write_folder(export_policy(tmp_path / "ours", tmp_path / "ours.safetensors"), tmp_path / "policy")

    env = make_env("reach", settings)
    seen, _ = env.reset(seed=3)
    names = {"agent_pos": "observation.state", "environment_state": "observation.environment_state"}
    batch = {names[key]: torch.as_tensor(value)[None] for key, value in seen.items()}
    action = SimscalePolicy.from_pretrained(folder).select_action(batch)[0].numpy()
    obs, _ = env.unwrapped.reset(seed=3)
    wanted = load_policy(tmp_path / "ours")(obs, jax.random.key(0))
    np.testing.assert_allclose(action, wanted, atol=1e-5)
    assert np.ptp(wanted) > 1e-3
    found = evaluate(folder, tmp_path / "eval", "--env.task=reach", "--env.episode_length=9")
    assert (found["n_episodes"], len(found["video_paths"])) == (2, 2)
