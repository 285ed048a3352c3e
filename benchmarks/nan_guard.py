"""The NaN guard under random actions and heavy randomization: no number that is not finite may leave the environment.

    python benchmarks/nan_guard.py [--env-name pick_place] [--num-envs 1024] [--num-steps 1000]

Counts environment steps, the states that were not finite (caught, zeroed, reset), steps that filled a contact buffer,
and the observations, rewards and final observations that were not finite all the same, of which there must be none.
Writes JSON stamped with the machine and the versions; ends with an error if one got out.
"""

import dataclasses
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import tyro
from stamp import stamp

from simscaleai_jax.core.compile_cache import enable
from simscaleai_jax.sim import make_batched_env

CHUNK = 20  # steps per dispatch


@dataclasses.dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
      env_name: task.
      num_envs: environments.
      num_steps: control steps of each.
      dt: seconds per physics step.
      randomization: preset.
      impl: "auto", "jax" or "warp".
      max_seconds: stop early, with what has been run by then.
      output: JSON file; default benchmarks/results/nan_guard_<env_name>.json.
    """

    env_name: str = "pick_place"
    num_envs: int = 1024
    num_steps: int = 1000
    dt: float = 0.01
    randomization: str = "heavy"
    impl: str = "auto"
    max_seconds: float = 3600.0
    output: str = ""


def main(options: Options) -> None:
    enable()
    settings = {"dt": options.dt, "impl": options.impl, "randomization": options.randomization}
    env = make_batched_env(options.env_name, cameras=[], domain_randomization=True, **settings)
    state = jax.jit(env.init)(jax.random.key(0), jnp.arange(options.num_envs))
    chunk = jax.jit(count_chunk(env, options.num_envs), donate_argnums=0)
    names = ("nan_caught", "nan_escaped", "overflows", "episodes")
    totals: dict[str, int] = dict.fromkeys(names, 0)
    start, done = time.perf_counter(), 0
    while done < options.num_steps and time.perf_counter() - start < options.max_seconds:
        state, counts = chunk(state, jnp.int32(done))
        totals = {name: totals[name] + int(count) for name, count in zip(names, counts, strict=True)}
        done += CHUNK
    result = {
        **{name: value for name, value in dataclasses.asdict(options).items() if name != "output"},
        "env_steps": done * options.num_envs, **totals,
        "seconds": time.perf_counter() - start,
    }  # fmt: skip
    path = Path(options.output or f"benchmarks/results/nan_guard_{options.env_name}.json")
    path.write_text(json.dumps(stamp() | result, indent=1) + "\n")
    print("{env_steps:,} env steps: {nan_caught} NaN caught, {nan_escaped} escaped, {overflows} overflows, "
          "{episodes:,} episodes ended, {seconds:.0f} s".format(**result))  # fmt: skip
    if totals["nan_escaped"]:
        raise SystemExit("a number that is not finite left the environment")


def count_chunk(env, num_envs):
    """CHUNK steps of uniformly random actions; counts over environments and steps."""

    def step(state, t):
        key = jax.random.fold_in(jax.random.key(1), t)
        state = env.step(state, jax.random.uniform(key, (num_envs, env.action_size), minval=-1.0, maxval=1.0))
        seen = jax.tree.leaves((state.obs, state.final_obs, state.reward, state.reward_terms, state.info))
        escaped = sum(~jnp.isfinite(leaf.astype(jnp.float32)).reshape(num_envs, -1).all(1) for leaf in seen)
        flags = (state.info["nan"], escaped > 0, state.info["overflow"], state.done)
        return state, jnp.stack([flag.sum() for flag in flags])

    def chunk(state, start):
        state, counts = jax.lax.scan(step, state, start + jnp.arange(CHUNK))
        return state, counts.sum(0)

    return chunk


if __name__ == "__main__":
    main(tyro.cli(Options))
