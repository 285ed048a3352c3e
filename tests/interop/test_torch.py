"""JAX and torch compute the same; one process with torch answers for all cases.

The interpreter with torch is named by SIMSCALE_TORCH_PYTHON, or is this one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simscaleai_jax.interop import files
from simscaleai_jax.interop.mapping import entries_for, from_torch
from simscaleai_jax.interop.transfer import CLASSES, export_torch, import_torch, split_buffers
from simscaleai_jax.models import BehaviorCloning, MLPActionHead, VisionLanguageAction
from simscaleai_jax.models.language import tokenize
from simscaleai_jax.models.record import all_kwargs, flat_parameters, set_parameters
from simscaleai_jax.rl.agents.ppo import ActorCritic
from tests.interop import cases

pytestmark = pytest.mark.torch
TOLERANCE = 1e-5
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every case's export, inputs and torch's answers."""
    folder = tmp_path_factory.mktemp("torch")
    for name in cases.CASES:
        export_torch(cases.make(name), folder / f"{name}.safetensors", step=7)
        np.savez(folder / f"{name}.inputs.npz", **cases.inputs(name))
    torch_python = os.environ.get("SIMSCALE_TORCH_PYTHON", sys.executable)
    _write_pt(torch_python, folder)
    script = Path(__file__).with_name("torch_reference.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([torch_python, str(script), str(folder)], check=True, env=environment)
    return folder


def _write_pt(torch_python: str, folder: Path) -> None:
    """Writes bc-as.pt by the package's own writer, in the interpreter with torch."""
    code = (
        "import sys; from pathlib import Path; from simscaleai_jax.interop import files\n"
        "folder = Path(sys.argv[1]); record = files.read(folder / 'bc.safetensors')\n"
        "files.write(folder / 'bc-as.pt', record)\n"
        "again = files.read(folder / 'bc-as.pt')\n"
        "assert again.model_kwargs == record.model_kwargs and again.step == 7\n"
        "assert all((again.state_dict[n] == v).all() for n, v in record.state_dict.items())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([torch_python, "-c", code, str(folder)], check=True, env=environment)


@pytest.mark.parametrize("name", sorted(cases.CASES))
def test_torch_agrees_after_export(exports: Path, name: str) -> None:
    ours = cases.outputs(name, cases.make(name), cases.inputs(name))
    theirs = np.load(exports / f"{name}.outputs.npz")
    assert set(ours) == set(theirs.files)
    for key, value in ours.items():
        np.testing.assert_allclose(value, theirs[key], atol=TOLERANCE, rtol=TOLERANCE, err_msg=key)


@pytest.mark.parametrize("name", sorted(cases.CASES))
def test_torch_agrees_after_import(exports: Path, name: str) -> None:
    """Weights that torch initialised."""
    state_dict = dict(np.load(exports / f"{name}.state.npz"))
    kwargs = files.read(exports / f"{name}.safetensors").model_kwargs
    record = files.TorchRecord(state_dict, name.split("-")[0], kwargs)
    kwargs, tensors = split_buffers(record)
    cls = CLASSES[record.model_name]
    module = cls(**kwargs)
    set_parameters(module, from_torch(entries_for(record.model_name, all_kwargs(cls, kwargs)), tensors))
    module.eval()
    ours = cases.outputs(name, module, cases.inputs(name))
    theirs = np.load(exports / f"{name}.back.npz")
    for key, value in ours.items():
        np.testing.assert_allclose(value, theirs[key], atol=TOLERANCE, rtol=TOLERANCE, err_msg=key)


def test_torch_side_report(exports: Path) -> None:
    report = json.loads((exports / "report.json").read_text())
    assert report["jax_imported"] is False
    assert report["pt_keys"] == ["model_kwargs", "model_name", "model_state_dict", "step"]
    assert report["pt_loads"] == "BehaviorCloning"
    modules = (BehaviorCloning(), VisionLanguageAction(), MLPActionHead(), ActorCritic(20, 4))
    ours = [sum(value.size for value in flat_parameters(module).values()) for module in modules]
    assert ours == report["counts"] == [335_364, 6_904_196, 132_612, 72_457]
    assert tokenize(["Ab 9.-", "é!", "abcdefghijk"], 8).tolist() == report["tokens"]


def test_pt_files_appear_whole_and_cut_ones_are_refused(tmp_path: Path) -> None:
    code = """
import sys; from pathlib import Path; import numpy as np, torch; from simscaleai_jax.interop import files
path = Path(sys.argv[1]) / "weights.pt"
files.write(path, files.TorchRecord({"x": np.ones(500, np.float32)}, "bc", {}))
whole = path.read_bytes()
def fail(content, file): Path(file).write_bytes(b"half"); raise OSError("no space left")
torch.save = fail
try: files.write(path, files.read(path))
except OSError: pass
assert path.read_bytes() == whole and list(path.parent.iterdir()) == [path]
for content in (whole[: len(whole) // 2], whole[:100], b"", b"no weights"):
    path.write_bytes(content)
    try: files.read(path)
    except ValueError as error: assert "weights.pt is not a whole .pt file" in str(error)
    else: raise AssertionError(content)
"""
    _run_torch(code, tmp_path)


def test_a_beta_of_zero_is_kept(tmp_path: Path) -> None:
    code = """
import numpy as np; from simscaleai_jax.interop.torch_mirror import DiffusionActionHead
betas = DiffusionActionHead(4, 2, 8, 1, num_diffusion_steps=5, num_inference_steps=2, beta_start=0.0).betas
np.testing.assert_allclose(betas, np.linspace(0.0, 0.02, 5), atol=1e-8)
"""
    _run_torch(code, tmp_path)


def _run_torch(code: str, folder: Path) -> None:
    torch_python = os.environ.get("SIMSCALE_TORCH_PYTHON", sys.executable)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([torch_python, "-c", code, str(folder)], check=True, env=environment)


def test_import_torch_reads_what_torch_reads(exports: Path) -> None:
    module = import_torch(exports / "vla-mlp.safetensors")
    first = cases.outputs("vla-mlp", module, cases.inputs("vla-mlp"))
    theirs = np.load(exports / "vla-mlp.outputs.npz")
    np.testing.assert_allclose(first["predicted_actions"], theirs["predicted_actions"], atol=TOLERANCE)
