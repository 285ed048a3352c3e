"""Config files: what is read, what is refused, and what the message says."""

import dataclasses
from typing import Any, Literal

import pytest

from simscaleai_jax.core import apply_overrides, check_names, from_dict, load_yaml, suggest, to_dict, unknown_name


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str = "a"
    count: int | None = None
    mode: Literal["fast", "slow"] = "fast"
    flag: bool = False
    inner: Inner = Inner()
    table: dict = dataclasses.field(default_factory=dict)
    free: Any = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    rates: dict[str, float] = dataclasses.field(default_factory=dict)


def test_suggest_names_the_nearest_and_is_silent_when_nothing_is_near():
    assert suggest("hiden-dim", ["lr", "hidden_dim"]) == " Did you mean 'hidden_dim'?"
    assert suggest("zzz", ["lr", "hidden_dim"]) == ""
    assert str(unknown_name("env", "x", ["reach", "pick_place"])) == "Unknown env 'x'. Available: pick_place, reach."
    with pytest.raises(ValueError, match=r"'flga'\. Did you mean 'flag'") as error:
        check_names("field", ["flga", "tabel"], ["flag", "table"])
    assert "Did you mean 'table'" in str(error.value)


def test_yaml_becomes_the_dataclass_and_goes_back(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("name: b\ncount: 3\ninner: {rate: 3e-4, sizes: [4]}\ntable: {dt: 0.01}\n")
    config = load_yaml(path, Outer, {"inner.rate": 1, "mode": "slow"})
    assert config == Outer("b", 3, "slow", False, Inner(1.0, (4,)), {"dt": 0.01})
    assert isinstance(config.inner.rate, float)
    assert load_yaml(path, Outer).inner.rate == 3e-4, "YAML 1.1 reads 3e-4 as a string"
    assert from_dict(Outer, to_dict(config)) == config
    assert apply_overrides(config, {"table.dt": 0.02}).table == {"dt": 0.02}


def test_free_fields_take_anything_and_mappings_are_converted_inside():
    for value in (5, "text", [1, {"a": None}], {"d": 5}, None):
        assert from_dict(Outer, {"free": value}).free == value
    config = from_dict(Outer, {"options": {"d": 5, "list": [1]}, "rates": {"a": 1, "b": "3e-4"}})
    assert config.options == {"d": 5, "list": [1]}
    assert config.rates == {"a": 1.0, "b": 3e-4}
    assert isinstance(config.rates["a"], float)
    assert from_dict(Outer, to_dict(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmae: b", "'nmae'. Did you mean 'name'"),
        ("inner: {rtae: 1}", r"inner\.Unknown Inner field 'rtae'. Did you mean 'rate'"),
        ("inner: 3", "inner must be a mapping"),
        ("count: 1.5", "count must be int; got 1.5"),
        ("flag: 'yes'", "flag must be bool; got 'yes'"),
        ("inner: {rate: fast}", r"inner\.rate must be float; got 'fast'"),
        ("mode: medium", "mode must be one of 'fast', 'slow'"),
        ("inner: {sizes: [a]}", r"sizes\[0\] must be int"),
        ("- 1", "must hold a mapping"),
        ("options: 5", "options must be a mapping; got 5"),
        ("options: [a]", "options must be a mapping"),
        ("options: {3: a}", "options key must be str; got 3"),
        ("rates: {a: fast}", r"rates\['a'\] must be float; got 'fast'"),
        ("a: [", "not valid YAML"),
        ("name: a\ncount: 1\nname: b", r"'name' stands twice \(again in line 3\)"),
        ("inner: {rate: 1, rate: 2}", "'rate' stands twice"),
    ],
)
def test_a_wrong_file_is_refused_with_what_where_and_nearest(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_yaml(path, Outer)


def test_a_missing_file_names_the_files_that_are_there(tmp_path):
    (tmp_path / "ppo_reach.yaml").write_text("")
    with pytest.raises(FileNotFoundError, match=r"ppo_reach\.yaml"):
        load_yaml(tmp_path / "ppo_raech.yaml", Outer)
