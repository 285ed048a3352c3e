"""Exports in torch and onnxruntime, without JAX, against `load_policy` on 1,000 raw observations."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from simscaleai_jax.interop import export_policy
from simscaleai_jax.policy import Policy, load_policy

from . import checkpoints

pytestmark = pytest.mark.clients
TOLERANCE = 1e-5

TORCH = """
import json, sys
import numpy as np
from simscaleai_jax.interop import torch_mirror
data = dict(np.load(sys.argv[2]))
noise = data.pop("noise", None)
policy = torch_mirror.load(sys.argv[1])
read = {k: v for k, v in data.items() if k in policy.record["observations"]}
k = policy.obs_horizon
history = read if k == 1 else {name: np.stack([v] * k, axis=1) for name, v in read.items()}
out = {"plan": policy.plan(history, noise=noise).numpy(), "jax": np.array("jax" in sys.modules)}
out["one"] = policy({k: v[0] for k, v in data.items()}, noise=None if noise is None else noise[:1]).numpy()
carry, noise = policy.init(2), None if noise is None else noise[:2]
actions = []
for t in range(2 * policy.horizon + 1):
    action, carry = policy.step(carry, {k: v[2 * t : 2 * t + 2] for k, v in data.items()}, noise=noise)
    actions.append(action.numpy())
    if t == policy.horizon:
        carry = policy.reset(carry, [True, False])
np.savez(sys.argv[3], **out, steps=np.stack(actions))
"""

ONNX = """
import json, sys
import numpy as np, onnxruntime as ort
data = dict(np.load(sys.argv[2]))
session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
record = json.loads(session.get_modelmeta().custom_metadata_map["policy"])
wanted = [entry.name for entry in session.get_inputs()]
assert set(record["observations"]) <= set(wanted)
k = record["obs_horizon"]
history = {n: v if k == 1 or n == "noise" else np.stack([v] * k, axis=1) for n, v in data.items()}
plan, = session.run(["actions"], {k: history[k] for k in wanted if k in data})
np.savez(sys.argv[3], plan=plan, jax=np.array(bool({"jax", "torch"} & set(sys.modules))))
"""


@pytest.mark.parametrize("format", ["safetensors", "pt", "onnx"])
@pytest.mark.parametrize("name", checkpoints.NAMES)
def test_an_export_acts_as_load_policy_does(name: str, format: str, tmp_path: Path) -> None:
    source = checkpoints.make(name, tmp_path / "source")
    export = export_policy(source, tmp_path / f"policy.{format}")
    key, obs = jax.random.key(1), checkpoints.observations(name)
    draws = checkpoints.noise(name, key)
    np.savez(tmp_path / "inputs.npz", **obs, **({} if draws is None else {"noise": draws}))
    command = [sys.executable, "-c", ONNX if format == "onnx" else TORCH]
    subprocess.run([*command, str(export), str(tmp_path / "inputs.npz"), str(tmp_path / "out.npz")], check=True)
    found, policy = np.load(tmp_path / "out.npz"), load_policy(source)
    assert not found["jax"], "no JAX in the client"
    wanted = np.asarray(policy.plan(obs, key))
    np.testing.assert_allclose(found["plan"], wanted, atol=TOLERANCE, rtol=0)
    assert np.ptp(wanted) > 0.1
    if format != "onnx":
        np.testing.assert_allclose(found["one"], wanted[0, 0], atol=TOLERANCE, rtol=0)
        if draws is None:
            _check_steps(found["steps"], policy, obs)


def _check_steps(steps: np.ndarray, policy: Policy, obs: dict[str, np.ndarray]) -> None:
    """Chunks, ensembling, history and new episodes are carried as ours are."""
    carry = policy.init(2)
    for t, action in enumerate(steps):
        now = {name: value[2 * t : 2 * t + 2] for name, value in obs.items()}
        ours, carry = policy.step(carry, now, jax.random.key(0))
        np.testing.assert_allclose(action, ours, atol=TOLERANCE, rtol=0, err_msg=str(t))
        if t == policy.action_horizon:
            carry = policy.reset(carry, np.array([True, False]))
