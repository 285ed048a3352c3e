"""Our demonstrations in other projects' readers and policies: LeRobot, robomimic, Minari."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from simscaleai_jax.core import checkpoint
from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.core.intervals import wilson
from simscaleai_jax.datagen import generate_dataset
from simscaleai_jax.datagen.formats.lerobot_export import export_lerobot
from simscaleai_jax.datagen.formats.minari_export import export_minari
from simscaleai_jax.datagen.formats.robomimic_export import export_robomimic
from simscaleai_jax.datagen.noise import NoiseConfig
from simscaleai_jax.interop import export_policy

STATE_EPISODES, VIDEO_EPISODES, EVAL_EPISODES = 10_000, 500, 200
CAMERAS = ("front_cam", "wrist_cam")
SIDE = 64
STATES = ["ee_pos", "joint_pos", "joint_vel", "target_pos"]
ACT = [
    "--policy.type=act", "--policy.dim_model=128", "--policy.n_heads=4", "--policy.dim_feedforward=256",
    "--policy.n_encoder_layers=2", "--policy.chunk_size=8", "--policy.n_action_steps=4", "--policy.use_vae=false",
    "--policy.optimizer_lr=1e-3", "--batch_size=64",
]  # fmt: skip
ACT_STEPS = 1000


def lerobot_states(folder: Path) -> dict[str, Any]:
    """Export of many state episodes: seconds by the clock and of the processor."""
    source = demonstrations(folder / "states.h5", STATE_EPISODES)
    found = timed(lambda: export_lerobot(source, folder / "states"))
    dataset = lerobot(folder / "states")
    return {
        "episodes": dataset.num_episodes,
        "frames": len(dataset),
        **found,
        "episodes_per_second": round(dataset.num_episodes / found["seconds"], 1),
    }


def lerobot_videos(folder: Path) -> dict[str, Any]:
    """Export of episodes with two cameras as H.264, and every frame of it in LeRobot's own reader."""
    cameras = [{"name": name, "width": SIDE, "height": SIDE} for name in CAMERAS]
    source = demonstrations(folder / "videos.h5", VIDEO_EPISODES, cameras=cameras)
    export = timed(lambda: export_lerobot(source, folder / "videos", images="h264"))
    dataset, demos = lerobot(folder / "videos"), DemonstrationFile(source)
    assert dataset.num_episodes == VIDEO_EPISODES
    start, worst = time.perf_counter(), 0.0
    row, keys = 0, dict(zip(CAMERAS, demos.image_keys, strict=True))  # the first is "image", others by their names
    for episode, length in enumerate(demos.lengths.tolist()):
        pictures = {name: demos.read(episode, f"obs/{key}") for name, key in keys.items()}
        for step in range(length):
            item = dataset[row]
            assert (int(item["episode_index"]), int(item["frame_index"])) == (episode, step)
            for name, frames in pictures.items():
                shown = item[f"observation.images.{name}"].numpy().transpose(1, 2, 0)
                worst = max(worst, float(np.abs(shown - frames[step] / 255.0).mean()))
            row += 1
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in (folder / "videos" / "videos").rglob("*.mp4"))
    return {
        "episodes": VIDEO_EPISODES, "frames": row, "cameras": len(CAMERAS), "side": SIDE, "export": export,
        "megabytes": round(size / 1e6, 1), "read_seconds": round(seconds, 1),
        "frames_per_second": round(row / seconds, 1), "largest_mean_error": worst,
    }  # fmt: skip


def robomimic(folder: Path) -> dict[str, Any]:
    """Every step in robomimic's loader."""
    from robomimic.utils import obs_utils
    from robomimic.utils.dataset import SequenceDataset

    source = demonstrations(folder / "robomimic_source.h5", 200)
    found = timed(lambda: export_robomimic(source, folder / "robomimic.h5"))
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": STATES}})
    loader = SequenceDataset(
        str(folder / "robomimic.h5"), STATES, ("actions", "rewards", "dones"), seq_length=1, frame_stack=1,
        hdf5_cache_mode="low_dim", hdf5_use_swmr=False, load_next_obs=True,
    )  # fmt: skip
    rows = np.stack([loader[i]["actions"][0] for i in range(len(loader))])
    return {"episodes": 200, "frames": len(rows), "is_equal": bool((rows == _actions(source)).all()), **found}


