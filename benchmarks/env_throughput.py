"""Environment throughput: the physics engines and PPO against the number of environments, each engine's first call,
the C engine against a bare loop over `mujoco.batch.Batch`, the host adapter against `mj_step`.

    python benchmarks/env_throughput.py --impl c jax [--env-name pick_place]
    python benchmarks/env_throughput.py --image-size 64 --num-envs 256 --output benchmarks/results/pixels_reach.json

Prints a table and writes JSON stamped with the machine and the versions. Every figure is the median of several
repeats in this one run; what is compared alternates in short blocks, so that ratios hold even where the machine's speed
drifts. PPO's figure is training with everything on: environments, rollouts, minibatches, statistics. The bare loop
makes the physics steps of recorded states and targets of the same environments, the final pass over the positions
included, and nothing else. First calls are without a compilation cache.
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
from mujoco.batch import Batch
from stamp import stamp

from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.sim import CameraConfig, make_batched_env, make_env
from simscaleai_jax.sim.physics.host import num_threads
from simscaleai_jax.sim.physics.state import ramp


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      env_name: task.
      num_envs: batch sizes.
      dt: seconds per physics step of the batched environment.
      repeats: timed repeats of each figure.
      block_steps: environment steps of one repeat, at least 10 of each environment.
      ppo: measure PPO too.
      image_size: side of an image of front_cam in every observation, in pixels, which PPO encodes; 0: no image.
      impl: physics engines, the first of which is compared with the others: "auto", "c", "jax", "warp".
      output: JSON file; default benchmarks/results/env_throughput_<env_name>.json.
    """

    env_name: str = "reach"
    num_envs: tuple[int, ...] = (64, 256, 1024, 4096)
    dt: float = 0.01
    repeats: int = 5
    block_steps: int = 16_384
    ppo: bool = True
    image_size: int = 0
    impl: tuple[str, ...] = ("auto",)
    output: str = ""


def main(options: Options) -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # first calls are part of what is measured
    path = Path(options.output or f"benchmarks/results/env_throughput_{options.env_name}.json")
    result: dict[str, Any] = {"env_name": options.env_name, "dt": options.dt, "image_size": options.image_size}
    result["host"] = host = measure_host(options)
    print(
        f"host adapter {host['steps_per_second']:,.0f} env steps/s at dt {host['dt']}, "
        f"{host['share_of_bare']:.0%} of a bare mj_step loop"
    )
    result["batched"] = []
    for count in options.num_envs:
        rows = measure_batched(options, count)
        result["batched"] += rows
        for row in rows:
            print(
                "{impl:>5} {num_envs:>6} envs  {steps_per_second:>10,.0f} env steps/s ({times_slower:.1f} times the "
                "first engine's time)  reset overhead {reset_overhead:+.1%}  "
                "first calls {init_seconds:.1f} + {first_call_seconds:.1f} s  {bytes_per_env:,} bytes per env".format(
                    **row
                )
                + ("  {share_of_bare:.0%} of a bare loop".format(**row) if "share_of_bare" in row else "")
                + ("  {ppo_steps_per_second:,.0f} in PPO".format(**row) if "ppo_steps_per_second" in row else ""),
                flush=True,
            )
        path.write_text(json.dumps(stamp() | result, indent=1) + "\n")


@dataclasses.dataclass
class Engine:
    """A batched environment on one engine, and its running states."""

    env: Any
    num_envs: int
    num_steps: int

    def __post_init__(self) -> None:
        ids = jnp.arange(self.num_envs)
        self.init_seconds, state = timed(lambda: jax.jit(self.env.init)(jax.random.key(0), ids))
        self.bytes_per_env = sum(x.nbytes for x in jax.tree.leaves(state) if hasattr(x, "nbytes")) // self.num_envs
        self.state, self.bare_state = jax.tree.map(jnp.copy, state), jax.tree.map(jnp.copy, state.env)
        self._run = jax.jit(self._with_reset, donate_argnums=0)
        self._run_bare = jax.jit(self._without_reset, donate_argnums=0)
        self.first_call_seconds, self.state = timed(lambda: self._run(self.state, jnp.int32(0)))
        self.bare_state = self._run_bare(self.bare_state, jnp.int32(0))

    def run(self) -> float:
        """Seconds of `num_steps` steps with everything on."""
        seconds, self.state = timed(lambda: self._run(self.state, jnp.int32(1000)))
        return seconds

    def run_without_reset(self) -> float:
        """Likewise without auto-reset."""
        seconds, self.bare_state = timed(lambda: self._run_bare(self.bare_state, jnp.int32(1000)))
        return seconds

    def _actions(self, t: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(1), t)
        return jax.random.uniform(key, (self.num_envs, self.env.action_size), minval=-1, maxval=1)

    def _with_reset(self, state: Any, start: jax.Array) -> Any:
        steps = jnp.arange(self.num_steps)
        return jax.lax.scan(lambda s, t: (self.env.step(s, self._actions(start + t)), None), state, steps)[0]

    def _without_reset(self, state: Any, start: jax.Array) -> Any:
        step, steps = jax.vmap(self.env.functional.step), jnp.arange(self.num_steps)
        return jax.lax.scan(lambda s, t: (step(s, self._actions(start + t)), None), state, steps)[0]

    def bare(self) -> "BareLoop":
        """The physics of `num_steps` of its steps."""
        return BareLoop(self.env, self.state, jax.vmap(self._actions)(jnp.arange(self.num_steps)))


