"""From a model's forward pass to a plan: select and normalise observations, predict, back to physical units, clip."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from simscaleai_jax.core.errors import suggest
from simscaleai_jax.core.observations import state_keys
from simscaleai_jax.core.receding_horizon import PlanFn
from simscaleai_jax.core.text import check_instructions
from simscaleai_jax.models.normalization import Statistics
from simscaleai_jax.models.policy_heads.chunks import chunk_shape

IMAGE_RANK = 3


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a model's plans are executed; a class may say its default by an attribute `execution`.

    Attributes:
      execute_steps: actions executed of every chunk; None for all of them.
      ensemble: weight decay of temporal ensembling, which plans at every step; None for none.
    """

    execute_steps: int | None = None
    ensemble: float | None = None

    def given(self, execute_steps: int | None, ensemble: float | None) -> "Execution":
        """What is said here, or else what this says."""
        is_said = execute_steps is not None or ensemble is not None
        return Execution(execute_steps, ensemble) if is_said else self


def execution_of(model: Any) -> Execution:
    """The model's own; a horizon of one action leaves nothing to choose."""
    chosen = getattr(model, "execution", Execution())
    horizon = int(getattr(model, "action_horizon", 1))
    if horizon == 1:
        return Execution()
    steps = chosen.execute_steps
    return dataclasses.replace(chosen, execute_steps=None if steps is None else min(steps, horizon))


# (params, batch, key or noise) -> predicted actions (B, A) or (B, h, A)
ForwardFn = Callable[[Any, dict[str, Any], Any], Array]


def make_plan_fn(
    forward: ForwardFn,
    horizon: int,
    *,
    statistics: Statistics | None = None,
    tokens: Array | np.ndarray | None = None,
    observation_spec: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    obs_horizon: int = 1,
    text_len: int | None = None,
) -> PlanFn:
    """`plan(params, obs, key) -> (*B, h, A)` for observations with any leading axes.

    Args:
      forward: the model; it sees one batch axis.
      horizon: h.
      statistics: of the normalisation it was trained with.
      tokens: (1, L) ids of the instruction; ids under obs["language"] win over them.
      observation_spec: names of the observations that the model reads, as they are when it is called; None or {}: all
        that there are.
      limits: "low" and "high" of the actions, numbers or (A,).
      text_len: ids of an instruction that the model takes; None: as many as are given.
      obs_horizon: k; where it is more than 1, observations have an axis of k steps after the batch's.
    """
    spec, bounds = {} if observation_spec is None else observation_spec, limits or {}

    def plan(params: Any, obs: Mapping[str, Any], key: Any) -> Array:
        observations = _select(obs, spec)
        shape = _batch_shape(observations, int(obs_horizon > 1))
        given = obs.get("language", tokens)
        if given is not None:
            given = jnp.asarray(given)[..., :text_len].astype(jnp.int32)  # an observation is float32
        observations = {name: _merge_batch(value, len(shape)) for name, value in observations.items()}
        batch: dict[str, Any] = {"observations": observations}
        if given is not None:
            size = next(iter(observations.values())).shape[0]
            batch["language"] = jnp.broadcast_to(jnp.reshape(given, (-1, given.shape[-1])), (size, given.shape[-1]))
        if statistics is not None:
            batch = statistics.normalize_batch(batch)
        actions = forward(params, batch, key)
        if statistics is not None:
            actions = statistics.denormalize_actions(actions)
        if "low" in bounds and "high" in bounds:
            actions = jnp.clip(actions, *(_row(bounds[name], actions.ndim) for name in ("low", "high")))
        return actions.reshape(*shape, horizon, actions.shape[-1])

    return plan


def text_length(model: Any) -> int | None:
    """Characters of an instruction that a model reads; None for a model that reads none."""
    return int(model.language_encoder.max_len) if getattr(model, "use_language", False) else None


def instruction_tokens(model: Any, text: str | None) -> Any:
    """Token ids (1, L) of an instruction, None where there is none or the model reads none.

    Raises:
      ValueError: the model cannot read all of it.
    """
    length = text_length(model)
    if text is None or length is None:
        return None
    check_instructions([text], length)
    return jnp.asarray(model.language_encoder.tokenize([text]))


def draws_actions(model: Any) -> bool:
    """Whether a diffusion or flow head turns noise into the model's actions."""
    from simscaleai_jax.models.policy_heads.generative import GenerativeHead

    return isinstance(getattr(model, "action_head", None), GenerativeHead)


def sample_from_noise(model: Any, batch: dict[str, Any], noise: Array) -> Array:
    """Actions (B, A) or (B, h, A) that such a model's head makes of standard normal `noise` (B, h, A)."""
    features = model.features(batch)
    shape = chunk_shape(features.shape[0], model.action_horizon, model.action_dim)
    return model.action_head.sample(features, noise=jnp.reshape(noise, shape))


def _select(obs: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Array]:
    """The observations that the checkpoint names, all but "language" where it names none."""
    names = list(spec) or [name for name in obs if name != "language"]
    for name in names:
        if name not in obs:
            raise ValueError(f"The policy needs obs[{name!r}]; the keys are {sorted(obs)}.{suggest(name, obs)}")
    return {name: jnp.asarray(obs[name]) for name in names}


def _batch_shape(observations: Mapping[str, Array], time_rank: int) -> tuple[Any, ...]:
    """Leading axes; a size is a symbol where a program for every batch is traced."""
    names = state_keys(observations)
    name, rank = (names[0], 1) if names else (next(iter(observations)), IMAGE_RANK)
    return observations[name].shape[: observations[name].ndim - rank - time_rank]


def _row(limit: Any, ndim: int) -> Array:
    limit = jnp.asarray(limit, jnp.float32)
    return limit if limit.ndim == 0 else limit.reshape(*[1] * (ndim - 1), -1)


def _merge_batch(value: Array, batch_rank: int) -> Array:
    return value.reshape(-1, *value.shape[batch_rank:])
