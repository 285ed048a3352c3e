"""What a sweep hands over becomes what a file would have said; what no file can keep is named."""

import dataclasses
import enum
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.core.checkpoint import Manifest, check_savable
from simscaleai_jax.core.config import from_dict, settle, to_dict
from simscaleai_jax.core.plain import native, plain


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass(frozen=True)
class Settings:
    rate: float = 0.1
    count: int | None = None
    flag: bool = False
    name: str = "a"
    mode: Literal["fast", "slow"] = "fast"
    kind: Mode = Mode.FAST
    sizes: tuple[int, ...] = ()
    free: Any = None
    table: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        settle(self)


@pytest.mark.parametrize(
    ("field", "given", "wanted"),
    [
        ("rate", np.float32(0.5), 0.5),
        ("rate", np.array(0.5), 0.5),
        ("rate", jnp.bfloat16(0.5), 0.5),
        ("rate", 1, 1.0),
        ("count", np.int64(3), 3),
        ("count", np.float64(3.0), 3),
        ("count", Level.LOW, 1),
        ("flag", np.True_, True),
        ("name", np.str_("b"), "b"),
        ("name", Path("a/b"), "a/b"),
        ("mode", Mode.SLOW, "slow"),
        ("kind", "slow", Mode.SLOW),
        ("sizes", np.array([1, 2]), (1, 2)),
        ("sizes", jnp.arange(2), (0, 1)),
        ("sizes", [np.int8(1)], (1,)),
        ("free", {"a": np.float32(2), "b": [Mode.FAST]}, {"a": 2.0, "b": ["fast"]}),
        ("table", {"sizes": np.eye(2)}, {"sizes": [[1.0, 0.0], [0.0, 1.0]]}),
    ],
)
def test_fields_hold_what_their_annotations_say(field, given, wanted):
    settings = Settings(**{field: given})
    value = getattr(settings, field)
    assert value == wanted
    assert type(value) is type(wanted)
    assert from_dict(Settings, to_dict(settings)) == settings == from_dict(Settings, {field: given})


@pytest.mark.parametrize(
    ("field", "given", "message"),
    [
        ("rate", "fast", r"Settings\.rate must be float; got 'fast'"),
        ("rate", np.ones(2), r"Settings\.rate must be float"),
        ("count", np.float32(1.5), r"Settings\.count must be int; got 1.5"),
        ("flag", 1, r"Settings\.flag must be bool"),
        ("name", np.int64(3), r"Settings\.name must be str"),
        ("kind", "medium", r"Settings\.kind must be one of 'fast', 'slow'; got 'medium'"),
        ("table", {3: "a"}, r"Settings\.table key must be str"),
    ],
)
def test_other_types_are_refused_with_class_and_field(field, given, message):
    with pytest.raises(ValueError, match=message):
        Settings(**{field: given})


@pytest.mark.parametrize("value", [print, object(), {1, 2}, b"x", 1j, float("nan"), float("inf"), np.float32("inf")])
def test_what_no_file_can_keep_is_named(value):
    with pytest.raises(ValueError, match=r"where\.a\[1\]\.b is .*which no file can keep"):
        plain({"a": [0, {"b": value}]}, "where")
    manifest = Manifest("ppo", "actor_critic", model_kwargs={"activation": [value]})
    with pytest.raises(ValueError, match=r"'actor_critic' cannot be saved: Manifest\.model_kwargs\.activation\[0\] is"):
        check_savable(manifest)


def test_everything_else_is_left_alone():
    key = jax.random.key(0)
    assert native(key) is key
    assert native(print) is print
    assert native(np.float32) is np.float32
    assert plain(Settings(table={"path": Path("x")}), "")["table"] == {"path": "x"}
