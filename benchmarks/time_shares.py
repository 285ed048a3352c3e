"""Where the time of a PPO update, a step of environments, a batch of pictures and a VLA training step goes, beside the
machine's limit.

    python benchmarks/time_shares.py

Each program is cut where its functions are cut, the parts are compiled alone and timed in turn with the whole on the
same inputs; medians of rounds. What XLA gains by fusing the parts shows as "the whole beside its parts". A part's limit
is what it cannot be faster than on this machine: bare `mujoco.batch.Batch` steps for physics, measured matrix products
for networks (FLOPs as XLA counts them). Measured in this run, too. Nothing is traced, so nothing is slowed down.
"""

import argparse
import functools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from machine import matmul, xla_bandwidth
from stamp import stamp

RESULTS = Path(__file__).parent / "results" / "time_shares.json"
RECIPE = "ppo_pick_place"
ENVS, STEPS = 128, 100
PICTURES, SIDE = 256, 64
VLA = {"image_size": 64, "patch_size": 8, "embed_dim": 128, "num_layers": 2, "dropout": 0.1}
VLA_BATCH = 32

Parts = dict[str, Callable[[], Any]]


def main() -> None:
    """Measures them and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    repeats = 3 if options.quick else options.repeats
    report: dict[str, Any] = {"benchmark": "time_shares", **stamp(), "quick": options.quick}
    report |= {
        "load_before": os.getloadavg()[0],
        "matmul_flops": max(matmul(size, "float32", 3) for size in (1024, 2048)),
    }
    report["memory_bytes_per_second"] = xla_bandwidth(2**27, 3)
    report["programs"] = {}
    for measure in (ppo_update, env_step, pictures, vla_step):
        name = measure.__name__
        report["programs"][name] = measure(repeats)
        print(name, json.dumps(report["programs"][name], indent=1), flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")


def rounds(parts: Parts, repeats: int) -> dict[str, float]:
    """Median milliseconds of each, all of them called in turn; the first round, which compiles, is left out."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(repeats + 1):
        for name, run in parts.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def flops(program: Any, *arguments: Any) -> float:
    """FLOPs of a jitted function as XLA counts them, loops once."""
    return float((program.lower(*arguments).compile().cost_analysis() or {}).get("flops", 0.0))


def table(whole: float, parts: dict[str, float]) -> dict[str, Any]:
    """A program's table: milliseconds of the whole and of parts that follow each other."""
    return {"whole_ms": whole, "parts_ms": parts, "whole_beside_parts": whole / sum(parts.values())}


def ppo_update(repeats: int) -> dict[str, Any]:
    """The recipe's update on pick and place after a few updates: rollout (physics, rest of the environment, policy),
    advantages, minibatches, statistics.
    """
    from env_throughput import BareLoop

    from simscaleai_jax.rl.agents.ppo import PPOAgent
    from simscaleai_jax.rl.ppo.rollout import collect, normalized
    from simscaleai_jax.rl.ppo.train import make_update, prepare, record
    from simscaleai_jax.rl.ppo.update import learn, minibatch_units
    from simscaleai_jax.tools.commands.rl import make_training_env, parse_options, ppo_config

    options = parse_options([RECIPE])
    env = make_training_env(options)
    agent = PPOAgent.for_env(env, ppo_config(options), "cpu" if jax.default_backend() == "cpu" else "auto")
    layout, learner = agent.layout(), agent.learner
    agent.train(env, progress=False, total_timesteps=4 * agent.config.n_steps)
    state = jax.tree.map(jnp.copy, agent.state)
    ids, env_ids = jnp.arange(layout.num_blocks), jnp.arange(layout.num_envs)
    rolled = jax.jit(lambda state: collect(learner, state, env, layout.num_steps, env_ids))
    prepared = jax.jit(lambda state, rollout: prepare(learner, state, rollout, layout, None))
    units_of = functools.partial(minibatch_units, layout=layout, blocks=ids, num_epochs=agent.config.n_epochs)

    def take_steps(state: Any, units: Any) -> Any:
        return learn(learner, state, units, units_of(jax.random.fold_in(jax.random.key(0), state.update)))

    learned = jax.jit(take_steps)
    recorded = jax.jit(lambda state, rollout: record(learner, state, rollout, None))
    whole = jax.jit(make_update(learner, env, layout))
    rollout = rolled(state)[1]
    after, units, _ = prepared(state, rollout)

    acted = jax.jit(lambda state, actions: jax.lax.scan(lambda s, a: (env.step(s, a), None), state, actions)[0])
    bare = BareLoop(env, state.env, rollout.action)

    @jax.jit
    def decided(state: Any, inputs: Any) -> Any:
        network = learner.network(state.params)

        def decide(_: None, each: Any) -> Any:
            distribution, value = network(normalized(each, state.normalizer, learner.config))
            return None, (distribution.mean, distribution.stddev, value)

        return jax.lax.scan(decide, None, inputs)[1]

    parts: Parts = {
        "whole": lambda: whole(state),
        "policy": lambda: decided(state, rollout.inputs),
        "env": lambda: acted(state.env, rollout.action),
        "bare": lambda: bare.run(),
        "advantages": lambda: prepared(state, rollout),
        "minibatches": lambda: learned(after, units),
        "statistics": lambda: recorded(after, rollout),
    }
    times = rounds(parts, repeats)
    minibatch = jax.jit(lambda state, units: learn(learner, state, units, units_of(state.key)[:1]))
    steps = agent.config.n_epochs * layout.num_minibatches
    found = table(
        times["whole"],
        {
            "physics (bare `mujoco.batch.Batch`)": times["bare"],
            "task, observation, auto-reset": times["env"] - times["bare"],
            "policy and value in the rollout": times["policy"],
            "advantages and returns": times["advantages"],
            f"{steps} minibatch steps": times["minibatches"],
            "statistics": times["statistics"],
        },
    )
    return found | {
        "transitions": agent.config.n_steps,
        "steps_per_second": 1e3 * agent.config.n_steps / times["whole"],
        "minibatch_flops": steps * flops(minibatch, after, units),
        "minibatch_ms": times["minibatches"],
    }


