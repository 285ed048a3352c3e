"""What `examine` says of programs on this machine's devices, and which machines there are."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.core import sharding
from simscaleai_jax.core.ahead import Program, abstract
from simscaleai_jax.plan import report
from simscaleai_jax.plan.targets import find_target, presets


def examine(function, shape, split=sharding.batch_sharding, **given):
    target = find_target("cpu:8")
    argument = abstract(jax.ShapeDtypeStruct(shape, np.float32), split(target.mesh))
    return report.examine(Program(jax.jit(function), (argument,)), target, **given)


def test_a_program_that_reduces():
    found = examine(lambda x: (x @ jnp.ones((32, 4))).sum(), (64, 32))
    assert found["devices"] == 8
    assert found["flops"]["products"] == 2 * 64 * 32 * 4 / 8
    assert found["memory"]["arguments"] == 64 * 32 * 4 / 8
    assert [(row["kind"], row["size"], row["count"]) for row in found["collectives"]["each"]] == [("all-reduce", 4, 1)]
    assert found["collectives"]["sent"] == 2 * 4 * 7 / 8
    assert found["cycles"] is found["estimate"] is None, "a CPU's compiler gives none"
    assert found["warnings"] == []
    assert set(found["seconds"]) == {"trace", "lower", "compile"}


def test_warnings(monkeypatch):
    def gathers(x):
        return jax.lax.with_sharding_constraint(x, sharding.replicated(find_target("cpu:8").mesh)) * 2

    (gather,) = examine(gathers, (64, 32))["warnings"]
    assert gather.startswith("exchanges data that is split over the chips")
    assert "8,192 bytes" in gather
    assert examine(gathers, (64, 32), is_split=True)["warnings"] == []
    monkeypatch.setattr(report, "LARGE", 1000)
    (copied,) = examine(lambda x: x * 2, (64, 32), sharding.replicated)["warnings"]
    assert "copy of 8,192 bytes" in copied
    (called,) = examine(lambda x: jax.pure_callback(np.asarray, x, x), (64, 32), sharding.batch_sharding)["warnings"][
        :1
    ]
    assert called == "calls the host while it runs"


def test_unknown_machines_list_those_there_are():
    with pytest.raises(ValueError, match=r"Unknown topology .v9:4x4.. Available: a100:1, .*cpu:8, .*v5e:16x16"):
        find_target("v9:4x4")
    with pytest.raises(ValueError, match="for example v5e:4x4; got 'v5e'"):
        find_target("v5e")
    assert {"v4:2x2x1", "v5e:16x16", "v5p:4x4x4", "v6e:4x4", "tpu7x:2x2x1", "h100:8"} <= set(presets())
    with pytest.raises(ValueError, match="A node has 1, 2, 4, 8 GPUs; got 'h100:3'"):
        find_target("h100:3")


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(ImportError, match=r"needs libtpu .*: pip install 'simscaleai-jax\[tpu\]'"):
        find_target("v5e:4x4")
    with pytest.raises(ImportError, match=r"needs JAX's CUDA plugin: pip install 'simscaleai-jax\[plan-cuda\]'"):
        find_target("h100:8")
