"""One environment behind the gymnasium API: the scripted expert picks up the cube, and a film of it.

python examples/gymnasium_expert.py
python examples/gymnasium_expert.py --env-name reach --episodes 1
"""

import dataclasses
from pathlib import Path

import numpy as np
import tyro

from simscaleai_jax.sim import make_env
from simscaleai_jax.sim.registry import find_task
from simscaleai_jax.sim.video import write_video


@dataclasses.dataclass(frozen=True)
class Options:
    env_name: str = "pick_place"
    episodes: int = 3
    output: Path = Path("outputs/expert.mp4")


def main(options: Options) -> None:
    env = make_env(options.env_name, render_mode="rgb_array", cameras=[])
    expert = find_task(options.env_name).make_expert(env.task)
    frames = []
    for episode in range(options.episodes):
        env.reset(seed=episode)
        phase, done, total = expert.first_phase, False, 0.0
        while not done:
            action, phase = expert.act(env.snapshot, env.task_state, phase)
            _, reward, terminated, truncated, info = env.step(np.asarray(action))
            frames.append(env.render())
            total, done = total + reward, terminated or truncated
        print(f"episode {episode}: {'success' if info['success'] else 'failure'}, return {total:.2f}")
    print("film:", write_video(options.output, frames, fps=env.metadata["render_fps"]))
    env.close()


if __name__ == "__main__":
    main(tyro.cli(Options))
