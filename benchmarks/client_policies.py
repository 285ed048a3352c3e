"""Policies as exports, in the closed loop: success of 200 episodes each through `load_policy`, torch, ONNX and
StableHLO, from the same starts, and the largest difference of their plans on 1,000 raw observations.

PPO and BC come from their recipes, ACT and VLA from these, the first from demonstrations of configs/bc_reach.yaml:

    simscale train --model act --dataset data/reach.h5 --batch-size 128 --lr 1e-3 --max-steps 1500 --ema-decay 0.995 \\
        --model.action-horizon 8 --model.embed-dim 64 --model.num-layers 2 --model.posterior-layers 1 --execute-steps 4
    simscale datagen --env-name reach --policy scripted --n-episodes 300 --noise-std 0.3 --env.dt 0.01 \\
        --env.cameras front_cam --env.image-size 32 --output data/reach_images.h5
    simscale train --model vla --dataset data/reach_images.h5 --batch-size 64 --lr 2e-3 --max-steps 3000 \\
        --warmup-steps 200 --ema-decay 0.995 --execute-steps 2 --model.patch-size 16 --model.embed-dim 64 \\
        --model.num-layers 1 --model.mlp-ratio 2 --model.lang-num-layers 1 --model.max-text-len 40 \\
        --model.action-horizon 4 --model.loss-type l1 --model.dropout 0
"""

import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

import simscaleai_jax.sim as sim
from simscaleai_jax.core import checkpoint
from simscaleai_jax.core.intervals import wilson
from simscaleai_jax.interop import export_policy
from simscaleai_jax.policy import load_policy

FORMATS = {"torch": "safetensors", "onnx": "onnx", "stablehlo": "stablehlo"}
EPISODES, OBSERVATIONS = 200, 1000
SEED = 80_000
Step = Callable[[dict[str, np.ndarray]], np.ndarray]


def compared(path: str | Path) -> dict[str, Any]:
    """{"env", "model", "success": {way: {"rate", "interval"}}, "difference": {way: largest}, ...} of a checkpoint."""
    path = checkpoint.resolve(path)
    policy, manifest = load_policy(path), checkpoint.read_manifest(path)
    envs, key = _envs(manifest.env), jax.random.key(1)
    seen: list[dict[str, np.ndarray]] = []
    success = {"load_policy": played(envs, _own_step(policy, seen))}
    obs = _chosen(seen)
    wanted = np.asarray(policy.plan(obs, key))
    difference = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {way: export_policy(path, Path(folder) / f"policy.{suffix}") for way, suffix in FORMATS.items()}
        reads_noise = json.loads(files["stablehlo"].with_suffix(".json").read_text())["noise"]
        for way, file in files.items():
            with player(way, file) as ask:
                plans = ask("plan", obs, _head_noise(key, wanted.shape) if reads_noise else None)
                difference[way] = float(np.abs(plans - wanted).max())
                success[way] = played(envs, _their_step(ask, wanted.shape[1:] if reads_noise else None))
    return {
        "env": manifest.env["name"],
        "model": manifest.model_name,
        "horizon": policy.action_horizon,
        "execute_steps": policy.execute_steps,
        "episodes": EPISODES,
        "success": success,
        "observations": OBSERVATIONS,
        "difference": difference,
        "range_of_actions": float(np.ptp(wanted)),
    }


def played(envs: Any, step: Step) -> dict[str, Any]:
    """{"rate", "interval"} of one episode in every copy."""
    obs, _ = envs.reset(seed=SEED)
    is_over, is_success = np.zeros(envs.num_envs, bool), np.zeros(envs.num_envs, bool)
    while not is_over.all():
        obs, _, terminated, truncated, info = envs.step(step(obs))
        ended = (terminated | truncated) & ~is_over
        is_success |= ended & info["success"]
        is_over |= ended
    rate = float(is_success.mean())
    return {"rate": rate, "interval": wilson(rate, envs.num_envs)}


@contextmanager
def player(way: str, file: Path) -> Iterator[Callable[..., np.ndarray]]:
    """A process that plays an export; it fails where JAX was imported though it must not be."""
    command = [sys.executable, str(Path(__file__).with_name("client_player.py")), way, str(file)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    requests, answers = process.stdin, process.stdout
    assert requests is not None
    assert answers is not None

    def ask(*request: Any) -> np.ndarray:
        pickle.dump(request, requests)
        requests.flush()
        return pickle.load(answers)

    yield ask
    requests.close()
    if process.wait():
        raise RuntimeError(f"The {way} player ended with {process.returncode}.")


def _envs(record: dict[str, Any]) -> Any:
    settings = {"cameras": []} | record["config"] | {"impl": "c"}
    return sim.make_vec_env(record["name"], EPISODES, autoreset_mode="NextStep", **settings)


def _own_step(policy: Any, seen: list[dict[str, np.ndarray]]) -> Step:
    state = {"carry": policy.init(EPISODES), "key": jax.random.key(3)}

    def act(obs: dict[str, np.ndarray]) -> np.ndarray:
        seen.append(obs)
        state["key"], key = jax.random.split(state["key"])
        action, state["carry"] = policy.step(state["carry"], obs, key)
        return np.asarray(action)

    return act


def _their_step(ask: Callable[..., np.ndarray], shape: tuple[int, ...] | None) -> Step:
    """`shape` (h, A) of the noise of one plan, for policies that draw."""
    rng = np.random.default_rng(2)

    def act(obs: dict[str, np.ndarray]) -> np.ndarray:
        return ask("step", obs, None if shape is None else rng.standard_normal((EPISODES, *shape), np.float32))

    return act


def _chosen(seen: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """OBSERVATIONS of those that were met, from all times and copies."""
    rng = np.random.default_rng(0)
    times, copies = rng.integers(0, len(seen), OBSERVATIONS), rng.integers(0, EPISODES, OBSERVATIONS)
    return {name: np.stack([seen[t][name][i] for t, i in zip(times, copies, strict=True)]) for name in seen[0]}


def _head_noise(key: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
    """What a policy's head draws from `key`."""
    key_head = jax.random.split(key)[1]
    return np.asarray(jax.random.normal(jax.random.split(key_head)[0], shape))
