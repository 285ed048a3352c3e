"""Exports stand alone: what acting needs travels, comes back, and is told on the card."""

import json
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest

from simscaleai_jax.core import checkpoint
from simscaleai_jax.core.text import tokenize
from simscaleai_jax.interop import export_policy, files, import_torch
from simscaleai_jax.policy import load_policy
from simscaleai_jax.tools.cli import main as simscale
from tests.params import others_wide

from . import checkpoints

TOLERANCE = 1e-5


@pytest.mark.parametrize("name", others_wide(checkpoints.NAMES, "bc", "diffusion", "ppo", "vla-keypoints"))
def test_import_gives_the_policy_back(name: str, tmp_path: Path) -> None:
    source = checkpoints.make(name, tmp_path / "source")
    import_torch(export_policy(source, tmp_path / "policy.safetensors"), tmp_path / "again")
    first, second = checkpoint.read_manifest(source), checkpoint.read_manifest(tmp_path / "again")
    for field in ("kind", "model_name", "observation_spec", "action_spec", "env", "step"):
        assert getattr(first, field) == getattr(second, field), field
    assert first.extra.get("language") == second.extra.get("language")
    obs, key = checkpoints.observations(name, 3), jax.random.key(1)
    policies = [load_policy(path) for path in (source, tmp_path / "again")]
    plans = [np.asarray(policy.plan(obs, key)) for policy in policies]
    np.testing.assert_array_equal(*plans)
    assert np.ptp(plans[0]) > 0.1
    ways = [(policy.execute_steps, policy.ensemble, policy.obs_horizon) for policy in policies]
    assert ways[0] == ways[1]


@pytest.mark.parametrize("name", others_wide(["bc", "vla-diffusion", "ppo", "act-images", "diffusion"], "bc", "ppo"))
def test_stablehlo_acts_alike_for_every_batch(name: str, tmp_path: Path) -> None:
    source = checkpoints.make(name, tmp_path / "source")
    written = export_policy(source, tmp_path / "policy.stablehlo")
    program = jax.export.deserialize(written.read_bytes())
    assert program.platforms == ("cpu", "cuda", "tpu")
    record = json.loads(written.with_suffix(".json").read_text())
    key = jax.random.key(1)
    for count in (1, 5):
        obs = checkpoints.observations(name, count)
        draws = checkpoints.noise(name, key, count)
        inputs = checkpoints.windows({key: obs[key] for key in record["observations"]}, record["obs_horizon"])
        found = program.call(inputs) if draws is None else program.call(inputs, draws)
        np.testing.assert_allclose(found, load_policy(source).plan(obs, key), atol=TOLERANCE)


@pytest.mark.wide
def test_stablehlo_is_told_what_to_do_where_no_instruction_is_recorded(tmp_path: Path) -> None:
    source = checkpoints.make("vla-masked", tmp_path / "source", language=None)
    written = export_policy(source, tmp_path / "policy.stablehlo")
    program = jax.export.deserialize(written.read_bytes())
    record = json.loads(written.with_suffix(".json").read_text())
    assert (record["instruction"], record["tokens"], record["text_len"]) == (None, None, 7)
    assert "`language`" in written.with_suffix(".md").read_text()
    obs = checkpoints.observations("vla-masked", 3)
    inputs = {key: obs[key] for key in record["observations"]} | {"language": tokenize(["up", "down", "a"], 7)}
    found = program.call(inputs)
    for row, text in enumerate(("up", "down", "a")):
        one = {key: value[row] for key, value in obs.items()}
        plan = load_policy(source, language=text).plan(one, jax.random.key(0))
        np.testing.assert_allclose(found[row], plan, atol=TOLERANCE)


def test_the_record_says_what_acting_needs(tmp_path: Path) -> None:
    record = files.read(export_policy(checkpoints.make("ppo", tmp_path / "ppo"), tmp_path / "a.safetensors")).policy
    assert list(record["observations"]) == record["state_keys"] == ["b_pos", "c_goal"], "only what the actor sees"
    assert (record["normalization"]["clip"], record["normalization"]["epsilon"]) == (10.0, 1e-4)
    assert record["normalization"]["scale"][0] == pytest.approx((1e-6 + 1e-4) ** -0.5)
    assert record["env"] == checkpoints.ENV
    source = checkpoints.make("vla-diffusion", tmp_path / "vla")
    record = files.read(export_policy(source, tmp_path / "b.safetensors")).policy
    assert (record["horizon"], record["execute_steps"], record["noise"]) == (3, 3, True)
    assert (record["instruction"], len(record["tokens"])) == ("go up", 7)
    assert (record["action"]["low"], record["action"]["high"]) == (-1.0, 1.0)


def test_the_command_line_plays_what_it_imported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from simscaleai_jax.models import BehaviorCloning
    from simscaleai_jax.models.record import flat_parameters

    spec = {"joint_pos": 7, "joint_vel": 7, "ee_pos": 3, "target_pos": 3}
    manifest = checkpoint.Manifest(
        kind="model", model_name="bc", model_kwargs={"hidden_dim": 8}, env=checkpoints.ENV,
        observation_spec={key: {"shape": [size], "dtype": "float32"} for key, size in spec.items()},
        action_spec={"shape": [4], "dtype": "float32", "low": -1.0, "high": 1.0}, config={"lr": 1e-3},
    )  # fmt: skip
    checkpoint.save(tmp_path / "bc", {"params": flat_parameters(BehaviorCloning(hidden_dim=8))}, manifest)
    out = str(tmp_path / "out.safetensors")
    assert simscale(["export", str(tmp_path / "bc"), "--output", out, "--eval-episodes", "2"]) == 0
    card = (tmp_path / "out.md").read_text()
    for text in (
        "for reach",
        "0.0% of 2 episodes of reach",
        "95% interval 0.0% to 65.8%",
        "`target_pos`",
        "- lr: 0.001",
    ):
        assert text in card
    assert simscale(["import", out]) == 0
    results = str(tmp_path / "eval.json")
    assert simscale(["eval", str(tmp_path / "out"), "--physics", "host", "--n-episodes", "1", "--output", results]) == 0
    assert json.loads(Path(results).read_text())["host"]["mean_length"] == 9
    assert simscale(["export", str(tmp_path / "bc"), "--output", str(tmp_path / "policy.onx")]) == 1
    assert "Did you mean 'onnx'" in capsys.readouterr().err
