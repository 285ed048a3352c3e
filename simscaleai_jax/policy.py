"""Any checkpoint as a policy: `load_policy(path)` needs no flags.

    policy = load_policy("checkpoints/vla")
    action = policy(obs, key)                     # pure; one observation or any batch of them; vmappable

A model that predicts chunks of actions executes several of them before it looks again (receding horizon), which needs a
small carried state:

    carry = policy.init(batch_shape)
    action, carry = policy.step(carry, obs, key)  # pure, too
    carry = policy.reset(carry, is_done)          # where an episode ended
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Bool, Float

from simscaleai_jax.core import checkpoint
from simscaleai_jax.core.errors import suggest
from simscaleai_jax.core.observations import state_keys

IMAGE_RANK = 3

PlanFn = Callable[[Any, Mapping[str, Any], Array], Array]


@struct.dataclass
class PolicyCarry:
    """What chunked execution remembers; every leaf leads with the batch shape.

    Attributes:
      chunk: (..., h, A) actions planned for now and the next h - 1 steps; with ensembling their weighted sums.
      weight: (..., h) sum of the weights in `chunk`; ensembling only.
      count: (..., h) predictions in `chunk`; ensembling only.
      position: (...) int32 index of the action to execute next; at `execute_steps` a new plan is due.
    """

    chunk: Float[Array, "... h A"]
    weight: Float[Array, "... h"]
    count: Float[Array, "... h"]
    position: Array


class Policy:
    """A pure policy over explicit parameters; see the module's docstring.

    Attributes:
      params: pytree of arrays that the policy reads.
      action_dim: A.
      action_horizon: h, actions per plan.
      execute_steps: actions executed per plan, 1 to h.
      ensemble: None, or m >= 0: every step plans anew, and the action is the mean of all plans for now, weighted
        exp(-m i) with i = 0 for the oldest, https://arxiv.org/abs/2304.13705.
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
    ) -> None:
        steps = action_horizon if execute_steps is None else execute_steps
        if not 1 <= steps <= action_horizon:
            raise ValueError(f"execute_steps is {steps}; wanted 1 to {action_horizon} (the action horizon).")
        if ensemble is not None and ensemble < 0:
            raise ValueError(f"ensemble is {ensemble}; wanted a weight decay of at least 0, or None.")
        self.params = params
        self.action_dim = action_dim
        self.action_horizon = action_horizon
        self.execute_steps = steps
        self.ensemble = ensemble
        self._plan = jax.jit(plan_fn)
        self._act = jax.jit(lambda params, obs, key: plan_fn(params, obs, key)[..., 0, :])
        self._step = jax.jit(self._receding_step if ensemble is None else self._ensemble_step)

    def __call__(self, obs: Mapping[str, Any], key: Array) -> Float[Array, "*B A"]:
        """Action (A,) for one observation, (B, A) for a batch; plans anew at every call."""
        return self._act(self.params, obs, key)

    def plan(self, obs: Mapping[str, Any], key: Array) -> Float[Array, "*B h A"]:
        """The whole chunk (..., h, A), physical units."""
        return self._plan(self.params, obs, key)

    def init(self, batch_shape: int | tuple[int, ...] = ()) -> PolicyCarry:
        """A carry that plans at its first step; () for a single observation (and under vmap)."""
        shape = (batch_shape,) if isinstance(batch_shape, int) else tuple(batch_shape)
        steps = (*shape, self.action_horizon)
        return PolicyCarry(
            chunk=jnp.zeros((*steps, self.action_dim)),
            weight=jnp.zeros(steps),
            count=jnp.zeros(steps),
            position=jnp.full(shape, self.execute_steps, jnp.int32),
        )

    def step(self, carry: PolicyCarry, obs: Mapping[str, Any], key: Array) -> tuple[Float[Array, "*B A"], PolicyCarry]:
        """(action to execute now, carry); the model runs only at steps where some plan is due."""
        return self._step(self.params, carry, obs, key)

    def reset(self, carry: PolicyCarry, is_done: Bool[Array, "*B"]) -> PolicyCarry:
        """Forgets the plans of episodes that ended; `is_done` has the batch shape."""
        fresh = self.init(carry.position.shape)
        done = jnp.asarray(is_done)
        return jax.tree.map(lambda new, old: jnp.where(_expand(done, old.ndim), new, old), fresh, carry)

    def _receding_step(self, params: Any, carry: PolicyCarry, obs: Any, key: Array) -> tuple[Array, PolicyCarry]:
        is_due = carry.position >= self.execute_steps

        def replan() -> Array:
            return jnp.where(_expand(is_due, carry.chunk.ndim), self._plan(params, obs, key), carry.chunk)

        chunk = jax.lax.cond(jnp.any(is_due), replan, lambda: carry.chunk)
        position = jnp.where(is_due, 0, carry.position)
        action = jnp.take_along_axis(chunk, position[..., None, None], axis=-2)[..., 0, :]
        return action, carry.replace(chunk=chunk, position=position + 1)

    def _ensemble_step(self, params: Any, carry: PolicyCarry, obs: Any, key: Array) -> tuple[Array, PolicyCarry]:
        weight = jnp.exp(-jnp.float32(self.ensemble) * carry.count)
        chunk = carry.chunk + weight[..., None] * self._plan(params, obs, key)
        total = carry.weight + weight
        action = chunk[..., 0, :] / total[..., 0, None]
        later = carry.replace(
            chunk=_advance(chunk, -2), weight=_advance(total, -1), count=_advance(carry.count + 1.0, -1)
        )
        return action, later


