"""What is read from the text of compiled programs."""

import doctest

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from simscaleai_jax.core import sharding
from simscaleai_jax.plan import hlo, report

# A TPU's program: a loop whose counter is compared with 3, in it an exchange in three pieces beside other work and one
# that ends in a slice, then a conditional.
TPU = """HloModule jit_f, is_scheduled=true

%piece.1 (p.1: bf16[4,128]) -> bf16[16,128] {
  %p.1 = bf16[4,128]{1,0:T(8,128)} parameter(0)
  ROOT %all-gather.1 = bf16[16,128]{1,0:T(8,128)} all-gather(%p.1), channel_id=9, replica_groups=mesh['data'=4] {'data'}, dimensions={0}, metadata={op_name="jit(f)/gather"}
}

%piece.2 (p.2: bf16[4,128]) -> bf16[16,128] {
  %p.2 = bf16[4,128]{1,0:T(8,128)} parameter(0)
  ROOT %all-gather.2 = bf16[16,128]{1,0:T(8,128)} all-gather(%p.2), channel_id=9, replica_groups=mesh['data'=4] {'data'}, dimensions={0}, metadata={op_name="jit(f)/gather"}
}

%all-reduce-scatter (p.3: f32[16,128]) -> f32[4,128] {
  %p.3 = f32[16,128]{1,0:T(8,128)} parameter(0)
  %all-reduce.1 = f32[16,128]{1,0:T(8,128)} all-reduce(%p.3), channel_id=2, replica_groups=[1,4]<=[4], to_apply=%add, metadata={op_name="jit(f)/scatter"}
  ROOT %slice.1 = f32[4,128]{1,0:T(8,128)} slice(%all-reduce.1), slice={[0:4], [0:128]}
}

%condition (s.1: (s32[], bf16[4,128])) -> pred[] {
  %s.1 = (s32[]{:T(128)}, bf16[4,128]{1,0:T(8,128)}) parameter(0)
  %limit = s32[]{:T(128)} constant(3)
  %counter = s32[]{:T(128)} get-tuple-element(%s.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%counter, %limit), direction=LT
}

%body (s.2: (s32[], bf16[4,128])) -> (s32[], bf16[4,128]) {
  %s.2 = (s32[]{:T(128)}, bf16[4,128]{1,0:T(8,128)}) parameter(0)
  %start = bf16[16,128]{1,0:T(8,128)S(1)} fusion(%s.2), kind=kCustom, calls=%piece.1, metadata={op_name="jit(f)/policy/vmap(physics)/add"}, backend_config={"window_config":{"estimated_cycles":"100"}}
  %done = bf16[16,128]{1,0:T(8,128)} fusion(%start), kind=kCustom, calls=%piece.2, metadata={op_name="jit(f)/policy/mul"}, backend_config={"window_config":{"estimated_cycles":"10"}}
  ROOT %out = (s32[]{:T(128)}, bf16[4,128]{1,0:T(8,128)}) tuple(%done)
}

%cheap (c.1: f32[4]) -> f32[4] {
  %c.1 = f32[4]{0:T(128)} parameter(0)
  ROOT %one = f32[4]{0:T(128)} add(%c.1, %c.1), backend_config={"estimated_cycles":"1"}
}

%dear (c.2: f32[4]) -> f32[4] {
  %c.2 = f32[4]{0:T(128)} parameter(0)
  ROOT %two = f32[4]{0:T(128)} multiply(%c.2, %c.2), backend_config={"estimated_cycles":"1000"}
}

ENTRY %main.1 (a: bf16[4,128]) -> f32[4,128] {
  %a = bf16[4,128]{1,0:T(8,128)} parameter(0)
  %loop = (s32[]{:T(128)}, bf16[4,128]{1,0:T(8,128)}) while(%a), condition=%condition, body=%body
  %scattered = f32[4,128]{1,0:T(8,128)} fusion(%loop), kind=kCustom, calls=%all-reduce-scatter
  %either = f32[4]{0:T(128)} conditional(%a, %a, %a), branch_computations={%cheap, %dear}
  ROOT %narrow = f32[64,2]{1,0:T(8,128)} copy(%scattered), metadata={op_name="jit(f)/copy"}
}
"""  # noqa: E501


def test_a_tpu_program_is_read():
    module = hlo.Module(TPU)
    gather, scatter = sorted(module.collectives(), key=lambda each: each.kind)
    assert (gather.kind, gather.size, gather.count, gather.group, gather.axes) == (
        "all-gather", 16 * 128 * 2, 3, 4, ("data",),
    )  # fmt: skip
    assert (scatter.kind, scatter.size, scatter.count, scatter.group) == ("reduce-scatter", 16 * 128 * 4, 1, 4)
    assert gather.wire == 16 * 128 * 2 * 3 / 4
    costs = {cost.name: cost for cost in module.costs()}
    assert {name: cost.cycles for name, cost in costs.items() if cost.cycles} == {"start": 300, "done": 30, "two": 1000}
    assert costs["done"].moved == 3 * 16 * 128 * 2, "what it reads lies beside the cores"
    assert (costs["narrow"].padded, costs["narrow"].written) == (64 * 128 * 4, 64 * 2 * 4)
    assert module.unknown_loops() == 0
    assert report.part_of(costs["start"].op_name) == "physics"
    assert not module.has_float64()
    assert not module.has_host_calls()


def test_exchanges_between_slices_are_sent_by_the_host_and_no_calls_of_it():
    across = (
        '_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_target="{1,2,3}x{0:15}",'
        '_xla_megascale_transfer_type="ALL_REDUCE"'
    )
    send = "  %sent = (bf16[4,128]{1,0}, u32[]{:S(2)}, token[]) send(%a, %after), channel_id=4, is_host_transfer=true"
    start, loop, end = TPU.partition("  %loop =")
    module = hlo.Module(f"{start}{send}, frontend_attributes={{{across}}}\n{loop}{end}")
    (reduced,) = [each for each in module.collectives() if each.axes == ("slice",)]
    assert (reduced.kind, reduced.size, reduced.group) == ("all-reduce", 4 * 128 * 2, 3)
    assert not module.has_host_calls()
    other = hlo.Module(f"{start}{send}\n{loop}{end}")
    assert other.has_host_calls()
    assert len(other.collectives()) == 2


def test_loops_and_exchanges_of_a_compiled_program():
    mesh = sharding.make_mesh(jax.devices())

    def step(x, _):
        return x + jax.lax.pmean(x.sum(), "data"), jax.lax.all_gather(x, "data").sum()

    function = jax.shard_map(
        lambda x: jax.lax.scan(step, x, length=5), mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False
    )
    text = jax.jit(function, out_shardings=sharding.batch_sharding(mesh)).lower(jnp.zeros((16, 3))).compile().as_text()
    found = {each.kind: each for each in hlo.Module(text).collectives()}
    assert {kind: (each.size, each.count, each.group) for kind, each in found.items()} == {
        "all-reduce": (4, 5, 8),
        "all-gather": (16 * 3 * 4, 5, 8),
    }


@pytest.mark.parametrize("module", [hlo, report])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).attempted
    assert not doctest.testmod(module).failed
