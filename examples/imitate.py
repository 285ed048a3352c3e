"""From demonstrations to a policy that runs in torch: generate, train, evaluate, export.

python examples/imitate.py
python examples/imitate.py --demonstrations 4 --updates 10 --episodes 2
"""

import dataclasses
from pathlib import Path

import tyro

from simscaleai_jax.datagen import generate_dataset
from simscaleai_jax.datagen.noise import NoiseConfig
from simscaleai_jax.interop import export_policy
from simscaleai_jax.models import create_model
from simscaleai_jax.policy import load_policy
from simscaleai_jax.rl.evaluator import EvalConfig, evaluate_policy
from simscaleai_jax.sim import make_functional_env
from simscaleai_jax.training.data import TrajectoryDataset, make_loader
from simscaleai_jax.training.setup import dataset_statistics
from simscaleai_jax.training.trainer import TrainConfig, Trainer


@dataclasses.dataclass(frozen=True)
class Options:
    demonstrations: int = 300
    updates: int = 3_000
    episodes: int = 100
    output: Path = Path("outputs/imitate")


def main(options: Options) -> None:
    file = str(options.output / "reach.h5")
    noise = NoiseConfig(std=0.3)
    generate_dataset("reach", options.demonstrations, file, "scripted", False, dt=0.01, noise=noise)
    dataset = TrajectoryDataset(file, split="train")
    batch_size = min(256, len(dataset))
    config = TrainConfig(
        lr=1e-3, max_steps=options.updates, warmup_steps=options.updates // 10,
        checkpoint_dir=str(options.output / "run"), device="cpu",
    )  # fmt: skip
    model = create_model("bc", state_dim=20, action_dim=4)
    Trainer(model, make_loader(dataset, batch_size), config, statistics=dataset_statistics(dataset)).train()

    policy = load_policy(options.output / "run")
    env = make_functional_env("reach", dt=0.01, cameras=[])
    print("success:", evaluate_policy(env, policy, EvalConfig(options.episodes))["success_rate"])
    print("for torch:", export_policy(options.output / "run", options.output / "policy.safetensors"))


if __name__ == "__main__":
    main(tyro.cli(Options))
