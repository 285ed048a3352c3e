"""python -m lerobot_env_simscale EXPORT.safetensors FOLDER: makes the folder that `--policy.path` takes."""

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.utils.constants import ACTION, OBS_IMAGES

from lerobot_env_simscale.config import features_of
from lerobot_env_simscale.configuration_simscale import SimscaleConfig
from lerobot_env_simscale.environment import make_env
from lerobot_env_simscale.modeling_simscale import WEIGHTS
from lerobot_env_simscale.processor_simscale import make_simscale_pre_post_processors
from simscaleai_jax.interop.torch_mirror import load


def write_folder(export: str | Path, folder: str | Path) -> Path:
    """Writes config.json, the weights and the processors.

    Raises:
      ValueError: the file holds no policy, or names no environment.
    """
    policy, folder = load(export), Path(folder)
    config = policy_config(policy.record)
    folder.mkdir(parents=True, exist_ok=True)
    config._save_pretrained(folder)
    shutil.copyfile(export, folder / WEIGHTS)
    for processor in make_simscale_pre_post_processors(config):
        processor.save_pretrained(folder)
    return folder


def policy_config(record: dict[str, Any]) -> SimscaleConfig:
    """The configuration of an acting record (`simscaleai_jax.interop.acting`), by the environment that it names."""
    if not record["env"]:
        raise ValueError("The export names no environment, whose observations LeRobot joins; export a checkpoint's.")
    env = make_env(record["env"]["name"], {"cameras": []} | record["env"]["config"] | {"impl": "auto"})
    features, names = features_of(env)
    spaces = env.unwrapped.observation_space.spaces
    config = SimscaleConfig(device="cpu")
    config.input_features = {names[key]: feature for key, feature in features.items() if key != ACTION}
    config.output_features = {ACTION: features[ACTION]}
    config.observations = {
        names[name]: {key: int(np.prod(spaces[key].shape, dtype=int)) for key in keys}
        for name, keys in env.vectors.items()
    }
    config.cameras = {f"{OBS_IMAGES}.{camera}": key for key, camera in env.cameras.items()}
    env.close()
    return config


def main() -> None:
    """Parses the two paths."""
    parser = argparse.ArgumentParser("python -m lerobot_env_simscale", description=__doc__)
    parser.add_argument("export")
    parser.add_argument("folder")
    options = parser.parse_args()
    print(f"Wrote {write_folder(options.export, options.folder)}.")


if __name__ == "__main__":
    main()