class BareLoop:
    """The physics of steps with these actions (T, B, A) alone: `mujoco.batch.Batch` on all cores."""

    def __init__(self, batched: Any, state: Any, actions: jax.Array) -> None:
        env = batched.functional
        before, self.targets = recorded(batched, state, actions)
        num_steps, num_envs = actions.shape[:2]
        self.batch = Batch(env.physics.host_model, num_envs, nthread=num_threads())
        parts = {name: self.batch.bind(name) for name in before.__dataclass_fields__}
        self.states = []
        for t in range(num_steps):
            for name, view in parts.items():
                view[...] = getattr(before, name)[t]
            self.states.append(self.batch.state.copy())
        self.ctrl, self.before = parts["ctrl"], before.ctrl
        self.shares = ramp(env.config.ramp_steps)
        self.count = env.config.substeps // env.config.ramp_steps

    def run(self) -> float:
        """Seconds of all recorded steps."""
        started = time.perf_counter()
        for t, state in enumerate(self.states):
            self.batch.state[...] = state
            first, last = self.before[t], self.targets[t]
            for share in self.shares[:-1]:
                self.ctrl[...] = first + share * (last - first)
                self.batch.step(nstep=self.count)
            self.ctrl[...] = last
            self.batch.step(nstep=self.count, stage=int(mujoco.mjtStage.mjSTAGE_POS))
        return time.perf_counter() - started


def recorded(env: Any, state: Any, actions: jax.Array) -> tuple[Any, Any]:
    """Physics before each step of a batch, and the targets that each moved to; leaves [T, B, ...]."""
    control = jax.vmap(env.functional.task.control)

    def body(s: Any, action: jax.Array) -> Any:
        targets = control(s.env.snapshot, s.env.task_state, jnp.clip(action, -1.0, 1.0))
        return env.step(s, action), (s.env.physics, targets)

    return jax.tree.map(np.asarray, jax.jit(lambda s, a: jax.lax.scan(body, s, a)[1])(state, actions))


def measure_batched(options: Options, num_envs: int) -> list[dict[str, Any]]:
    """A row per engine: env steps per second with everything on (task, reward terms, info, auto-reset), what auto-reset
    costs, how long the first calls take, and for the C engine its share of a bare loop's rate.
    """
    side = options.image_size
    cameras = [CameraConfig("front_cam", side, side, 45.0)] if side else []
    engines = {}
    for impl in options.impl:
        env = make_batched_env(options.env_name, dt=options.dt, cameras=cameras, impl=impl)
        engines[env.functional.config.impl] = Engine(env, num_envs, max(10, options.block_steps // num_envs))
    runs: dict[str, Any] = {impl: engine.run for impl, engine in engines.items()}
    runs |= {f"{impl} without reset": engine.run_without_reset for impl, engine in engines.items()}
    if "c" in engines:
        runs["bare"] = engines["c"].bare().run
    seconds = alternate(runs, options.repeats)
    return [_row(options, impl, engine, seconds) for impl, engine in engines.items()]


def _row(options: Options, impl: str, engine: Engine, seconds: dict[str, float]) -> dict[str, Any]:
    row = {
        "impl": impl,
        "num_envs": engine.num_envs,
        "steps_per_second": engine.num_envs * engine.num_steps / seconds[impl],
        "times_slower": seconds[impl] / next(iter(seconds.values())),
        "reset_overhead": seconds[impl] / seconds[f"{impl} without reset"] - 1.0,
        "init_seconds": engine.init_seconds,
        "first_call_seconds": engine.first_call_seconds,
        "bytes_per_env": engine.bytes_per_env,
    }
    if options.ppo:
        row["ppo_steps_per_second"] = measure_ppo(options, engine.env, engine.num_envs)
    if impl == "c":
        row["bare_steps_per_second"] = engine.num_envs * engine.num_steps / seconds["bare"]
        row["share_of_bare"] = seconds["bare"] / seconds[impl]
    return row


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


def alternate(runs: dict[str, Any], repeats: int) -> dict[str, float]:
    """Median seconds by name, of functions that are called in turn and say how long they took; the first turn is left
    out.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            times[name].append(run())
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def timed(function: Any) -> tuple[float, Any]:
    """Seconds until a result is there, and the result."""
    started = time.perf_counter()
    result = jax.block_until_ready(function())
    return time.perf_counter() - started, result


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
