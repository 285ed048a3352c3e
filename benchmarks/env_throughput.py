"""Environment throughput: batched MJX and PPO against the number of environments, the host adapter against MuJoCo.

    python benchmarks/env_throughput.py [--env-name reach] [--output benchmarks/results/env_throughput_reach.json]
    python benchmarks/env_throughput.py --image-size 64 --num-envs 256 --output benchmarks/results/pixels_reach.json

Prints a table and writes JSON stamped with the machine and the versions. Every figure is the median of several
repeats in this one run; the adapter and the bare loop over `mj_step` alternate in short blocks, so that their ratio
holds even where the machine's speed drifts. PPO's figure is training with everything on: environments, rollouts,
minibatches, statistics.
"""

import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import tyro
from stamp import stamp

from simscaleai_jax.core.compile_cache import enable
from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.sim import CameraConfig, make_batched_env, make_env


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      env_name: task.
      num_envs: batch sizes.
      dt: seconds per physics step of the batched environment.
      repeats: timed repeats of each figure.
      ppo: measure PPO too.
      image_size: side of an image of front_cam in every observation, in pixels, which PPO encodes; 0: no image.
      impl: "auto", "jax" or "warp".
      output: JSON file; default benchmarks/results/env_throughput_<env_name>.json.
    """

    env_name: str = "reach"
    num_envs: tuple[int, ...] = (64, 256, 1024, 4096)
    dt: float = 0.01
    repeats: int = 5
    ppo: bool = True
    image_size: int = 0
    impl: str = "auto"
    output: str = ""


def main(options: Options) -> None:
    enable()
    path = Path(options.output or f"benchmarks/results/env_throughput_{options.env_name}.json")
    result: dict[str, Any] = {"env_name": options.env_name, "dt": options.dt, "image_size": options.image_size}
    result["host"] = host = measure_host(options)
    print(
        f"host adapter {host['steps_per_second']:,.0f} env steps/s at dt {host['dt']}, "
        f"{host['share_of_bare']:.0%} of a bare mj_step loop"
    )
    result["batched"] = []
    for count in options.num_envs:
        result["batched"].append(measure_batched(options, count))
        print(
            "{num_envs:>6} envs  {steps_per_second:>10,.0f} env steps/s  {ppo_steps_per_second:>8,.0f} in PPO  "
            "reset overhead {reset_overhead:+.1%}  {bytes_per_env:,} bytes per env".format(**result["batched"][-1]),
            flush=True,
        )
        path.write_text(json.dumps(stamp() | result, indent=1) + "\n")


def measure_batched(options: Options, num_envs: int) -> dict[str, float]:
    """Env steps per second with everything on (task, reward terms, info, auto-reset), and the cost of auto-reset."""
    side = options.image_size
    cameras = [CameraConfig("front_cam", side, side, 45.0)] if side else []
    env = make_batched_env(options.env_name, dt=options.dt, cameras=cameras, impl=options.impl)
    num_steps = max(10, 16384 // num_envs)
    state = jax.jit(env.init)(jax.random.key(0), jnp.arange(num_envs))

    def actions(t):
        return jax.random.uniform(
            jax.random.fold_in(jax.random.key(1), t), (num_envs, env.action_size), minval=-1, maxval=1
        )

    def with_reset(state, start):
        return jax.lax.scan(lambda s, t: (env.step(s, actions(start + t)), None), state, jnp.arange(num_steps))[0]

    step = jax.vmap(env.functional.step)

    def without_reset(state, start):
        return jax.lax.scan(lambda s, t: (step(s, actions(start + t)), None), state, jnp.arange(num_steps))[0]

    seconds = alternate(
        [jax.jit(with_reset, donate_argnums=0), jax.jit(without_reset, donate_argnums=0)],
        [jax.tree.map(jnp.copy, state), jax.tree.map(jnp.copy, state.env)],
        options.repeats,
    )
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state) if hasattr(leaf, "nbytes")) // num_envs
    return {
        "num_envs": num_envs,
        "steps_per_second": num_envs * num_steps / seconds[0],
        "reset_overhead": seconds[0] / seconds[1] - 1.0,
        "bytes_per_env": size,
        "ppo_steps_per_second": measure_ppo(options, env, num_envs) if options.ppo else float("nan"),
    }


def measure_ppo(options: Options, env: Any, num_envs: int) -> float:
    """Transitions per second of training, the median over updates; the first one is not counted."""
    n_steps = 16 * num_envs
    config = PPOConfig(
        num_envs=num_envs, n_steps=n_steps, num_minibatches=8, n_epochs=4, updates_per_dispatch=1,
        encoder="cnn" if options.image_size else "none",
        total_timesteps=n_steps * (options.repeats + 1),
    )  # fmt: skip
    history = PPOAgent.for_env(env, config).train(env, progress=False)
    return statistics.median(history["steps_per_second"][1:])


def alternate(functions, states, repeats):
    """Median seconds of each function, called in turn on its own running state."""
    times = [[] for _ in functions]
    for repeat in range(repeats + 1):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            states[i] = jax.block_until_ready(function(states[i], jnp.int32(repeat * 1000)))
            if repeat:
                times[i].append(time.perf_counter() - start)
    return [statistics.median(times_of) for times_of in times]


def measure_host(options: Options, block: int = 40) -> dict[str, float]:
    """The adapter at the documented time step against a bare loop over `mj_step` on the same model."""
    env = make_env(options.env_name, cameras=[])
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    action = rng.uniform(-0.3, 0.3, env.action_space.shape).astype(np.float32)
    data = mujoco.MjData(env.model)
    mujoco.mj_resetDataKeyframe(env.model, data, 0)
    substeps = env.config.substeps
    ratios, rates = [], []
    for repeat in range(options.repeats * 20):
        if repeat % 10 == 0:
            env.reset(seed=repeat)
        start = time.perf_counter()
        for _ in range(block):
            env.step(action)
        middle = time.perf_counter()
        for _ in range(block * substeps):
            mujoco.mj_step(env.model, data)
        end = time.perf_counter()
        ratios.append((end - middle) / (middle - start))
        rates.append(block / (middle - start))
    return {
        "dt": env.config.dt,
        "steps_per_second": statistics.median(rates[2:]),
        "share_of_bare": statistics.median(ratios[2:]),
    }


if __name__ == "__main__":
    main(tyro.cli(Options))
