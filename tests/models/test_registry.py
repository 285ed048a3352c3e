"""Registering models: built-in names are always there and cannot be taken."""

import subprocess
import sys

import pytest

from simscaleai_jax.models import ModelRegistry, create_model, list_models, register_model, registry


@pytest.mark.wide
def test_a_users_model_stands_beside_the_built_in_ones() -> None:
    code = (
        "from simscaleai_jax.models.registry import register_model, list_models, create_model\n"
        "@register_model('mine')\n"
        "class Mine: pass\n"
        "print(list_models(), type(create_model('bc', hidden_dim=8)).__name__, type(create_model('mine')).__name__)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "['act', 'bc', 'diffusion', 'flow', 'mine', 'vla'] BehaviorCloning Mine"


def test_a_taken_name_is_refused_and_a_rerun_definition_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    with pytest.raises(ValueError, match="'bc' is taken by"):
        register_model("bc")(dict)
    make = lambda: type("Own", (), {"__module__": "here"})  # noqa: E731
    register_model("own")(make())
    second = register_model("own")(make())
    assert isinstance(ModelRegistry.create("own"), second)
    assert "own" in ModelRegistry.list()


def test_unknown_names_list_the_choices() -> None:
    with pytest.raises(ValueError, match="act, bc, diffusion, flow, vla"):
        create_model("bcc")
    assert list_models() == ["act", "bc", "diffusion", "flow", "vla"]


def test_unknown_arguments_name_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"model 'bc': 'hiden_dim'\. Did you mean 'hidden_dim'"):
        create_model("bc", hiden_dim=3)
