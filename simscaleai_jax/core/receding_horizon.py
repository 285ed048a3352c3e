"""Policies as pure functions: one action at a time, or chunks of actions executed over several steps.

    action = policy(obs, key)                     # pure; one observation or any batch of them; vmappable

A model that predicts chunks of actions executes several of them before it looks again (receding horizon), and one that
reads a history of observations remembers them; both need a small carried state:

    carry = policy.init(batch_shape)
    action, carry = policy.step(carry, obs, key)  # pure, too
    carry = policy.reset(carry, is_done)          # where an episode ended
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from simscaleai_jax.core.errors import suggest

PlanFn = Callable[[Any, Mapping[str, Any], Any], Array]


@struct.dataclass
class PolicyCarry:
    """What a policy remembers of an episode; every leaf leads with the batch shape.

    Attributes:
      chunk: (..., h, A) actions planned for now and the next h - 1 steps; with ensembling their weighted sums.
      weight: (..., h) sum of the weights in `chunk`; ensembling only.
      count: (..., h) predictions in `chunk`; ensembling only.
      position: (...) int32 index of the action to execute next; at `execute_steps` a new plan is due.
      is_fresh: (...) bool, before an episode's first step.
      history: the latest k observations by key, (..., k, *shape), oldest first; {} where k is 1.
    """

    chunk: Float[Array, "... h A"]
    weight: Float[Array, "... h"]
    count: Float[Array, "... h"]
    position: Array
    is_fresh: Bool[Array, "..."]
    history: dict[str, Array]


class Policy:
    """A pure policy over explicit parameters, which may be replaced; see the module's docstring.

    Attributes:
      params: pytree of arrays that the policy reads.
      plan_fn: (params, obs, key) -> (*B, h, A); observations are (*B, k, ...) where k > 1.
      action_dim: A.
      action_horizon: h, actions per plan.
      execute_steps: actions executed per plan, 1 to h; not together with `ensemble`.
      ensemble: None, or m >= 0: every step plans anew, and the action is the mean of all plans for now, weighted
        exp(-m i) with i = 0 for the oldest, https://arxiv.org/abs/2304.13705. Needs h > 1.
      obs_horizon: k, observations that a plan reads: the latest k, the episode's first one repeated before it.
      observation_spec: key -> {"shape", "dtype"} of one observation, of the keys that are remembered; needed for k > 1.
      text_len: characters of an instruction that it reads, whose ids are obs["language"]; None where it reads none.
    """

    def __init__(
        self,
        plan_fn: PlanFn,
        params: Any,
        action_dim: int,
        action_horizon: int = 1,
        *,
        execute_steps: int | None = None,
        ensemble: float | None = None,
        obs_horizon: int = 1,
        observation_spec: Mapping[str, Any] | None = None,
        text_len: int | None = None,
    ) -> None:
        steps = action_horizon if execute_steps is None else execute_steps
        if not 1 <= steps <= action_horizon:
            raise ValueError(f"execute_steps is {steps}; wanted 1 to {action_horizon} (the action horizon).")
        _check_ensemble(ensemble, action_horizon, execute_steps)
        self.params = params
        self.action_dim = action_dim
        self.action_horizon = action_horizon
        self.execute_steps = steps
        self.ensemble = ensemble
        self.obs_horizon = obs_horizon
        self.text_len = text_len
        self.observation_spec = dict(observation_spec or {})
        self.plan_fn = plan_fn
        self._plan = jax.jit(plan_fn)
        self._refresh = _refresh_where_due(plan_fn)
        self._act = jax.jit(lambda params, obs, key: plan_fn(params, obs, key)[..., 0, :])
        self._step = jax.jit(self._receding_step if ensemble is None else self._ensemble_step)

    def __call__(self, obs: Mapping[str, Any], key: Array) -> Float[Array, "*B A"]:
        """Action (A,) for one observation, (B, A) for a batch; plans anew at every call, as at an episode's start."""
        return self._act(self.params, self._repeated(obs), key)

    def plan(self, obs: Mapping[str, Any], key: Array) -> Float[Array, "*B h A"]:
        """The whole chunk (..., h, A), physical units, as at an episode's start."""
        return self._plan(self.params, self._repeated(obs), key)

    def init(self, batch_shape: int | tuple[int, ...] = ()) -> PolicyCarry:
        """A carry that plans at its first step; () for a single observation (and under vmap).

        Raises:
          ValueError: the model behind this policy has not said how many numbers an action has.
        """
        if self.action_dim < 1:
            raise ValueError("A policy that executes chunks needs the model's `action_dim`; set that attribute.")
        if self.obs_horizon > 1 and not self.observation_spec:
            raise ValueError("A policy that reads a history of observations needs their `observation_spec`.")
        shape = (batch_shape,) if isinstance(batch_shape, int) else tuple(batch_shape)
        steps = (*shape, self.action_horizon)
        history = self.observation_spec if self.obs_horizon > 1 else {}
        return PolicyCarry(
            chunk=jnp.zeros((*steps, self.action_dim)),
            weight=jnp.zeros(steps),
            count=jnp.zeros(steps),
            position=jnp.full(shape, self.execute_steps, jnp.int32),
            is_fresh=jnp.ones(shape, bool),
            history={
                name: jnp.zeros((*shape, self.obs_horizon, *spec["shape"]), spec["dtype"])
                for name, spec in history.items()
            },
        )

    def step(
        self, carry: PolicyCarry, obs: Mapping[str, Any], key: Array, is_over: Bool[Array, "*B"] | None = None
    ) -> tuple[Float[Array, "*B A"], PolicyCarry]:
        """(action to execute now, carry); the model runs only at steps where some plan is due.

        Where `is_over`, an episode has ended: nothing is planned for it, and its action means nothing.
        """
        return self._step(self.params, carry, obs, key, is_over)

    def reset(self, carry: PolicyCarry, is_done: Bool[Array, "*B"]) -> PolicyCarry:
        """Forgets the plans of episodes that ended; `is_done` has the batch shape."""
        fresh = self.init(carry.position.shape)
        done = jnp.asarray(is_done)
        return jax.tree.map(lambda new, old: jnp.where(_expand(done, old.ndim), new, old), fresh, carry)

    def _receding_step(
        self, params: Any, carry: PolicyCarry, obs: Any, key: Array, is_over: Array | None
    ) -> tuple[Array, PolicyCarry]:
        carry = self._remember(carry, obs)
        is_due = carry.position >= self.execute_steps
        if is_over is not None:
            is_due &= ~is_over
        chunk = self._refresh(is_due, carry.chunk, params, {**obs, **carry.history}, key)
        position = jnp.where(is_due, 0, carry.position)
        here = jnp.minimum(position, self.action_horizon - 1)
        action = jnp.take_along_axis(chunk, here[..., None, None], axis=-2)[..., 0, :]
        return action, carry.replace(chunk=chunk, position=position + 1)

    def _ensemble_step(
        self, params: Any, carry: PolicyCarry, obs: Any, key: Array, is_over: Array | None
    ) -> tuple[Array, PolicyCarry]:
        carry = self._remember(carry, obs)
        weight = jnp.exp(-jnp.float32(self.ensemble) * carry.count)
        obs = {**obs, **carry.history}
        if is_over is None:
            planned = self._plan(params, obs, key)
        else:
            planned = self._refresh(~is_over, jnp.zeros_like(carry.chunk), params, obs, key)
        chunk = carry.chunk + weight[..., None] * planned
        total = carry.weight + weight
        action = chunk[..., 0, :] / total[..., 0, None]
        later = carry.replace(
            chunk=_advance(chunk, -2), weight=_advance(total, -1), count=_advance(carry.count + 1.0, -1)
        )
        return action, later

    def _remember(self, carry: PolicyCarry, obs: Mapping[str, Any]) -> PolicyCarry:
        """The carry with `obs` as its latest observation."""
        axis = carry.position.ndim

        def append(past: Array, now: Array) -> Array:
            now = jnp.expand_dims(now, axis)
            later = jnp.concatenate([jax.lax.slice_in_dim(past, 1, None, axis=axis), now], axis=axis)
            return jnp.where(_expand(carry.is_fresh, past.ndim), now, later)

        history = {name: append(past, _observed(obs, name)) for name, past in carry.history.items()}
        return carry.replace(history=history, is_fresh=jnp.zeros_like(carry.is_fresh))

    def _repeated(self, obs: Mapping[str, Any]) -> Mapping[str, Any]:
        """`obs` as the history that it is at an episode's start."""
        if self.obs_horizon == 1:
            return obs
        repeated = dict(obs)
        for name, spec in self.observation_spec.items():
            now = _observed(obs, name)
            axis = now.ndim - len(spec["shape"])
            repeated[name] = jnp.stack([now] * self.obs_horizon, axis=axis)
        return repeated


