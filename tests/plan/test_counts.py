"""Floating-point work of jaxprs."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from simscaleai_jax.core import sharding
from simscaleai_jax.plan.counts import count

A, B = jnp.ones((8, 16)), jnp.ones((16, 32))
PRODUCT = 2 * 8 * 16 * 32


def work(function, *arguments):
    return count(jax.jit(function).trace(*arguments).jaxpr.jaxpr)


def test_rounds_of_loops_count_and_so_do_passes():
    looped = work(lambda a, b: jax.lax.scan(lambda c, _: (c + (a @ b).sum(), None), 0.0, length=7)[0], A, B)
    assert looped.products == looped.passes == 7 * PRODUCT
    assert looped.other >= 7
    precise = work(lambda a, b: jnp.matmul(a, b, precision="highest"), A, B)
    assert (precise.products, precise.passes) == (PRODUCT, 6 * PRODUCT)
    half = work(lambda a, b: jnp.matmul(a, b, precision="highest"), A.astype(jnp.bfloat16), B.astype(jnp.bfloat16))
    assert half.passes == PRODUCT
    unknown = work(lambda a, b: jax.lax.while_loop(lambda c: c < 9, lambda c: c + (a @ b).sum(), 0.0), A, B)
    assert unknown.products == PRODUCT


def test_of_two_branches_the_dearer_one_counts():
    either = work(lambda a, b: jax.lax.cond(a.sum() > 0, lambda: (a @ b).sum(), lambda: 0.0), A, B)
    assert either.products == PRODUCT


def test_convolutions_count():
    images, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
    found = work(
        lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")),
        images,
        kernel,
    )
    assert found.products == 2 * (2 * 8 * 8 * 5) * 3 * 3 * 3


def test_work_inside_shard_map_is_that_of_all_devices():
    mesh = sharding.make_mesh(jax.devices())
    mapped = jax.shard_map(lambda a, b: a @ b, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"))
    assert work(mapped, A, B).products == work(lambda a, b: a @ b, A, B).products == PRODUCT
