"""Bad settings are refused with a clear message before anything is compiled."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from simscaleai_jax.sim.factory import make_env, make_functional_env
from simscaleai_jax.sim.physics import choose_impl
from simscaleai_jax.sim.randomization import PRESETS, DomainRandomizationConfig, resolve
from simscaleai_jax.sim.registry import asset
from simscaleai_jax.sim.robot.feasibility import check_randomization
from simscaleai_jax.sim.tasks.pick_place.config import PickPlaceConfig

from .scenes import task


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"friction": (1.2, 0.8)}, "friction is inverted"),
        ({"table_height": (0.1, -0.1)}, "table_height is inverted"),
        ({"object_mass": (-0.1, 1.0)}, "object_mass must be positive"),
        ({"object_size": (0.0, 1.0)}, "object_size must be positive"),
        ({"colour": -0.1}, "colour must not be negative"),
    ],
)
def test_bad_randomization(settings, message):
    with pytest.raises(ValueError, match=message):
        DomainRandomizationConfig(**settings)


def test_randomization_by_name_or_dict():
    assert resolve("heavy").object_mass == (0.3, 3.0)
    assert resolve({"friction": [0.5, 2.0]}).friction == (0.5, 2.0)
    with pytest.raises(ValueError, match=r"Unknown randomization preset 'heavi'.*Did you mean 'heavy'"):
        resolve("heavi")
    with pytest.raises(ValueError, match=r"'frictoin'.*Did you mean 'friction'"):
        resolve({"frictoin": (0.5, 2.0)})
    with pytest.raises(ValueError, match="got int"):
        resolve(3)


def test_object_too_wide_for_the_gripper(tmp_path):
    wide = {"domain_randomization": True, "randomization": {"object_size": (1.0, 2.0)}}
    for make in (make_env, make_functional_env):
        with pytest.raises(
            ValueError, match=r"object cannot fit the gripper: 0.080 m wide at object_size 2, .* 0.080 m"
        ):
            make("pick_place", cameras=[], **wide)
    scene = _rewritten(tmp_path, 'size=".02 .02 .02"', 'size=".05 .05 .02"')
    with pytest.raises(ValueError, match=r"object cannot fit the gripper: 0.100 m wide, the gripper opens to 0.080 m"):
        make_functional_env("pick_place", cameras=[], xml_path=scene)


def test_target_range_outside_the_workspace():
    with pytest.raises(ValueError, match=r"leaves the workspace .* at \[0.95"):
        make_functional_env("pick_place", cameras=[], area_high=(0.95, 0.2))
    with pytest.raises(ValueError, match="outside the arm's workspace: it misses"):
        make_functional_env("pick_place", cameras=[], area_high=(1.2, 0.2), workspace_high=(1.5, 0.45, 0.6))


@pytest.mark.parametrize("heights", [(0.6, 0.6), (-0.4, 0.0), (0.0, 0.4)])
def test_tables_out_of_reach(heights):
    for make in (make_env, make_functional_env):
        with pytest.raises(ValueError, match=r"outside the arm's workspace: it misses .* randomized table_height, \("):
            make("pick_place", cameras=[], domain_randomization=True, randomization={"table_height": heights})


@pytest.mark.parametrize("preset", PRESETS)
def test_tables_of_every_preset_are_within_reach(preset):
    check_randomization(task(), preset)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"area_low": (0.7, -0.2)}, "area_low must lie below area_high"),
        ({"air_low": 0.3}, "air_low <= air_high"),
        ({"air_share": 1.5}, r"air_share must lie in \[0, 1\]"),
        ({"curriculum_steps": 0}, "curriculum_steps must be positive"),
        ({"curriculum_held": 0.7, "curriculum_around": 0.4}, "must not exceed 1 together, got 0.7 and 0.4"),
        ({"min_distance": 0.5}, "min_distance must be less than"),
        ({"termination_distance": 0.1}, "termination_distance <= success_distance"),
        ({"success_bonus": -1.0}, "success_bonus must not be negative"),
    ],
)
def test_bad_task_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        PickPlaceConfig(**settings)


def test_warp_without_warp(monkeypatch):
    monkeypatch.setattr("simscaleai_jax.sim.physics._has_warp", lambda: False)
    with pytest.raises(ValueError, match=r"impl='warp' needs warp-lang: pip install 'simscaleai-jax\[warp\]'"):
        make_functional_env("pick_place", cameras=[], impl="warp")


@pytest.mark.parametrize(
    ("backend", "kind", "has_warp", "wanted"),
    [
        ("gpu", "NVIDIA H200", True, "warp"),
        ("gpu", "NVIDIA H200", False, "jax"),
        ("gpu", "AMD Instinct MI300X", True, "jax"),
        ("tpu", "TPU v5 lite", True, "jax"),
        ("cpu", "cpu", True, "c"),
    ],
)
def test_auto_takes_the_engine_that_suits_the_machine(backend, kind, has_warp, wanted, monkeypatch):
    monkeypatch.setattr("simscaleai_jax.sim.physics._has_warp", lambda: has_warp)
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    monkeypatch.setattr("jax.devices", lambda: [SimpleNamespace(device_kind=kind)])
    assert choose_impl("auto") == wanted


def test_mujocos_renderer_cannot_draw_in_a_functional_environment():
    with pytest.raises(ValueError, match=r"renderer='mujoco' draws for host adapters .* take renderer='jax'"):
        make_functional_env("pick_place", renderer="mujoco")


def test_everything_missing_is_listed_at_once():
    with pytest.raises(ValueError, match=r"'object' with a freejoint.*'left_touch'.*'right_touch'"):
        make_functional_env("pick_place", cameras=[], xml_path=asset("reach.xml"))


def _rewritten(tmp_path, old, new):
    text = Path(asset("pick_place.xml")).read_text()
    assert old in text
    (tmp_path / "panda.xml").write_text(Path(asset("panda.xml")).read_text())
    (tmp_path / "scene.xml").write_text(text.replace(old, new))
    return str(tmp_path / "scene.xml")
