"""One update: on one device and on eight, in slices, averaged, recomputed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from simscaleai_jax.core import sharding
from simscaleai_jax.models import create_model
from simscaleai_jax.models.normalization import Statistics
from simscaleai_jax.training import step as steps
from simscaleai_jax.training.data import DummyTrajectoryDataset, make_loader
from simscaleai_jax.training.setup import split_model
from simscaleai_jax.training.trainer import TrainConfig

from .conftest import SETTINGS, SMALL_MODEL, leaves, make_trainer, same

ROWS = np.random.default_rng(0)
BATCH = {
    "observations": {"state": ROWS.normal(size=(16, 20)).astype(np.float32)},
    "actions": ROWS.uniform(-1, 1, (16, 4)).astype(np.float32),
}


@pytest.fixture(scope="module")
def small():
    """(loss function with dropout, parameters)."""
    graph, _, params = split_model(create_model("bc", **SMALL_MODEL), TrainConfig())
    return steps.make_loss_fn(graph, None), params


def close(first, second, atol):
    for a, b in zip(leaves(first), leaves(second), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def test_gradients_on_eight_devices_equal_those_on_one(small):
    loss_fn, params = small
    grad_fn = jax.jit(lambda params, batch: steps.gradients(loss_fn, params, batch, jax.random.key(3)))
    mesh = sharding.make_mesh(jax.devices()[:8])
    one = grad_fn(params, BATCH)
    eight = grad_fn(sharding.put_replicated(params, mesh), sharding.put_batch(BATCH, mesh))
    assert max(np.abs(leaf).max() for leaf in leaves(one[0])) > 1e-2, "there is a gradient to compare"
    close(one, eight, 1e-5)


@pytest.fixture(scope="module")
def after_fifty(tmp_path_factory):
    """devices -> a trainer after 50 updates."""

    def run(count, **settings):
        folder = tmp_path_factory.mktemp("devices")
        trainer = make_trainer(folder, num_devices=count, max_steps=50, batch_size=16, save_every=50, **settings)
        trainer.train()
        return trainer

    return {1: run(1), 8: run(8), "split": run(8, fsdp=True, model=create_model("bc", hidden_dim=256, n_layers=1))}


@pytest.mark.wide
def test_parameters_stay_identical_on_every_device(after_fifty):
    trainer = after_fifty[8]
    for leaf in jax.tree.leaves(trainer.state.params):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == 8
        assert all((copy == copies[0]).all() for copy in copies)
    close(trainer.state.params, after_fifty[1].state.params, 1e-4)
    start = split_model(create_model("bc", **SMALL_MODEL), TrainConfig())[2]
    assert not same(start, trainer.state.params), "they have moved"


@pytest.mark.wide
def test_large_parameters_are_split_by_the_rules(after_fifty):
    split = {
        (512, 256): ("data", None), (256, 2048): ("data", None), (250, 1024): (None, "data"), (257, 513): (),
        (16, 16): (), (12, 1024, 4096): (None, "data", None), (512, 512, 3, 3): (), (100_000,): (),
    }  # fmt: skip
    for shape, axes in split.items():
        assert sharding.parameter_spec(shape, 8) == sharding.P(*axes), shape
    assert sharding.parameter_spec((1024, 1024), 256) == sharding.P("data", None), "4 of a tile's 8 rows"
    assert sharding.parameter_spec((256, 1024), 256) == sharding.P(), "a row each would be mostly padding"
    state = after_fifty["split"].state
    kernel = state.params["state_encoder"]["layers"][1]["kernel"]
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape == (256, 256)]
    assert kernel.shape == (256, 256)
    for leaf in (kernel, *moments):
        assert leaf.addressable_shards[0].data.size == leaf.size // 8
    assert len(moments) >= 2
    assert state.params["state_encoder"]["layers"][0]["bias"].sharding.is_fully_replicated


@pytest.mark.wide
def test_split_parameters_train_like_whole_ones(after_fifty, tmp_path):
    model = create_model("bc", hidden_dim=256, n_layers=1)
    whole = make_trainer(tmp_path, num_devices=8, max_steps=50, batch_size=16, save_every=50, model=model)
    whole.train()
    close(whole.state.params, after_fifty["split"].state.params, 1e-3)


def test_slices_give_the_whole_batch_gradient():
    graph, _, params = split_model(create_model("bc", **SMALL_MODEL, dropout=0.0), TrainConfig())
    loss_fn = steps.make_loss_fn(graph, None)
    mask = np.arange(16) % 5 != 0  # slices of unequal weight
    for batch in (BATCH, BATCH | {"mask": mask}):
        whole, sliced = (steps.gradients(loss_fn, params, batch, jax.random.key(0), parts) for parts in (1, 4))
        close(whole, sliced, 1e-6)


def test_remat_changes_nothing(small):
    _, params = small
    graph = split_model(create_model("bc", **SMALL_MODEL), TrainConfig())[0]
    grads = [
        steps.gradients(steps.make_loss_fn(graph, None, remat), params, BATCH, jax.random.key(1))
        for remat in (False, True)
    ]
    close(*grads, 1e-6)
    text = str(
        jax.make_jaxpr(lambda p: jax.grad(steps.make_loss_fn(graph, None, True), has_aux=True)(p, BATCH, None))(params)
    )
    assert "remat" in text or "checkpoint" in text


def test_dropout_is_on_in_training_and_differs_per_update(small):
    loss_fn, params = small
    losses = {float(loss_fn(params, BATCH, key)[0]) for key in (None, jax.random.key(0), jax.random.key(1))}
    assert len(losses) == 3


def test_many_updates_in_one_call_equal_single_ones(small):
    loss_fn, params = small
    config = TrainConfig(**SETTINGS, ema_decay=0.5)
    update = steps.make_update(loss_fn, config)
    loader = make_loader(DummyTrajectoryDataset(64), 8)
    state = steps.init_state(params, config)
    zeros = {name: jnp.zeros(()) for name in jax.eval_shape(update, state, next(loader))[1]}
    many, totals = jax.jit(steps.make_many(update, loader.batch_at))(state, zeros, 0, 5, loader.data)
    single = jax.jit(steps.make_single(update))
    sums = zeros
    for i in range(5):
        state, sums = single(state, sums, loader.batch_at(loader.data, i))
    assert int(many.step) == 5
    close(many.params, state.params, 1e-6)
    close(many.ema_params, state.ema_params, 1e-6)
    close(totals, sums, 1e-5)
    assert not same(many.ema_params, many.params)


def test_average_of_weights():
    old, new = {"w": jnp.array([1.0])}, {"w": jnp.array([2.0])}
    assert steps._average(None, new, jnp.int32(3), None) is None
    assert steps._average(old, new, jnp.int32(0), 0.9)["w"] == pytest.approx(1.9), "at first a tenth of the old ones"
    assert steps._average(old, new, jnp.int32(10_000), 0.9)["w"] == pytest.approx(1.1)


def test_statistics_are_applied_inside_the_loss(small):
    loss_fn, params = small
    graph = split_model(create_model("bc", **SMALL_MODEL), TrainConfig())[0]
    statistics = Statistics.identity(20, 4).replace(state_mean=np.full(20, 2.0, np.float32))
    moved = BATCH | {"observations": {"state": BATCH["observations"]["state"] + 2.0}}
    normalized = steps.make_loss_fn(graph, statistics)(params, moved, None)[0]
    assert float(normalized) == pytest.approx(float(loss_fn(params, BATCH, None)[0]), rel=1e-5)


def test_reduced_precision_graph_keeps_the_parameters():
    model = create_model("bc", **SMALL_MODEL)
    graph, _, params = split_model(model, TrainConfig(), "tpu")
    assert model.dtype == "float32"
    assert all(leaf.dtype == np.float32 for leaf in leaves(params))
    rebuilt = nnx.merge(graph, nnx.State(params))
    assert rebuilt.dtype == "bfloat16"
    loss, low = (steps.make_loss_fn(g, None)(params, BATCH, None)[0] for g in (nnx.graphdef(model), graph))
    assert low.dtype == np.float32
    assert 0 < abs(float(loss - low)) < 1e-2 * float(loss)


def test_one_trace_only(tmp_path):
    trainer = make_trainer(tmp_path)
    traces = []
    update = trainer.programs.update
    trainer.programs.update = lambda state, batch: traces.append(0) or update(state, batch)
    trainer.train()
    assert len(traces) == 1
