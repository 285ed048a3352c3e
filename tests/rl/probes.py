"""Probe MDPs: tiny batched environments whose optimal values are known, behind the same protocol as the real ones."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class ProbeState:
    """The public fields of a batched environment's state, and the probe's own: keys (B,) and hidden state x (B,)."""

    obs: dict
    reward: jax.Array
    reward_terms: dict
    terminated: jax.Array
    truncated: jax.Array
    final_obs: dict
    info: dict
    episode_return: jax.Array
    episode_length: jax.Array
    key: jax.Array
    x: jax.Array


@dataclasses.dataclass(frozen=True)
class Probe:
    """A probe: x starts at start(key), a step gives reward(x, action), x' and whether the episode terminates.

    `values` maps an observed x to the value of the optimal policy there (None: no claim).
    """

    start: Callable
    reward: Callable
    advance: Callable
    max_episode_steps: int
    values: dict[float, float]
    gamma: float = 0.9
    action_size: int = 1

    @property
    def observation_spec(self) -> dict:
        return {"state": jax.ShapeDtypeStruct((1,), jnp.float32)}

    def init(self, key, env_ids):
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(env_ids)
        x = jax.vmap(self.start)(keys)
        zero, no = jnp.zeros(x.shape), jnp.zeros(x.shape, bool)
        obs, info = {"state": x[:, None]}, {"success": no, "nan": no}
        return ProbeState(obs, zero, {"all": zero}, no, no, obs, info, zero, jnp.zeros(x.shape, jnp.int32), keys, x)

    def step(self, state, action):
        done_before = state.terminated | state.truncated
        reward = self.reward(state.x, action[:, 0])
        x, terminated = self.advance(state.x)
        length = jnp.where(done_before, 0, state.episode_length) + 1
        truncated = (length >= self.max_episode_steps) & ~terminated
        done = terminated | truncated
        keys = jax.vmap(lambda key: jax.random.fold_in(key, 7))(state.key)
        after = jnp.where(done, jax.vmap(self.start)(keys), x)
        total = jnp.where(done_before, 0.0, state.episode_return) + reward
        info = {"success": reward > 0, "nan": jnp.zeros(x.shape, bool)}
        return ProbeState(
            {"state": after[:, None]}, reward, {"all": reward}, terminated, truncated, {"state": x[:, None]}, info,
            total, length, keys, after,
        )  # fmt: skip


def zero(key):
    return jnp.zeros(())


def sign(key):
    return jnp.where(jax.random.bernoulli(key), 1.0, -1.0)


def ends(x):
    return x, jnp.ones(x.shape, bool)


PROBES = {
    "constant reward": Probe(zero, lambda x, a: jnp.ones(x.shape), ends, 10, {0.0: 1.0}),
    "reward of the observation": Probe(sign, lambda x, a: x, ends, 10, {1.0: 1.0, -1.0: -1.0}),
    "delayed reward": Probe(zero, lambda x, a: x, lambda x: (x + 1, x >= 1), 10, {0.0: 0.9, 1.0: 1.0}),
    "reward of the action": Probe(zero, lambda x, a: jnp.where(a > 0, 1.0, -1.0), ends, 10, {0.0: 1.0}),
    "action for the observation": Probe(
        sign, lambda x, a: jnp.where(a * x > 0, 1.0, -1.0), ends, 10, {1.0: 1.0, -1.0: 1.0}
    ),
    "time limit": Probe(
        zero, lambda x, a: jnp.ones(x.shape), lambda x: (x, jnp.zeros(x.shape, bool)), 3, {0.0: 2.0}, gamma=0.5
    ),
}
