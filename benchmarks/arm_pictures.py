"""A picture of every arm that this machine has a model of, in its scene of pick_place, by MuJoCo's own renderer.

SIMSCALE_MENAGERIE=... MUJOCO_GL=egl python benchmarks/arm_pictures.py
"""

import argparse
from pathlib import Path

from PIL import Image

from simscaleai_jax.sim import list_robots, make_env

SIZE = (320, 240)  # pixels


def draw(name: str, seed: int) -> Image.Image:
    """The start of an episode, as `front_cam` sees it."""
    env = make_env("pick_place", robot=name, render_mode="rgb_array", renderer="mujoco", cameras=[])
    env.reset(seed=seed)
    return Image.fromarray(env.render()).resize(SIZE, Image.Resampling.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("robots", nargs="*", help="names of `simscale list-robots`, all by default")
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.robots or list_robots():
        path = options.output / f"arm_{name}.png"
        draw(name, options.seed).quantize(128).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
