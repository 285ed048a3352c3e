"""Checkpoints of policies with everything that acting depends on: statistics, several keys, an instruction, chunks."""

from pathlib import Path

import jax
import numpy as np

from simscaleai_jax.core import checkpoint, flat_tree
from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.models.record import flat_parameters
from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.rl.ppo.actions import ActionBounds

from . import cases

MODELS = (
    "act", "act-images", "bc", "bc-chunk", "bc-image", "diffusion", "flow-images", "vla-mlp", "vla-chunk",
    "vla-diffusion", "vla-flow", "vla-keypoints", "vla-masked",
)  # fmt: skip
EXECUTIONS = {
    "act": {"execute_steps": None, "ensemble": 0.3},
    "bc-chunk": {"execute_steps": 2, "ensemble": None},
    "diffusion": {"execute_steps": 3, "ensemble": None},
}
NAMES = (*MODELS, "ppo")
ENV = {"name": "reach", "config": {"cameras": [], "max_episode_steps": 9}}
KEYS = {"b_pos": 2, "a_vel": 1, "c_goal": 3}
NUM = 1000


def make(name: str, path: Path, language: str | None = "go up") -> Path:
    """Writes the checkpoint of a case, with that instruction recorded, and returns its path."""
    return _ppo(path) if name == "ppo" else _model(name, path, language)


def observations(name: str, count: int = NUM) -> dict[str, np.ndarray]:
    """Raw observations: of several scales, with a key that no policy reads."""
    rng = np.random.default_rng(3)
    obs = {key: (5.0 * rng.normal(size=(count, size))).astype(np.float32) for key, size in KEYS.items()}
    size = 1 if name == "ppo" else cases.CASES[name][1].get("image_size", 0)
    return obs | {key: rng.integers(0, 256, (count, size, size, 3), np.uint8) for key in _pictures(name)}


def windows(obs: dict[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
    """Observations (B, ...) as histories (B, k, ...) at an episode's start."""
    return obs if steps == 1 else {key: np.stack([value] * steps, axis=1) for key, value in obs.items()}


def noise(name: str, key: jax.Array, count: int = NUM) -> np.ndarray | None:
    """What a policy's diffusion or flow head draws from `key`."""
    if name not in cases.GENERATIVE:
        return None
    kwargs = cases.CASES[name][1]
    shape = (count, kwargs.get("action_horizon", 1), kwargs["action_dim"])
    key_head = jax.random.split(key)[1]
    return np.asarray(jax.random.normal(jax.random.split(key_head)[0], shape))


def _spec(name: str) -> dict:
    spec = {key: {"shape": [size], "dtype": "float32"} for key, size in KEYS.items()}
    size = cases.CASES[name][1].get("image_size", 0)
    return spec | {key: {"shape": [size, size, 3], "dtype": "uint8"} for key in _pictures(name)}


def _pictures(name: str) -> list[str]:
    if name == "ppo":
        return ["image"]
    kwargs = cases.CASES[name][1]
    return list(kwargs.get("cameras", ["image"])) if "image_size" in kwargs else []


def _model(name: str, path: Path, language: str | None) -> Path:
    module, kwargs = cases.make(name), cases.CASES[name][1]
    rng = np.random.default_rng(4)
    dim = kwargs["action_dim"]
    statistics = {
        "state_mean": rng.normal(size=6), "state_std": rng.uniform(0.5, 3.0, 6),
        "action_mean": rng.normal(size=dim), "action_std": rng.uniform(0.5, 2.0, dim),
    }  # fmt: skip
    statistics |= {"state_clip": np.array(1.5)} if name in EXECUTIONS else {}
    statistics = {key: value.astype(np.float32) for key, value in statistics.items()}
    manifest = Manifest(
        kind="model",
        model_name=name.split("-")[0],
        model_kwargs=kwargs,
        observation_spec=_spec(name),
        action_spec={"shape": [dim], "dtype": "float32", **_limits(name, dim)},
        statistics={key: f"statistics/{key}" for key in statistics},
        env=ENV,
        step=7,
        config={"lr": 1e-3},
        extra={"language": language, "execution": EXECUTIONS.get(name)},
    )
    return checkpoint.save(
        path, {"params": flat_tree.nest(flat_parameters(module)), "statistics": statistics}, manifest
    )


def _limits(name: str, dim: int) -> dict:
    return {"low": [-0.4] * dim, "high": [1.5] * dim} if name in EXECUTIONS else {"low": -1.0, "high": 1.0}


def _ppo(path: Path) -> Path:
    agent = PPOAgent(5, 4, PPOConfig(hidden_dim=16, actor_keys=("c_goal", "b_pos")))
    stats = agent.state.normalizer["state"]
    var = np.array([1e-6, 1e-4, 1.0, 4.0, 9.0], np.float32)  # epsilon and clipping both matter
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * np.sin(np.arange(leaf.size)).reshape(leaf.shape), agent.state.params
    )
    normalizer = {"state": stats.replace(mean=stats.mean + 0.3, var=var, count=stats.count + 9.0)}
    agent.state = agent.state.replace(params=params, normalizer=normalizer)
    agent.observation_spec = {key: {"shape": [size], "dtype": "float32"} for key, size in KEYS.items()}
    agent.env_record = ENV
    agent.action_bounds = ActionBounds((-2.0, -1.0, 0.0, None), (2.0, 3.0, 0.5, None))
    agent.save(str(path))
    return path
