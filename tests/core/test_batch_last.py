"""The batch behind all other axes gives what `jax.vmap` gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.core.batch_last import compiled_for, on_lanes, vmap_last

SIZES = (6, 1024)  # on one axis, and on two


def members(*shapes, size, dtype=jnp.float32):
    """One array for each shape, with different numbers for every member."""
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [jax.random.normal(key, (size, *shape)).astype(dtype) for key, shape in zip(keys, shapes, strict=True)]


def products(x, y, quat):
    """Products of matrices, vectors, with axes in common, with a matrix that all members share; of nothing, too."""
    inner = jnp.einsum("ij,kj->ik", x, y[:, :4])
    shared = np.arange(8.0, dtype=np.float32).reshape(4, 2)
    both = jnp.einsum("bij,bjk->bik", y.reshape(2, 3, 5)[:, :, :3], y.reshape(2, 3, 5)[:, :, 2:])
    return inner, x @ shared, both, jnp.outer(quat, quat), jnp.dot(quat, quat), jnp.zeros((3, 0)) @ quat[:0]


def shapes(x, y, quat):
    """What moves numbers about."""
    turned = jnp.transpose(y.reshape(5, 2, 3), (2, 0, 1))
    padded = jnp.pad(x, ((1, 0), (0, 2)), constant_values=3.0)
    joined = jnp.concatenate([x, jnp.ones((1, 4)), x[::-1]], axis=0)
    stacked = jnp.stack([quat, quat[::-1], np.ones(4, np.float32)], axis=1)
    return turned, padded, joined, stacked, jnp.tile(x, (2, 1)), jnp.repeat(x, 2, axis=1), jnp.roll(x, 1, axis=0)


def reductions(x, y, quat):
    """Sums, extremes and their places, orders and sums up to each place."""
    order = jnp.argsort(quat), jnp.sort(x, axis=0), jnp.cumsum(x, axis=1)
    return x.sum(0), x.max(), jnp.argmin(y, axis=1), jnp.any(x > 0, axis=0), jnp.linalg.norm(quat), *order


def indices(x, y, quat):
    """Places that all members share, and each its own: one, several, of rows, in order, with what lies outside."""
    own = jnp.argmax(quat)
    places = jnp.argsort(quat)[:2]
    rows = jax.vmap(lambda row, place: row[place])(y[:2], places)
    filled = jnp.take(x, places + 2, axis=0)
    return x[2], x[:, jnp.array([3, 0])], quat[own], x[own % 3], x[:, own], y[places], y[:, places], rows, filled


def updates(x, y, quat):
    """Changed places that all members share, and each its own."""
    own = jnp.argmax(quat)
    written = x.at[1].set(quat), x.at[jnp.array([0, 2]), jnp.array([1, 1])].add(quat[:2]), x.at[:, own].set(0.0)
    return *written, jax.lax.dynamic_update_slice(x, y[:1, :2], (1, 2)), jax.lax.dynamic_slice(y, (own, 0), (2, 3))


def systems(x, y, quat):
    """Symmetric systems, one and three right-hand sides, and triangular ones."""
    gram = x @ x.T + jnp.eye(3)
    factor = jax.scipy.linalg.cho_factor(gram)
    triangular = [
        jax.scipy.linalg.solve_triangular(gram, y[:3, :2], lower=lower, trans=trans)
        for lower in (False, True)
        for trans in (0, 1)
    ]
    lower = jnp.linalg.cholesky(gram)
    return lower, jax.scipy.linalg.cho_solve(factor, quat[:3]), jax.scipy.linalg.cho_solve(factor, x), *triangular


def loops(x, y, quat):
    """Rounds that every member ends for itself, rounds of all, and a choice of each."""
    halved = jax.lax.while_loop(lambda pair: pair[0] > 0.1, lambda pair: (pair[0] / 2, pair[1] + 1), (x.max(), 0))
    counted = jax.lax.fori_loop(0, 3, lambda i, total: total + quat[i] * i, 0.0)
    carried = jax.lax.scan(lambda carry, row: (carry + row, (carry.sum(), 2.0)), jnp.zeros(4), x)
    backward = jax.lax.scan(lambda carry, row: (carry * row, carry), quat[:3], x.T, reverse=True)
    chosen = jax.lax.cond(quat[0] > 0, lambda: x, lambda: jnp.zeros((3, 4)))
    one_of = jax.lax.switch(jnp.argmax(quat), [jnp.sin, jnp.cos, lambda a: a, jnp.zeros_like], x)
    return halved, counted, carried, backward, chosen, one_of


def elements(x, y, quat):
    """Single numbers: broadcast, compared, clipped, converted; a derivative of one's own."""
    softened = jax.nn.relu(x) + jax.nn.softplus(quat)
    where = jnp.where(quat[0] > 0, x, 1.0), jax.lax.select(quat[0] > 0, x, 2 * x)
    return jnp.clip(x, quat[0], 1.0), x / quat[:1], (x > 0).astype(jnp.int32), softened, *where, x**2


FUNCTIONS = (products, shapes, reductions, indices, updates, systems, loops, elements)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_it_gives_what_vmap_gives(function, size):
    arguments = members((3, 4), (6, 5), (4,), size=size)
    wanted = jax.jit(jax.vmap(function))(*arguments)
    found = jax.jit(vmap_last(function))(*arguments)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for i, (one, other) in enumerate(zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=f"{function.__name__}, result {i}")


def test_what_all_members_share_is_given_once():
    x, weights = members((3,), size=6)[0], {"kernel": jnp.ones((3, 2)), "none": None}
    found = vmap_last(lambda w, x: x @ w["kernel"], in_axes=({"kernel": None, "none": None}, 0))(weights, x)
    np.testing.assert_allclose(found, x @ weights["kernel"], rtol=1e-6)
    text = str(jax.make_jaxpr(vmap_last(lambda w, x: x @ w["kernel"], ({"kernel": None, "none": None}, 0)))(weights, x))
    assert "dot_general" not in text
    assert "6,3,2" not in text


def test_large_batches_for_a_tpu_take_it_and_no_others():
    def function(matrix, vector):
        return matrix @ vector

    def operations(size, platform):
        arguments = members((3, 3), (3,), size=size)
        with compiled_for(platform):
            return str(jax.make_jaxpr(jax.vmap(on_lanes(function)))(*arguments))

    assert on_lanes(function) is function, "on this machine"
    assert "dot_general" not in operations(1024, "tpu")
    assert "8,128" in operations(1024, "tpu"), "whole tiles"
    assert "dot_general" in operations(16, "tpu")
    assert "dot_general" in operations(1024, "gpu")


def test_it_has_derivatives_forwards():
    x, y = members((3, 3), (3,), size=512)
    with compiled_for("tpu"):
        function = jax.vmap(on_lanes(lambda matrix, vector: matrix @ vector))
        _, found = jax.jvp(lambda x: function(x, y), (x,), (jnp.ones_like(x),))
    np.testing.assert_allclose(found, jnp.repeat(y.sum(-1, keepdims=True), 3, axis=1), rtol=1e-4, atol=1e-5)
