"""Thousands of environments as one pure function: random actions under jit, another model of the world in each.

python examples/many_environments.py
python examples/many_environments.py --num-envs 16 --steps 5
"""

import dataclasses
import time

import jax
import jax.numpy as jnp
import tyro

from simscaleai_jax.sim import make_batched_env


@dataclasses.dataclass(frozen=True)
class Options:
    num_envs: int = 1024
    steps: int = 100


def main(options: Options) -> None:
    own = {"domain_randomization": True, "randomization": "default"}
    env = make_batched_env("pick_place", dt=0.01, cameras=[], **own)

    def step(state, key):
        action = jax.random.uniform(key, (options.num_envs, env.action_size), minval=-1.0, maxval=1.0)
        state = env.step(state, action)
        height = state.obs["object_pos"][:, 2]  # anything may be computed from a step; this is no reward of the task
        return state, (state.reward.mean(), height.max(), state.done.sum())

    @jax.jit
    def play(state, key):
        return jax.lax.scan(step, state, jax.random.split(key, options.steps))

    state = jax.jit(env.init)(jax.random.key(0), jnp.arange(options.num_envs))
    state, _ = jax.block_until_ready(play(state, jax.random.key(1)))  # compiles
    start = time.perf_counter()
    state, (rewards, heights, ended) = jax.block_until_ready(play(state, jax.random.key(2)))
    seconds = time.perf_counter() - start
    print(f"{options.num_envs * options.steps / seconds:,.0f} env steps/s on the {env.functional.config.impl!r} engine")
    print(f"mean reward {rewards.mean():.4f}, highest cube {heights.max():.3f} m, {ended.sum()} episodes ended")


if __name__ == "__main__":
    main(tyro.cli(Options))
