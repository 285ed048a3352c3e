"""Plays an exported policy in a process of its own, as its user would: observations come in, actions go out.

    python benchmarks/client_player.py torch|onnx|stablehlo FILE

Reads pickled requests on stdin and answers on stdout: ("plan", obs, noise) -> (B, h, A) of fresh plans; and
("step", obs, noise) -> (B, A), the next actions of episodes that began with the first such request. The end of stdin
ends it. The torch and ONNX players fail where anything has imported JAX.
"""

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np

FORBIDDEN = {
    "torch": {"jax", "flax", "mujoco"},
    "onnx": {"jax", "flax", "mujoco", "torch", "simscaleai_jax"},
    "stablehlo": {"torch", "flax"},
}


class Chunks:
    """Executes plans of episodes in step: the latest observations in, `execute_steps` actions of a plan out."""

    def __init__(self, plan_fn: Any, record: dict[str, Any]) -> None:
        if record["ensemble"] is not None:
            raise ValueError("This player does not average plans; choose a policy without temporal ensembling.")
        self.plan_fn, self.record = plan_fn, record
        self.history: dict[str, np.ndarray] = {}
        self.actions: list[np.ndarray] = []

    def plan(self, obs: dict[str, np.ndarray], noise: np.ndarray | None) -> np.ndarray:
        """(B, h, A) as at an episode's start."""
        return self.plan_fn(self._windows({}, obs), noise)

    def step(self, obs: dict[str, np.ndarray], noise: np.ndarray | None) -> np.ndarray:
        """(B, A)."""
        self.history = self._windows(self.history, obs)
        if not self.actions:
            plan = self.plan_fn(self.history, noise)
            self.actions = [plan[:, i] for i in range(self.record["execute_steps"])]
        return self.actions.pop(0)

    def _windows(self, past: dict[str, np.ndarray], obs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        count = self.record["obs_horizon"]
        read = {name: obs[name] for name in self.record["observations"]}
        if count == 1:
            return read
        return {
            name: np.concatenate([past[name][:, 1:], now[:, None]], 1) if past else np.stack([now] * count, axis=1)
            for name, now in read.items()
        }


class Torch:
    """`torch_mirror.load`."""

    def __init__(self, path: str) -> None:
        from simscaleai_jax.interop import torch_mirror

        self.policy, self.carry = torch_mirror.load(path), None

    def plan(self, obs: dict[str, np.ndarray], noise: np.ndarray | None) -> np.ndarray:
        """(B, h, A) as at an episode's start."""
        count = self.policy.obs_horizon
        read = {name: obs[name] for name in self.policy.record["observations"]}
        windows = read if count == 1 else {name: np.stack([value] * count, axis=1) for name, value in read.items()}
        return self.policy.plan(windows, noise=noise).numpy()

    def step(self, obs: dict[str, np.ndarray], noise: np.ndarray | None) -> np.ndarray:
        """(B, A)."""
        if self.carry is None:
            self.carry = self.policy.init(len(next(iter(obs.values()))))
        action, self.carry = self.policy.step(self.carry, obs, noise=noise)
        return action.numpy()


def onnx(path: str) -> Chunks:
    """onnxruntime alone."""
    import onnxruntime as ort

    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    record = json.loads(session.get_modelmeta().custom_metadata_map["policy"])
    names = {entry.name for entry in session.get_inputs()}

    def plan(obs: dict[str, np.ndarray], noise: np.ndarray | None) -> Any:
        given = obs if noise is None else {**obs, "noise": noise}
        return session.run(["actions"], {name: given[name] for name in names})[0]

    return Chunks(plan, record)


def stablehlo(path: str) -> Chunks:
    """JAX alone."""
    import jax

    program = jax.export.deserialize(bytearray(Path(path).read_bytes()))
    record = json.loads(Path(path).with_suffix(".json").read_text())
    call = jax.jit(program.call)
    return Chunks(lambda obs, noise: np.asarray(call(obs) if noise is None else call(obs, noise)), record)


def main() -> None:
    """Answers until stdin ends."""
    kind, path = sys.argv[1:]
    player: Any = {"torch": Torch, "onnx": onnx, "stablehlo": stablehlo}[kind](path)
    while True:
        try:
            method, obs, noise = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        pickle.dump(getattr(player, method)(obs, noise), sys.stdout.buffer)
        sys.stdout.buffer.flush()
    loaded = FORBIDDEN[kind] & set(sys.modules)
    assert not loaded, f"the {kind} player has imported {sorted(loaded)}"


if __name__ == "__main__":
    main()
