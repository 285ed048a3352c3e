"""Train PPO on reach, draw its curve, evaluate it on two physics engines, and film it.

python examples/train_ppo.py
python examples/train_ppo.py --total-steps 4096 --episodes 4
"""

import dataclasses
from pathlib import Path

import tyro

from simscaleai_jax.policy import load_policy
from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.rl.curves import plot_learning_curve
from simscaleai_jax.rl.evaluator import EvalConfig, evaluate_policy
from simscaleai_jax.sim import make_batched_env, make_env


@dataclasses.dataclass(frozen=True)
class Options:
    total_steps: int = 400_000
    episodes: int = 100
    output: Path = Path("outputs/train_ppo")


def main(options: Options) -> None:
    env = make_batched_env("reach", dt=0.01, max_episode_steps=50, cameras=[])
    config = PPOConfig(
        num_envs=256, n_steps=4096, num_minibatches=8, n_epochs=5, hidden_dim=64, lr=1e-3, lr_schedule="linear",
        gamma=0.95, entropy_coef=0.0, log_std_init=-0.5, normalize_rewards=True, total_timesteps=options.total_steps,
    )  # fmt: skip
    agent = PPOAgent.for_env(env, config)
    history = agent.train(env)
    agent.save(options.output / "policy")
    print("curve:", plot_learning_curve(history, options.output / "learning_curve.png", "PPO on reach"))

    policy = load_policy(options.output / "policy")
    judged = EvalConfig(options.episodes, 50, video_dir=str(options.output))
    print("training's engine:", evaluate_policy(env, policy, judged)["success_rate"])
    with make_env("reach", render_mode="rgb_array", cameras=[], max_episode_steps=50) as host:
        filmed = dataclasses.replace(judged, save_videos=True, max_videos=1, on_host=True)
        print("MuJoCo at dt 0.002:", evaluate_policy(host, policy, filmed)["success_rate"])


if __name__ == "__main__":
    main(tyro.cli(Options))
