"""Frames per second of the ray-caster beside mujoco.Renderer, in one run on one machine.

    MUJOCO_GL=egl python benchmarks/render_throughput.py        writes results/render_throughput.json
    python benchmarks/render_throughput.py --no-opengl          where there is no OpenGL (a GPU machine, say)

Both draw the pick-and-place scene in the same random states: RGB, depth and segmentation of every state at 64x64. The
ray-caster draws them as one batch that stays on the device; mujoco.Renderer draws them one by one. A second process,
which may use one core only, measures `env.render_camera()` at 128x128 on the host adapter.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "render_throughput.json"
SIZE, CAMERAS = 64, ("front_cam", "wrist_cam")
TARGETS = {"times_mujoco_renderer": 20.0, "host_frame_ms": 15.0}


def main() -> None:
    """Measures, prints a line per case and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-opengl", action="store_true")
    parser.add_argument("--host-frame-only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.host_frame_only:
        print(json.dumps(host_frame()))
        return
    model, states = pick_states(options.batch)
    cases = []
    for camera in CAMERAS:
        case = {
            "camera": camera,
            "size": SIZE,
            "batch": options.batch,
            **ray_caster(model, states, camera, options.repeats),
        }
        if not options.no_opengl:
            case["mujoco_renderer_fps"] = opengl(model, states[:20], camera)
            case["times_mujoco_renderer"] = case["ray_caster_fps"] / case["mujoco_renderer_fps"]
        cases.append(case)
        print(json.dumps(case), flush=True)
    done = subprocess.run([sys.executable, __file__, "--host-frame-only"], capture_output=True, text=True, check=True)
    frame = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(frame))
    from stamp import stamp

    report = {"benchmark": "render_throughput", **stamp(), "targets": TARGETS, "cases": cases, "host_adapter": frame}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")


def pick_states(count: int) -> tuple[Any, list[Any]]:
    """The pick-and-place model and data with the arm, the gripper and the cube at random."""
    from importlib.resources import files

    import mujoco

    model = mujoco.MjModel.from_xml_path(str(files("simscaleai_jax.sim") / "assets" / "pick_place.xml"))
    rng, states = np.random.default_rng(0), []
    for _ in range(count):
        data = mujoco.MjData(model)
        mujoco.mj_resetDataKeyframe(model, data, 0)
        data.qpos[:7] += rng.uniform(-0.4, 0.4, 7)
        data.qpos[7:9] = rng.uniform(0.0, 0.04)
        data.qpos[9:12] = rng.uniform([0.4, -0.2, 0.02], [0.65, 0.2, 0.2])
        mujoco.mj_forward(model, data)
        states.append(data)
    return model, states


def ray_caster(model: Any, states: list[Any], camera: str, repeats: int) -> dict[str, float]:
    """Best of `repeats` batches: frames per second with all three images, with RGB alone, and seconds to compile."""
    import jax

    from simscaleai_jax.sim.render import camera_pose, geom_poses, make_scene, render

    scene = make_scene(model)
    pos = np.stack([data.xpos for data in states]).astype(np.float32)
    mat = np.stack([data.xmat.reshape(-1, 3, 3) for data in states]).astype(np.float32)
    pos, mat = jax.device_put((pos, mat))

    def seconds(**wanted: Any) -> tuple[float, float]:
        def one(body_pos, body_mat):
            pose = camera_pose(scene, camera, body_pos, body_mat)
            return render(scene, *geom_poses(scene, body_pos, body_mat), pose, SIZE, SIZE, **wanted)

        start = time.perf_counter()
        draw = jax.jit(jax.vmap(one)).lower(pos, mat).compile()
        compiled = time.perf_counter() - start
        jax.block_until_ready(draw(pos, mat))
        return min(_timed(lambda: jax.block_until_ready(draw(pos, mat))) for _ in range(repeats)), compiled

    everything, compiled = seconds()
    rgb, _ = seconds(depth=False, segmentation=False)
    shadows, _ = seconds(shadows=True)
    count = len(states)
    return {
        "ray_caster_fps": count / everything,
        "ray_caster_rgb_only_fps": count / rgb,
        "ray_caster_with_shadows_fps": count / shadows,
        "compile_seconds": compiled,
    }


def opengl(model: Any, states: list[Any], camera: str) -> float:
    """Frames per second of mujoco.Renderer, one by one: RGB, depth and segmentation of each state."""
    from simscaleai_jax.sim.render import make_host_renderer

    renderer = make_host_renderer(model, "mujoco")

    def draw() -> None:
        for data in states:
            renderer.images(data, camera, SIZE, SIZE, depth=True, segmentation=True)

    draw()
    rate = len(states) / min(_timed(draw) for _ in range(3))
    renderer.close()
    return rate


def host_frame() -> dict[str, float]:
    """Median milliseconds of `env.render_camera()` at 128x128 with RGB, depth and segmentation, on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before JAX starts its threads
    from simscaleai_jax.sim import CameraConfig, make_env

    env = make_env("pick_place", cameras=[CameraConfig("front_cam", 128, 128)])
    env.reset(seed=0)

    def draw() -> Any:
        return env.unwrapped.render_camera(depth=True, segmentation=True)

    first = _timed(draw)
    later = [_timed(draw) for _ in range(100)]
    return {
        "size": 128,
        "cores": 1,
        "first_call_ms": 1e3 * first,
        "median_ms": 1e3 * float(np.median(later)),
        "p95_ms": 1e3 * float(np.percentile(later, 95)),
    }


def _timed(fn: Any) -> float:
    start = time.perf_counter()
    fn()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
