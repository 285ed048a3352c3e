"""Names and layouts without torch: export then import is the identity, and mistakes are named."""

import ast
import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from simscaleai_jax.core import checkpoint
from simscaleai_jax.core.observations import is_image_key, pictures_among
from simscaleai_jax.interop import export_torch, files, import_torch
from simscaleai_jax.models.record import flat_parameters
from simscaleai_jax.policy import load_policy
from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.tools.cli import main as simscale
from tests.interop import cases
from tests.params import others_wide


@pytest.mark.parametrize(
    "name", others_wide(sorted(cases.CASES), "act", "bc-keypoints", "flow-images", "vla-keypoints", "actor_critic")
)
def test_export_then_import_is_bit_identical(name: str, tmp_path: Path) -> None:
    module = cases.make(name)
    file = export_torch(module, tmp_path / "weights.safetensors", step=7)
    again = import_torch(file)
    before, after = flat_parameters(module), flat_parameters(again)
    assert set(before) == set(after)
    assert all(np.array_equal(before[path], after[path]) for path in before)
    second = export_torch(again, tmp_path / "again.safetensors", step=7)
    first_record, second_record = files.read(file), files.read(second)
    assert first_record.model_kwargs == second_record.model_kwargs
    assert first_record.step == 7
    for tensor, value in first_record.state_dict.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, second_record.state_dict[tensor])


def test_names_and_shapes_are_the_documented_ones(tmp_path: Path) -> None:
    state = _state_dict("vla-diffusion", tmp_path)
    dim, hidden = 16, 24
    wanted = {
        "vision_encoder.cls_token": (1, 1, dim),
        "vision_encoder.patch_embed.pos_embed": (1, 9, dim),
        "vision_encoder.patch_embed.proj.weight": (dim, 3, 4, 4),
        "vision_encoder.encoder.layers.2.self_attn.in_proj_weight": (3 * dim, dim),
        "vision_encoder.encoder.layers.0.linear1.weight": (hidden, dim),
        "language_encoder.token_embed.weight": (50, dim),
        "language_encoder.pos_embed": (1, 7, dim),
        "language_encoder.encoder.layers.1.linear1.weight": (4 * dim, dim),
        "fusion_transformer.layers.1.norm2.bias": (dim,),
        "state_proj.0.weight": (dim, 6),
        "action_head.sqrt_one_minus_alphas_cumprod": (100,),
        "action_head.time_embed.1.weight": (dim, dim),
        "action_head.noise_net.0.net.0.weight": (dim, 2 * dim + 15),
        "action_head.noise_net.0.skip.weight": (dim, 2 * dim + 15),
        "action_head.noise_net.1.net.2.bias": (dim,),
        "action_head.final.weight": (15, dim),
    }
    assert {name: state[name].shape for name in wanted} == wanted
    assert "action_head.noise_net.1.skip.weight" not in state
    image = _state_dict("bc-image", tmp_path)
    shapes = {name: value.shape for name, value in image.items() if name.startswith("image_encoder")}
    assert shapes["image_encoder.0.weight"] == (32, 3, 8, 8)
    assert shapes["image_encoder.8.weight"] == (9, 1024)
    assert [name for name in image if name.startswith("action_head") and "weight" in name] == [
        f"action_head.{3 * i}.weight" for i in range(4)
    ]


