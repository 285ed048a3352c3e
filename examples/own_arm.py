"""Your own arm, from its MJCF file: look at what was found in it, and train it to reach.

python examples/own_arm.py arm.xml
python examples/own_arm.py arm.xml --total-steps 4096
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.sim import make_batched_env, make_env
from simscaleai_jax.sim.video import write_video


@dataclasses.dataclass(frozen=True)
class Options:
    xml_path: Annotated[Path, tyro.conf.Positional]
    total_steps: int = 200_000
    output: Path = Path("outputs/own_arm.mp4")


def main(options: Options) -> None:
    host = make_env("reach", render_mode="rgb_array", xml_path=str(options.xml_path), cameras=[])
    robot = host.task.robot
    print(f"{len(robot.joint_range)} joints; observations:")
    for name, box in host.observation_space.items():
        print(f"  {name} {box.shape}")

    env = make_batched_env("reach", dt=0.01, max_episode_steps=50, xml_path=str(options.xml_path), cameras=[])
    config = PPOConfig(
        num_envs=256, n_steps=4096, num_minibatches=8, n_epochs=5, hidden_dim=64, lr=1e-3, lr_schedule="linear",
        gamma=0.95, entropy_coef=0.0, log_std_init=-0.5, normalize_rewards=True, total_timesteps=options.total_steps,
    )  # fmt: skip
    agent = PPOAgent.for_env(env, config)
    agent.train(env)

    frames, (obs, _) = [], host.reset(seed=0)
    for _ in range(50):
        obs, _, terminated, _, info = host.step(agent.predict(obs))
        frames.append(host.render())
        if terminated:
            break
    print("arrived" if info["success"] else "missed", "- film:", write_video(options.output, frames))


if __name__ == "__main__":
    main(tyro.cli(Options))
