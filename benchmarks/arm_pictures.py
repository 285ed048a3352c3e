"""A picture of every arm that this machine has a model of, in its scene of pick_place, by MuJoCo's own renderer.

SIMSCALE_MENAGERIE=... MUJOCO_GL=egl python benchmarks/arm_pictures.py
"""

import argparse
from pathlib import Path

import mujoco
import numpy as np
from PIL import Image

from simscaleai_jax.sim import list_robots, make_env
from simscaleai_jax.sim.robot.arms import find_arm

SIZE = (240, 320)  # pixels, height and width


def draw(name: str, seed: int) -> np.ndarray:
    """The start of an episode (H, W, 3), seen from the side, as near as the arm is small."""
    env = make_env("pick_place", robot=name, cameras=[])
    env.reset(seed=seed)
    reach = find_arm(name).workspace_high[0]
    camera = mujoco.MjvCamera()
    camera.lookat[:] = (0.55 * reach, 0.0, 0.35 * reach)
    camera.distance, camera.azimuth, camera.elevation = 2.2 * reach, 130.0, -27.0
    with mujoco.Renderer(env.unwrapped.model, *SIZE) as renderer:
        renderer.update_scene(env.unwrapped.data, camera)
        return renderer.render()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("robots", nargs="*", help="names of `simscale list-robots`, all by default")
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.robots or list_robots():
        path = options.output / f"arm_{name}.png"
        Image.fromarray(draw(name, options.seed)).quantize(128).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
