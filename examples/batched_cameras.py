"""Pictures of many environments in one call of the ray-caster, tiled into one file.

python examples/batched_cameras.py
python examples/batched_cameras.py --num-envs 4 --side 32
"""

import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from PIL import Image

from simscaleai_jax.rl.film import tile
from simscaleai_jax.sim import make_batched_env


@dataclasses.dataclass(frozen=True)
class Options:
    env_name: str = "pick_place"
    num_envs: int = 16
    side: int = 128
    output: Path = Path("outputs/cameras.png")


def main(options: Options) -> None:
    camera = {"name": "front_cam", "width": options.side, "height": options.side}
    own = {"domain_randomization": True, "randomization": "default"}  # other cameras, lights and objects in each
    env = make_batched_env(options.env_name, dt=0.01, cameras=[camera], **own)
    state = jax.jit(env.init)(jax.random.key(0), jnp.arange(options.num_envs))
    step, action = jax.jit(env.step), jnp.zeros((options.num_envs, env.action_size))
    state = jax.block_until_ready(step(state, action))
    start = time.perf_counter()
    for _ in range(10):
        state = step(state, action)
    jax.block_until_ready(state.obs["image"])
    rate = 10 * options.num_envs / (time.perf_counter() - start)
    print(f"{rate:,.0f} steps/s, a picture of {options.side} x {options.side} pixels with each")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(tile(np.asarray(state.obs["image"]), int(options.num_envs**0.5))).save(options.output)
    print("pictures:", options.output)


if __name__ == "__main__":
    main(tyro.cli(Options))
