"""Probe MDPs: tiny batched environments whose optimal values are known, behind the same protocol as the real ones."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

GAMMA = 0.5


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
    kind: jax.Array  # index among PROBES, used by ProbeSuite


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
    gamma: float = GAMMA
    action_size: int = 1

    @property
    def observation_spec(self) -> dict:
        return {"state": jax.ShapeDtypeStruct((1,), jnp.float32)}

    def init(self, key, env_ids):
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(env_ids)
        x = jax.vmap(self.start)(keys)
        zero, no = jnp.zeros(x.shape), jnp.zeros(x.shape, bool)
        obs, info = {"state": x[:, None]}, {"success": no, "nan": no}
        return ProbeState(
            obs, zero, terms(zero), no, no, obs, info, zero, jnp.zeros(x.shape, jnp.int32), keys, x, no * 0
        )

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
            {"state": after[:, None]}, reward, terms(reward), terminated, truncated, {"state": x[:, None]}, info,
            total, length, keys, after, state.kind,
        )  # fmt: skip


def terms(reward):
    """Two terms that sum to the reward."""
    return {"gain": 2 * reward, "cost": -reward}


def zero(key):
    return jnp.zeros(())


def sign(key):
    return jnp.where(jax.random.bernoulli(key), 1.0, -1.0)


def ends(x):
    return x, jnp.ones(x.shape, bool)


PROBES = {
    "constant reward": Probe(zero, lambda x, a: jnp.ones(x.shape), ends, 10, {0.0: 1.0}),
    "reward of the observation": Probe(sign, lambda x, a: x, ends, 10, {1.0: 1.0, -1.0: -1.0}),
    "delayed reward": Probe(zero, lambda x, a: x, lambda x: (x + 1, x >= 1), 10, {0.0: GAMMA, 1.0: 1.0}),
    "reward of the action": Probe(zero, lambda x, a: jnp.where(a > 0, 1.0, -1.0), ends, 10, {0.0: 1.0}),
    "action for the observation": Probe(
        sign, lambda x, a: jnp.where(a * x > 0, 1.0, -1.0), ends, 10, {1.0: 1.0, -1.0: 1.0}
    ),
    "time limit": Probe(
        zero, lambda x, a: jnp.ones(x.shape), lambda x: (x, jnp.zeros(x.shape, bool)), 10, {0.0: 1 / (1 - GAMMA)}
    ),
}


@dataclasses.dataclass(frozen=True)
class ProbeSuite:
    """All probes behind one compiled program: every environment plays the probe of its state's kind.

    `init` makes environments of one kind, so that training may be vmapped over kinds as over seeds.
    """

    kind: jax.Array | int = 0
    action_size: int = 1
    max_episode_steps: int = 10

    @property
    def observation_spec(self) -> dict:
        return {"state": jax.ShapeDtypeStruct((1,), jnp.float32)}

    def init(self, key, env_ids):
        kinds = jnp.full(env_ids.shape, self.kind)
        states = [probe.init(key, env_ids) for probe in PROBES.values()]
        return choose(kinds, states).replace(kind=kinds)

    def step(self, state, action):
        return choose(state.kind, [probe.step(state, action) for probe in PROBES.values()])


def choose(kinds, states):
    """The state of each environment's own kind."""

    def pick(*leaves):
        data = [jax.random.key_data(leaf) for leaf in leaves] if is_key(leaves[0]) else leaves
        rows = jnp.stack(data)[kinds, jnp.arange(len(kinds))]
        return jax.random.wrap_key_data(rows) if is_key(leaves[0]) else rows

    return jax.tree.map(pick, *states)


def is_key(leaf):
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
