"""Whether the accelerator computes what MuJoCo and the CPU compute: engines, pictures, gradients of PPO.

    python benchmarks/gpu_check.py [--engines warp jax c]

Engines: the same episodes under the same small actions on every engine and on MuJoCo's C engine ("c"); the largest
difference of a joint angle after `num_steps` control steps. Pictures: the ray-caster on the accelerator and on the CPU;
the share of pixels whose colour differs by more than 2 of 255. Gradients: PPO's loss on both. Writes JSON; ends with an
error where something is beyond its bound.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from stamp import stamp

RESULTS = Path(__file__).parent / "results" / "gpu_check.json"
BOUNDS = {"joint_angle_rad": 1e-3, "pixel_share": 0.01, "gradient_share": 1e-3}
SIDE = 64


def main() -> None:
    """Measures, writes JSON and says what is beyond its bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["warp", "jax", "c"])
    parser.add_argument("--env-name", default="pick_place")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--num-steps", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {"joint_angle_rad": {}, "pixel_share": {}, "gradient_share": {}}
    wanted = joints("c", options)
    for engine in options.engines:
        found["joint_angle_rad"][engine] = float(np.abs(joints(engine, options) - wanted).max())
        print(engine, found["joint_angle_rad"][engine], flush=True)
    found["pixel_share"]["front_cam"] = pixels(options.num_envs)
    found["gradient_share"]["ppo"] = gradients()
    wrong = [f"{kind} of {name}" for kind, each in found.items() for name, v in each.items() if not v <= BOUNDS[kind]]
    report = {"benchmark": "gpu_check", **stamp(), "bounds": BOUNDS, "differences": found, "wrong": wrong}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    if wrong:
        sys.exit(f"beyond its bound: {', '.join(wrong)}")


def joints(engine: str, options: argparse.Namespace) -> np.ndarray:
    """(B, J) joint angles after all steps."""
    from simscaleai_jax.sim import make_functional_env

    env = make_functional_env(options.env_name, dt=0.01, cameras=[], impl=engine)
    keys = jax.random.split(jax.random.key(0), options.num_envs)
    shape = options.num_steps, options.num_envs, env.action_size
    actions = np.random.default_rng(0).uniform(-0.2, 0.2, shape).astype(np.float32)

    def play(keys: Any, actions: Any) -> Any:
        step = jax.vmap(env.step)
        return jax.lax.scan(lambda s, a: (step(s, a), None), jax.vmap(env.reset)(keys), actions)[0]

    return np.asarray(jax.jit(play)(keys, actions).snapshot.joint_pos)


def pixels(count: int) -> float:
    """Share of pixels that the accelerator draws otherwise than the CPU."""
    from render_throughput import pick_states

    from simscaleai_jax.sim.render import camera_pose, geom_poses, make_scene, render

    model, states = pick_states(count)
    scene = make_scene(model)
    pos = np.stack([data.xpos for data in states]).astype(np.float32)
    mat = np.stack([data.xmat.reshape(-1, 3, 3) for data in states]).astype(np.float32)

    def one(body_pos: Any, body_mat: Any) -> Any:
        pose = camera_pose(scene, "front_cam", body_pos, body_mat)
        return render(scene, *geom_poses(scene, body_pos, body_mat), pose, SIDE, SIDE)["rgb"]

    draw = jax.jit(jax.vmap(one))
    there = np.asarray(draw(pos, mat)).astype(int)
    with jax.default_device(jax.devices("cpu")[0]):
        here = np.asarray(draw(pos, mat)).astype(int)
    return float((np.abs(there - here).max(-1) > 2).mean())


def gradients() -> float:
    """Length of the difference between both gradients of PPO's loss, beside the gradient's."""
    from simscaleai_jax.rl.ppo.config import PPOConfig
    from simscaleai_jax.rl.ppo.state import init_training_state, make_learner
    from simscaleai_jax.rl.ppo.update import Batch, ppo_loss

    sizes = {"obs_dim": 20, "action_dim": 4, "hidden_dim": 128, "n_layers": 2}
    learner, params = make_learner(PPOConfig(), sizes)
    state, rng, count = init_training_state(learner, params), np.random.default_rng(0), 1024
    columns = [rng.normal(size=count).astype(np.float32) for _ in range(4)]
    inputs = {"state": rng.normal(size=(count, 20)).astype(np.float32)}
    batch = Batch(inputs, rng.normal(size=(count, 4)).astype(np.float32), *columns)
    gradient = jax.jit(jax.grad(lambda params: ppo_loss(learner, params, state.normalizer, batch)[0]))

    def vector(device: Any) -> np.ndarray:
        with jax.default_device(device):
            tree = gradient(jax.device_put(params, device))
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])

    there, here = vector(jax.devices()[0]), vector(jax.devices("cpu")[0])
    return float(jnp.linalg.norm(there - here) / jnp.linalg.norm(here))


if __name__ == "__main__":
    main()
