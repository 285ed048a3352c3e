"""Any checkpoint as a policy: `load_policy(path)` needs no flags.

policy = load_policy("checkpoints/vla")
action = policy(obs, key)      # see `simscaleai_jax.core.receding_horizon` for batches and for chunks of actions
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array

from simscaleai_jax.core import checkpoint
from simscaleai_jax.core.config import from_dict
from simscaleai_jax.core.receding_horizon import PlanFn, Policy, PolicyCarry

__all__ = ["Plan", "Policy", "PolicyCarry", "load_plan", "load_policy"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a policy computes, with its randomness as an input.

    Attributes:
      plan_fn: (params, obs, noise) -> actions (*B, h, A); noise (B, h, A) is standard normal, None where none is read.
      params: pytree of arrays.
      action_dim: A.
      horizon: h.
      reads_noise: whether actions are drawn by a diffusion or flow head.
      obs_horizon: k; where it is more than 1, observations are (*B, k, ...), the latest k.
      text_len: characters of an instruction that it reads; None where it reads none.
    """

    plan_fn: PlanFn
    params: Any
    action_dim: int
    horizon: int
    reads_noise: bool
    obs_horizon: int = 1
    text_len: int | None = None


def load_plan(path: str | Path, *, language: str | None = None, use_ema: bool = True) -> Plan:
    """What `load_policy(path)` computes (PPO: its mean action), for programs that are exported; raises like it."""
    if checkpoint.read_manifest(path).kind == "ppo":
        policy = load_policy(path)
        key = jax.random.key(0)
        return Plan(lambda params, obs, _: policy.plan_fn(params, obs, key), policy.params, policy.action_dim, 1, False)
    return _model_plan(path, language, use_ema, from_noise=True)


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
      language: instruction, for models that read one; None: the one in the checkpoint's `extra["language"]`. Token
        ids under obs["language"] win over both.
      execute_steps: actions executed per planned chunk; for models that plan chunks.
      ensemble: weight decay of temporal ensembling, instead of `execute_steps`. None for both: as the checkpoint says,
        else all actions of a chunk.
      use_ema: the averaged weights where the checkpoint has them.
    Raises:
      FileNotFoundError, ValueError: no whole checkpoint, one of an unknown kind, or an option that this policy would
        ignore.
    """
    manifest = checkpoint.read_manifest(path)
    options = {"execute_steps": execute_steps, "ensemble": ensemble}
    if manifest.kind == "ppo":
        _check_language(path, language, reads_language=False)
        return _ppo_policy(path, deterministic, options)
    if manifest.kind != "model":
        raise ValueError(f"Checkpoint {path} is of kind {manifest.kind!r}; a policy is rebuilt from 'ppo' or 'model'.")
    return _model_policy(path, language, use_ema, options)


def _ppo_policy(path: str | Path, deterministic: bool, options: dict[str, Any]) -> Policy:
    """The parameters are the acting state: {"params", "normalizer"}."""
    from simscaleai_jax.rl.agents.ppo import PPOAgent
    from simscaleai_jax.rl.ppo import storage
    from simscaleai_jax.rl.ppo.rollout import act_distribution

    agent = storage.agent_from_manifest(storage.read_ppo_manifest(path), PPOAgent)
    agent.load(str(path))
    learner, bounds = agent.learner, agent.action_bounds

    def plan(acting: Any, obs: Any, key: Array) -> Array:
        distribution = act_distribution(learner, acting, obs)
        action = bounds.to_env(distribution.mean if deterministic else distribution.sample(key))
        return action[..., None, :]

    acting = jax.tree.map(np.array, storage.acting_state(agent.state))
    return Policy(plan, acting, agent.model_kwargs["action_dim"], **options)


def _model_policy(path: str | Path, language: str | None, use_ema: bool, options: dict[str, Any]) -> Policy:
    from simscaleai_jax.models.planning import Execution

    plan = _model_plan(path, language, use_ema, from_noise=False)
    manifest = checkpoint.read_manifest(path)
    recorded = from_dict(Execution, manifest.extra.get("execution") or {})
    chosen = dataclasses.asdict(recorded.given(**options))
    history = {"obs_horizon": plan.obs_horizon, "observation_spec": manifest.observation_spec}
    acts = (plan.plan_fn, plan.params, plan.action_dim, plan.horizon)
    return Policy(*acts, text_len=plan.text_len, **chosen, **history)


def _model_plan(path: str | Path, language: str | None, use_ema: bool, *, from_noise: bool) -> Plan:
    from simscaleai_jax.models.normalization import Statistics
    from simscaleai_jax.models.planning import (
        draws_actions,
        instruction_tokens,
        make_plan_fn,
        sample_from_noise,
        text_length,
    )
    from simscaleai_jax.models.record import rebuild_model

    tree, manifest = checkpoint.load(path)
    weights = tree["ema_params"] if use_ema and "ema_params" in tree else tree["params"]
    model = rebuild_model(manifest.model_name, manifest.model_kwargs, weights)
    _check_language(path, language, getattr(model, "use_language", False))
    statistics = Statistics(**tree["statistics"]) if "statistics" in tree else None
    text = manifest.extra.get("language") if language is None else language
    graphdef, params = nnx.split(model)
    horizon, steps = (int(getattr(model, name, 1)) for name in ("action_horizon", "obs_horizon"))
    reads_noise = draws_actions(model)

    def forward(params: Any, batch: dict[str, Any], draw: Any) -> Array:
        here = nnx.merge(graphdef, params)
        if not from_noise:
            return here.forward(batch, key=draw)["predicted_actions"]
        return sample_from_noise(here, batch, draw) if reads_noise else here.forward(batch)["predicted_actions"]

    plan = make_plan_fn(
        forward,
        horizon,
        statistics=statistics,
        tokens=instruction_tokens(model, text),
        observation_spec=manifest.observation_spec,
        limits=manifest.action_spec,
        obs_horizon=steps,
        text_len=text_length(model),
    )
    return Plan(plan, params, model.action_dim, horizon, reads_noise, steps, text_length(model))


def _check_language(path: str | Path, language: str | None, reads_language: bool) -> None:
    if language is not None and not reads_language:
        raise ValueError(f"The policy of {path} reads no instruction; got language={language!r}, wanted None.")