def env_step(repeats: int) -> dict[str, Any]:
    """A step of pick and place, a few environments as in the comparison with other libraries, of random actions."""
    from env_throughput import BareLoop, recorded

    from simscaleai_jax.sim import make_batched_env

    env = make_batched_env("pick_place", dt=0.01, cameras=[], impl="c")
    single, ids = env.functional, jnp.arange(ENVS)
    actions = jax.random.uniform(jax.random.key(1), (STEPS, ENVS, env.action_size), minval=-1, maxval=1)
    state = jax.jit(env.init)(jax.random.key(0), ids)
    before, targets = jax.tree.map(jnp.asarray, recorded(env, state, actions))
    physics, step = jax.vmap(single.physics.step), jax.vmap(single.step)
    overrides = state.env.overrides
    programs = {
        "engine": jax.jit(lambda b, t: jax.lax.map(lambda each: physics(each[0], each[1], overrides)[0].qpos, (b, t))),
        "task": jax.jit(lambda s, a: jax.lax.scan(lambda s, a: (step(s, a), None), s, a)[0]),
        "whole": jax.jit(lambda s, a: jax.lax.scan(lambda s, a: (env.step(s, a), None), s, a)[0]),
    }
    parts: Parts = {
        "bare": BareLoop(env, state, actions).run,
        "engine": lambda: programs["engine"](before, targets),
        "task": lambda: programs["task"](state.env, actions),
        "whole": lambda: programs["whole"](state, actions),
    }
    times = {name: value / STEPS for name, value in rounds(parts, repeats).items()}
    found = table(
        times["whole"],
        {
            "physics (bare `mujoco.batch.Batch`)": times["bare"],
            "to the engine and back: callback, copies": times["engine"] - times["bare"],
            "task: actions, observation, reward, ends": times["task"] - times["engine"],
            "auto-reset": times["whole"] - times["task"],
        },
    )
    return found | {"num_envs": ENVS, "steps_per_second": 1e3 * ENVS / times["whole"]}


def pictures(repeats: int) -> dict[str, Any]:
    """A batch of pictures of the pick scene: nearest hits of the rays, then colour; shadows and segmentation apart."""
    from render_throughput import pick_states

    from simscaleai_jax.sim.render import camera_pose, geom_poses, make_scene, render

    model, states = pick_states(PICTURES)
    scene = make_scene(model)
    pos = jnp.asarray(np.stack([data.xpos for data in states]), jnp.float32)
    mat = jnp.asarray(np.stack([data.xmat.reshape(-1, 3, 3) for data in states]), jnp.float32)

    def draw(**wanted: Any) -> Any:
        def one(body_pos: Any, body_mat: Any) -> Any:
            pose = camera_pose(scene, "front_cam", body_pos, body_mat)
            return render(scene, *geom_poses(scene, body_pos, body_mat), pose, SIDE, SIDE, **wanted)

        return jax.jit(jax.vmap(one))

    programs = {
        "poses": jax.jit(jax.vmap(lambda p, m: geom_poses(scene, p, m))),
        "depth": draw(rgb=False, segmentation=False),
        "all": draw(),
        "shadows": draw(shadows=True),
    }
    times = rounds({name: functools.partial(program, pos, mat) for name, program in programs.items()}, repeats)
    found = table(
        times["all"],
        {
            "poses of the geoms": times["poses"],
            "nearest hits of one ray a pixel (depth)": times["depth"] - times["poses"],
            "colour, with the rays that smooth it, and segmentation": times["all"] - times["depth"],
        },
    )
    pixels = PICTURES * SIDE * SIDE
    return found | {
        "pictures": PICTURES,
        "frames_per_second": 1e3 * PICTURES / times["all"],
        "shadows_ms": times["shadows"] - times["all"],
        "flops": flops(programs["all"], pos, mat),
        "bytes_written": pixels * (3 + 4 + 4),
    }


def vla_step(repeats: int) -> dict[str, Any]:
    """A training step of the VLA at 64x64 pixels: loss, gradients, optimizer."""
    import optax
    from flax import nnx

    from simscaleai_jax.models import create_model
    from simscaleai_jax.models.specs import fake_batch

    model = create_model("vla", **VLA)
    batch = jax.device_put(fake_batch(model.input_spec(VLA_BATCH)))
    graph, params = nnx.split(model)
    optimizer = optax.adamw(1e-4)
    state = optimizer.init(params)

    def loss(params: Any) -> Any:
        return nnx.merge(graph, params)(batch, key=jax.random.key(0))["loss"]

    def step(params: Any, state: Any) -> Any:
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    forward, backward, whole = jax.jit(loss), jax.jit(jax.grad(loss)), jax.jit(step)
    gradients = backward(params)

    def apply(params: Any, state: Any, gradients: Any) -> Any:
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    applied = jax.jit(apply)
    runs: Parts = {
        "whole": lambda: whole(params, state),
        "forward": lambda: forward(params),
        "backward": lambda: backward(params),
        "optimizer": lambda: applied(params, state, gradients),
    }
    times = rounds(runs, repeats)
    parts = {
        "loss": times["forward"],
        "gradients beyond the loss": times["backward"] - times["forward"],
        "AdamW": times["optimizer"],
    }
    samples = {"batch": VLA_BATCH, "flops": flops(whole, params, state)}
    return table(times["whole"], parts) | samples


if __name__ == "__main__":
    main()