def _observed(obs: Mapping[str, Any], name: str) -> Array:
    if name not in obs:
        raise ValueError(f"The policy needs obs[{name!r}]; the keys are {sorted(obs)}.{suggest(name, obs)}")
    return jnp.asarray(obs[name])


def _check_ensemble(ensemble: float | None, action_horizon: int, execute_steps: int | None) -> None:
    """Raises a ValueError for a decay out of range, or where ensembling would change nothing or be contradicted."""
    if ensemble is None:
        return
    if ensemble < 0:
        raise ValueError(f"ensemble is {ensemble}; wanted a weight decay of at least 0, or None.")
    if action_horizon == 1:
        raise ValueError(
            f"ensemble is {ensemble}, but a policy that plans one action at a time has no plans to average."
        )
    if execute_steps is not None:
        raise ValueError(
            f"execute_steps is {execute_steps} and ensemble is {ensemble}; give one: ensembling plans at every step."
        )


def _refresh_where_due(plan_fn: PlanFn) -> Callable[..., Array]:
    """`refresh(is_due, chunk, params, obs, key) -> chunk`: new plans where due, and no model call where none is.

    Under vmap a `cond` on a mapped condition runs both of its branches; the rule asks once for the whole batch instead.
    """

    def replan(is_due: Array, chunk: Array, params: Any, obs: Any, key: Array) -> Array:
        return jnp.where(_expand(is_due, chunk.ndim), plan_fn(params, obs, key), chunk)

    @jax.custom_batching.custom_vmap
    def refresh(is_due: Array, chunk: Array, params: Any, obs: Any, key: Array) -> Array:
        operands = (is_due, chunk, params, obs, key)
        return jax.lax.cond(jnp.any(is_due), replan, lambda _, chunk, *rest: chunk, *operands)

    @refresh.def_vmap
    def refresh_batch(axis_size: int, is_mapped: list[Any], *operands: Any) -> tuple[Array, bool]:
        def keep(_: Array, chunk: Array, *rest: Any) -> Array:
            return chunk if is_mapped[1] else jnp.broadcast_to(chunk, (axis_size, *chunk.shape))

        axes = jax.tree.map(lambda flag: 0 if flag else None, tuple(is_mapped))
        replan_all = jax.vmap(replan, in_axes=axes, axis_size=axis_size)
        return jax.lax.cond(jnp.any(operands[0]), replan_all, keep, *operands), True

    return refresh


def _expand(mask: Array, ndim: int) -> Array:
    return mask.reshape(*mask.shape, *[1] * (ndim - mask.ndim))


def _advance(values: Array, axis: int) -> Array:
    """Drops the first step along `axis` and appends a zero."""
    rest = jax.lax.slice_in_dim(values, 1, None, axis=axis)
    return jnp.concatenate([rest, jnp.zeros_like(jax.lax.slice_in_dim(values, 0, 1, axis=axis))], axis=axis)
