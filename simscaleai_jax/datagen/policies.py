"""Who acts: uniform random actions, the task's scripted expert, or any pure `policy(obs, key) -> action`; and who says
what would have been right."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.datagen.rollout import RolloutPolicy

POLICY_TYPES = ("random", "scripted", "policy")


def make_policy(policy_type: str, env_name: str, env: Any, policy: Callable[..., Any] | None = None) -> RolloutPolicy:
    """Builds the acting side of a rollout.

    Args:
      policy_type: "random", "scripted", or "policy" (then `policy(obs, key) -> action`, unbatched and pure; one that
        carries its plan, with `init` and `step` as `core.receding_horizon.Policy`, executes its chunks).
      env: the functional environment it will act in.

    Raises:
      ValueError: an unknown type, a task without a scripted expert, or a policy missing or left over.
    """
    if policy_type not in POLICY_TYPES:
        raise unknown_name("policy_type", policy_type, POLICY_TYPES)
    if (policy is None) == (policy_type == "policy"):
        raise ValueError(f"policy_type 'policy' and a policy belong together, got {policy_type!r} and {policy!r}.")
    if policy_type == "random":
        return _random(env.action_size)
    if policy is not None:
        return _given(policy)
    return _scripted(env_name, env)


def labelled(policy: RolloutPolicy, expert: RolloutPolicy) -> RolloutPolicy:
    """Acts as `policy`, while `expert` labels the states that it reaches (DAgger, https://arxiv.org/abs/1011.0686)."""

    def act(state: Any, carry: Any, key: Any) -> tuple[Any, Any]:
        key_policy, key_expert = jax.random.split(key)
        executed, policy_carry = policy.act_fn(state, carry[0], key_policy)
        label, expert_carry = expert.act_fn(state, carry[1], key_expert)
        return jnp.stack([label, executed]), (policy_carry, expert_carry)

    return RolloutPolicy(act, lambda state: (policy.init_fn(state), expert.init_fn(state)))


def _given(policy: Any) -> RolloutPolicy:
    if not hasattr(policy, "init") or not hasattr(policy, "step"):
        return RolloutPolicy(lambda state, carry, key: (policy(state.obs, key), carry))
    return RolloutPolicy(
        lambda state, carry, key: policy.step(carry, state.obs, key, state.terminated | state.truncated),
        lambda state: policy.init(),
    )


def _random(action_size: int) -> RolloutPolicy:
    def act(state: Any, carry: Any, key: Any) -> tuple[Any, Any]:
        return jax.random.uniform(key, (action_size,), jnp.float32, -1.0, 1.0), carry

    return RolloutPolicy(act)


def _scripted(env_name: str, env: Any) -> RolloutPolicy:
    from simscaleai_jax.datagen.experts import make_expert

    return make_expert(env_name, env)