def test_wrong_tensors_are_named(tmp_path: Path) -> None:
    record = files.read(export_torch(cases.make("bc"), tmp_path / "bc.safetensors"))
    missing = {name: value for name, value in record.state_dict.items() if name != "action_head.0.bias"}
    extra = {**record.state_dict, "action_head.99.bias": np.zeros(3, np.float32)}
    wrong = {**record.state_dict, "action_head.0.bias": np.zeros(3, np.float32)}
    for tensors, message in ((missing, "action_head.0.bias"), (extra, "action_head.99.bias"), (wrong, "shape")):
        file = files.write(tmp_path / "bad.safetensors", dataclasses.replace(record, state_dict=tensors))
        with pytest.raises(ValueError, match=message):
            import_torch(file)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.safetensors"):
        import_torch(tmp_path / "no.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        import_torch(tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match="safetensors, pt"):
        export_torch(cases.make("bc"), tmp_path / "weights.bin")
    with pytest.raises(ValueError, match="no torch layout"):
        export_torch(object(), tmp_path / "weights.safetensors")


def test_weights_without_a_name_need_one(tmp_path: Path) -> None:
    record = files.read(export_torch(cases.make("bc"), tmp_path / "bc.safetensors"))
    file = files.write(tmp_path / "bare.safetensors", dataclasses.replace(record, model_name="", model_kwargs={}))
    with pytest.raises(ValueError, match="model_name"):
        import_torch(file)
    module = import_torch(file, model_name="bc", model_kwargs=cases.CASES["bc"][1])
    assert module.hidden_dim == 16
    with pytest.raises(ValueError, match="Did you mean 'hidden_dim'"):
        import_torch(file, model_name="bc", model_kwargs={"hiden_dim": 16})


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bc.safetensors"
    export_torch(cases.make("bc"), path)
    before = path.read_bytes()

    def fail(tensors: object, file: Path, metadata: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        export_torch(cases.make("bc"), path, step=9)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoints_go_out_and_come_back_through_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    import_torch(export_torch(cases.make("bc"), tmp_path / "bc.safetensors", step=3), tmp_path / "bc")
    assert simscale(["export", str(tmp_path / "bc"), "--output", str(tmp_path / "out.safetensors")]) == 0
    assert simscale(["import", str(tmp_path / "out.safetensors")]) == 0
    assert "BehaviorCloning" in capsys.readouterr().out
    first, second = checkpoint.load(tmp_path / "bc"), checkpoint.load(tmp_path / "out")
    assert second[1].step == 3
    assert second[1].model_kwargs == cases.CASES["bc"][1]
    np.testing.assert_array_equal(
        first[0]["params"]["action_head"]["layers"]["0"]["kernel"],
        second[0]["params"]["action_head"]["layers"]["0"]["kernel"],
    )
    assert simscale(["export", str(tmp_path / "nothing")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_a_ppo_agent_keeps_its_policy_and_statistics(tmp_path: Path) -> None:
    import jax

    agent = PPOAgent(6, 3, PPOConfig(hidden_dim=16))
    stats = agent.state.normalizer["state"]
    agent.state = agent.state.replace(
        normalizer={"state": stats.replace(mean=stats.mean + 0.3, var=stats.var * 4.0, count=stats.count + 9.0)}
    )
    agent.save(str(tmp_path / "agent"))
    file = export_torch(tmp_path / "agent", tmp_path / "agent.safetensors")
    import_torch(file, tmp_path / "again")
    obs = {"state": np.linspace(-1, 1, 6, dtype=np.float32)}
    first, second = (load_policy(tmp_path / name)(obs, jax.random.key(0)) for name in ("agent", "again"))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first).max() > 0
    assert files.read(file).statistics["count"] == 9.0


def test_an_actor_critic_without_statistics_stays_the_same_policy(tmp_path: Path) -> None:
    import jax

    module = cases.make("actor_critic")
    import_torch(export_torch(module, tmp_path / "ac.safetensors", step=7), tmp_path / "ac")
    obs = np.full(6, 20.0, np.float32)  # beyond the clipping of normalised inputs
    np.testing.assert_allclose(
        load_policy(tmp_path / "ac")({"state": obs}, jax.random.key(0)), module(obs)[0].mean, rtol=1e-6
    )
    assert checkpoint.read_manifest(tmp_path / "ac").step == 7
    again = files.read(export_torch(tmp_path / "ac", tmp_path / "again.safetensors"))
    assert (again.statistics, again.step) == ({}, 7)


def test_the_torch_mirror_imports_torch_and_itself_only() -> None:
    paths = sorted(Path(files.__file__).parent.glob("torch_mirror*.py"))
    allowed = {f"simscaleai_jax.interop.{path.stem}" for path in paths} | {"torch", "numpy", "safetensors"}
    assert len(paths) == 6
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [node.module or ""]
            top = [name if name.startswith("simscaleai_jax") else name.split(".")[0] for name in names]
            assert {*top} <= allowed | sys.stdlib_module_names, (path.name, names)


def test_the_interop_package_imports_without_jax() -> None:
    code = (
        "import sys, types, importlib.abc\n"
        "class Refuse(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0] in ('jax', 'flax', 'optax', 'yaml'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import simscaleai_jax.interop, json; print(json.dumps(sorted(simscaleai_jax.interop.__all__)))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == ["export_policy", "export_torch", "import_torch"]


def _state_dict(name: str, folder: Path) -> dict[str, np.ndarray]:
    return files.read(export_torch(cases.make(name), folder / f"{name}.safetensors")).state_dict


def test_the_torch_mirror_knows_pictures_as_the_package_does() -> None:
    """Its own copy of the rule, read without torch."""
    tree = ast.parse((Path(files.__file__).parent / "torch_mirror_vla.py").read_text())
    rule = [
        node
        for node in tree.body
        if (isinstance(node, ast.FunctionDef) and node.name in ("is_picture", "pictures_among"))
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PICTURES")
    ]
    found: dict = {}
    exec(compile(ast.Module(rule, []), "torch_mirror_vla", "exec"), found)
    words = ("image", "rgb", "depth", "segmentation", "state", "joint_pos")
    names = [
        *words,
        *(f"{word}{end}" for word in words for end in ("2", "_wrist")),
        *(f"front_{word}" for word in words),
    ]
    assert [found["is_picture"](name) for name in names] == [is_image_key(name) for name in names]
    for ranks in itertools.product((1, 2, 3, 4, 5), repeat=3):
        for keys in (("depth_error", "image", "state"), ("depth", "depth_error", "image"), ("a", "b", "image_x")):
            obs = dict(zip(keys, ranks, strict=True))
            assert found["pictures_among"](obs) == pictures_among(obs), obs