def load_policy(
    path: str | Path,
    *,
    deterministic: bool = True,
    language: str | None = None,
    execute_steps: int | None = None,
    ensemble: float | None = None,
    use_ema: bool = True,
) -> Policy:
    """Rebuilds the policy of a checkpoint, with the normalisation that it was trained with.

    Args:
      path: checkpoint directory of kind "ppo" or "model", or a run's folder.
      deterministic: PPO's mean action instead of a sample.
      language: instruction for models that read one; None: the one in the checkpoint's `extra["language"]`. Token
        ids under obs["language"] win over both.
      execute_steps: actions executed per planned chunk, all of them when None.
      ensemble: weight decay of temporal ensembling, None for none.
      use_ema: the averaged weights where the checkpoint has them.
    Raises:
      FileNotFoundError, ValueError: no whole checkpoint, or one of an unknown kind.
    """
    manifest = checkpoint.read_manifest(path)
    if manifest.kind == "ppo":
        from simscaleai_jax.rl.ppo import storage

        act = storage.load_policy(path, deterministic=deterministic)
        return Policy(lambda _, obs, key: act(obs, key)[..., None, :], (), manifest.action_spec["shape"][0])
    if manifest.kind != "model":
        raise ValueError(f"Checkpoint {path} is of kind {manifest.kind!r}; a policy is rebuilt from 'ppo' or 'model'.")
    return _model_policy(path, language, use_ema, {"execute_steps": execute_steps, "ensemble": ensemble})


def _model_policy(path: str | Path, language: str | None, use_ema: bool, options: dict[str, Any]) -> Policy:
    from simscaleai_jax.models.describe import rebuild_model
    from simscaleai_jax.models.normalization import Statistics

    tree, manifest = checkpoint.load(path)
    weights = tree["ema_params"] if use_ema and "ema_params" in tree else tree["params"]
    model = rebuild_model(manifest.model_name, manifest.model_kwargs, weights)
    statistics = Statistics(**tree["statistics"]) if "statistics" in tree else None
    spec, limits = manifest.observation_spec, manifest.action_spec
    text = manifest.extra.get("language") if language is None else language
    tokens = _tokens(model, text)
    graphdef, params = nnx.split(model)
    horizon = int(getattr(model, "action_horizon", 1))

    def plan(params: Any, obs: Mapping[str, Any], key: Array) -> Array:
        params, statistics = params
        observations = _select(obs, spec)
        shape = _batch_shape(observations)
        given = obs.get("language", tokens)
        observations = {name: _merge_batch(value, len(shape)) for name, value in observations.items()}
        batch: dict[str, Any] = {"observations": observations}
        if given is not None:
            size = next(iter(observations.values())).shape[0]
            batch["language"] = jnp.broadcast_to(jnp.reshape(given, (-1, given.shape[-1])), (size, given.shape[-1]))
        if statistics is not None:
            batch = statistics.normalize_batch(batch)
        actions = nnx.merge(graphdef, params).forward(batch, key=key)["predicted_actions"]
        if statistics is not None:
            actions = statistics.denormalize_actions(actions)
        if "low" in limits and "high" in limits:
            actions = jnp.clip(actions, limits["low"], limits["high"])
        return actions.reshape(*shape, horizon, actions.shape[-1])

    return Policy(plan, (params, statistics), model.action_dim, horizon, **options)


def _tokens(model: Any, text: str | None) -> Any:
    """Token ids (1, L) of an instruction, None where there is none or the model reads none."""
    if text is None or not getattr(model, "use_language", False):
        return None
    return jnp.asarray(model.language_encoder.tokenize([text]))


def _select(obs: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Array]:
    """The observations that the checkpoint names, all but "language" where it names none."""
    names = list(spec) or [name for name in obs if name != "language"]
    for name in names:
        if name not in obs:
            raise ValueError(f"The policy needs obs[{name!r}]; the keys are {sorted(obs)}.{suggest(name, obs)}")
    return {name: jnp.asarray(obs[name]) for name in names}


def _batch_shape(observations: Mapping[str, Array]) -> tuple[int, ...]:
    names = state_keys(observations)
    name, rank = (names[0], 1) if names else (next(iter(observations)), IMAGE_RANK)
    return observations[name].shape[: observations[name].ndim - rank]


def _merge_batch(value: Array, batch_rank: int) -> Array:
    return value.reshape(-1, *value.shape[batch_rank:])


def _expand(mask: Array, ndim: int) -> Array:
    return mask.reshape(*mask.shape, *[1] * (ndim - mask.ndim))


def _advance(values: Array, axis: int) -> Array:
    """Drops the first step along `axis` and appends a zero."""
    rest = jax.lax.slice_in_dim(values, 1, None, axis=axis)
    return jnp.concatenate([rest, jnp.zeros_like(jax.lax.slice_in_dim(values, 0, 1, axis=axis))], axis=axis)