def minari(folder: Path) -> dict[str, Any]:
    """Every episode in Minari's reader."""
    from minari import MinariDataset

    source = demonstrations(folder / "minari_source.h5", 200)
    found = timed(lambda: export_minari(source, folder / "reach-v0"))
    dataset = MinariDataset(folder / "reach-v0" / "data")
    rows = np.concatenate([episode.actions for episode in dataset.iterate_episodes()])
    return {"episodes": 200, "frames": len(rows), "is_equal": bool((rows == _actions(source)).all()), **found}


def lerobot_ours(folder: Path, path: str | Path) -> dict[str, Any]:
    """`lerobot-eval` of a checkpoint of ours, exported, in the environment that it was trained in."""
    path = checkpoint.resolve(path)
    export = export_policy(path, folder / "policy.safetensors")
    command = [sys.executable, "-m", "lerobot_env_simscale", str(export), str(folder / "policy")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    env = checkpoint.read_manifest(path).env
    settings = [f"--env.task={env['name']}", f"--env.dt={env['config'].get('dt', 0.002)}"]
    return evaluated(folder / "policy", folder / "eval_ours", settings)


def lerobot_act(folder: Path) -> dict[str, Any]:
    """LeRobot's own ACT, trained by LeRobot on our export and played by it in our environment."""
    source = demonstrations(folder / "act_source.h5", 300, noise=NoiseConfig(std=0.3), only_success=True)
    data = export_lerobot(source, folder / "act_data")
    chosen = [f"--dataset.root={data}", "--dataset.repo_id=local/reach", f"--output_dir={folder / 'act'}"]
    chosen += ["--policy.device=cpu", "--policy.push_to_hub=false", f"--steps={ACT_STEPS}", "--num_workers=0"]
    chosen += ["--wandb.enable=false", "--log_freq=200", f"--save_freq={ACT_STEPS}", "--seed=0"]
    trained = timed(lambda: lerobot_command("lerobot.scripts.lerobot_train", *chosen, *ACT))
    policy = folder / "act" / "checkpoints" / "last" / "pretrained_model"
    found = evaluated(policy, folder / "eval_act", [f"--env.dataset={data}"])
    return {"demonstrations": 300, "updates": ACT_STEPS, "training": trained, **found}


def evaluated(policy: Path, output: Path, settings: list[str]) -> dict[str, Any]:
    """What `lerobot-eval` counts."""
    chosen = [f"--policy.path={policy}", f"--output_dir={output}", "--policy.device=cpu", "--env.type=simscale"]
    chosen += [
        f"--eval.n_episodes={EVAL_EPISODES}",
        "--eval.batch_size=50",
        "--eval.use_async_envs=false",
        "--seed=70000",
        *settings,
    ]
    lerobot_command("lerobot.scripts.lerobot_eval", *chosen)
    found = json.loads((output / "eval_info.json").read_text())["overall"]
    rate = found["pc_success"] / 100.0
    return {"success": rate, "episodes": found["n_episodes"], "interval": wilson(rate, found["n_episodes"])}


def lerobot_command(module: str, *arguments: str) -> None:
    """One of LeRobot's commands, which finds our plugin by its name, with nothing from the network."""
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} ended with {done.returncode}:\n{done.stderr[-3000:]}")


def lerobot(folder: Path) -> Any:
    """LeRobot's own reader of a folder."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("local/reach", root=folder, video_backend="pyav")


def demonstrations(path: Path, count: int, **options: Any) -> Path:
    """Demonstrations of reach by its scripted expert."""
    settings = {"dt": 0.01, "num_envs": 256, "env_options": {"impl": "c"}, "seed": 1} | options
    generate_dataset("reach", count, str(path), "scripted", False, 100, **settings)
    return path


def timed(function: Callable[[], Any]) -> dict[str, float]:
    """Seconds by the clock, and of the processor, its children's included."""
    start, used = time.perf_counter(), _processor_seconds()
    function()
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "processor_seconds": round(_processor_seconds() - used, 2),
    }


def _processor_seconds() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


def _actions(source: Path) -> np.ndarray:
    demos = DemonstrationFile(source)
    return np.concatenate([demos.read(i, "actions") for i in range(len(demos.names))])
