"""PPO's checkpoints: what an agent saves, and the policy that is rebuilt from it without flags."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from simscaleai_jax.core import checkpoint, flat_tree, sharding
from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.core.config import from_dict, to_dict
from simscaleai_jax.rl.ppo.actions import ActionBounds
from simscaleai_jax.rl.ppo.config import PPOConfig
from simscaleai_jax.rl.ppo.state import PPOState

if TYPE_CHECKING:
    from simscaleai_jax.rl.ppo.agent import PPOAgent

KIND, MODEL_NAME = "ppo", "actor_critic"
ENV_PREFIXES = ("env/", "discounted_return")


def make_manifest(agent: "PPOAgent") -> Manifest:
    """What an agent's checkpoint says about itself."""
    return Manifest(
        kind=KIND,
        model_name=MODEL_NAME,
        model_kwargs=agent.model_kwargs,
        observation_spec=agent.observation_spec,
        action_spec=agent.action_bounds.record(),
        statistics={name: f"normalizer/{name}" for name in agent.state.normalizer},
        env=agent.env_record,
        step=int(agent.state.update),
        config=to_dict(agent.config),
        extra={"total_steps": agent.total_steps},
    )


def save_agent(agent: "PPOAgent", path: str | Path) -> Path:
    """Writes the agent's whole state; raises like `checkpoint.save`."""
    return checkpoint.save(path, agent.state, make_manifest(agent))


def load_agent(agent: "PPOAgent", path: str | Path) -> dict[str, Any] | None:
    """Puts a checkpoint's state into `agent`; returns its environments, flat and not read yet, None if it has none."""
    manifest = check_networks(agent, path)
    arrays, _ = checkpoint.open_tree(path)
    environments = {name: array for name, array in arrays.items() if name.startswith(ENV_PREFIXES)}
    bare = agent.state.replace(env=(), discounted_return=None)
    rest = {name: array for name, array in arrays.items() if name not in environments}
    agent.state = flat_tree.restore(rest, bare, str(path)).replace(discounted_return=np.zeros(0, np.float32))
    agent.observation_spec, agent.env_record = manifest.observation_spec, manifest.env
    agent.action_bounds = ActionBounds.from_record(manifest.action_spec, agent.model_kwargs["action_dim"])
    if "total_steps" in manifest.extra:
        agent.count_steps(int(manifest.extra["total_steps"]))
    if manifest.config.get("lr", agent.config.lr) != agent.config.lr:
        rate = sharding.put_replicated(np.float32(agent.config.lr), agent.mesh)
        agent.state = agent.state.replace(learning_rate=rate)
    return environments or None


def load_weights(agent: "PPOAgent", path: str | Path) -> None:
    """Puts a checkpoint's weights and observation statistics into `agent`, and nothing else."""
    check_networks(agent, path)
    arrays, _ = checkpoint.open_tree(path)
    target = acting_state(agent.state)
    own = {name: array for name, array in arrays.items() if name.startswith(("params/", "normalizer/"))}
    agent.state = agent.state.replace(**flat_tree.restore(own, target, str(path)))


def check_networks(agent: "PPOAgent", path: str | Path) -> Manifest:
    """The manifest of a PPO checkpoint whose networks are those of `agent`; a ValueError names what differs."""
    manifest = read_ppo_manifest(path)
    for name, value in agent.model_kwargs.items():
        stored = manifest.model_kwargs.get(name)
        if (tuple(stored) if isinstance(stored, list) else stored) != value:
            raise ValueError(f"Checkpoint {path} was made with {name}={stored}; this agent has {name}={value}.")
    return manifest


def with_saved_envs(started: PPOState, saved: dict[str, Any] | None) -> PPOState:
    """`started` with its environments as they were saved; with a warning fresh ones where those do not fit."""
    if not saved or set(saved) == {"discounted_return"}:
        return started
    target = {"env": started.env, "discounted_return": started.discounted_return}
    try:
        restored = flat_tree.restore(saved, target)
    except ValueError as error:
        logging.getLogger(__name__).warning("Environments start anew; those of the checkpoint do not fit: %s", error)
        return started
    return started.replace(**restored)


def acting_state(state: PPOState) -> dict[str, Any]:
    """The part of the state that acting needs."""
    return {"params": state.params, "normalizer": state.normalizer}


def load_policy(path: str | Path, deterministic: bool = True) -> Callable[[Any, jax.Array], jax.Array]:
    """Rebuilds the policy of a PPO checkpoint: a pure function policy(obs, key) -> action, vmappable.

    Raises:
      FileNotFoundError, ValueError: no whole PPO checkpoint at `path`.
    """
    from simscaleai_jax.rl.ppo.agent import PPOAgent

    manifest = read_ppo_manifest(path)
    agent = agent_from_manifest(manifest, PPOAgent)
    agent.load(str(path))
    return agent.policy(deterministic)


def agent_from_manifest(manifest: Manifest, agent_cls: type["PPOAgent"], device: str = "cpu") -> "PPOAgent":
    """A fresh agent with the sizes and settings that a checkpoint was made with."""
    kwargs, image = manifest.model_kwargs, manifest.model_kwargs.get("image_shape")
    config = from_dict(PPOConfig, manifest.config | {"num_devices": None})
    return agent_cls(
        kwargs["obs_dim"],
        kwargs["action_dim"],
        config,
        device,
        critic_obs_dim=kwargs.get("critic_obs_dim"),
        image_shape=None if image is None else tuple(image),
        auxiliary_dim=kwargs.get("auxiliary_dim"),
    )


def read_ppo_manifest(path: str | Path) -> Manifest:
    """The manifest of a PPO checkpoint; a ValueError when it is one of another kind."""
    manifest = checkpoint.read_manifest(path)
    if manifest.kind != KIND:
        raise ValueError(f"Checkpoint {path} holds a {manifest.kind!r} ({manifest.model_name}), not a {KIND!r} agent.")
    return manifest
