"""The trainer's programs from shapes alone are those that a run compiles, in the dtype of their target."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType

from simscaleai_jax.core import sharding
from simscaleai_jax.models import create_model
from simscaleai_jax.models.specs import fake_batch
from simscaleai_jax.models.transformer import TransformerEncoder
from simscaleai_jax.plan.hlo import Module
from simscaleai_jax.training.ahead import make_programs
from simscaleai_jax.training.feeding import prepare
from simscaleai_jax.training.setup import split_model
from simscaleai_jax.training.step import init_state
from simscaleai_jax.training.trainer import TrainConfig, Trainer


def build():
    return create_model("bc", hidden_dim=16, n_layers=1)


@pytest.mark.wide
@pytest.mark.parametrize("fsdp", [False, True])
def test_programs_from_shapes_are_those_that_run(tmp_path, monkeypatch, fsdp):
    monkeypatch.setattr(sharding, "SHARDED_MIN_SIZE", 16)
    monkeypatch.setattr(sharding, "TILE", (1, 1))
    config = TrainConfig(checkpoint_dir=str(tmp_path), num_devices=8, ema_decay=0.9, fsdp=fsdp)
    model = build()
    batch = fake_batch(model.input_spec(32))
    trainer = Trainer(model, [batch], config, progress=False)
    on_mesh = prepare(batch, model, trainer.mesh)
    trainer.accept(on_mesh)
    programs = trainer.programs
    update = programs.single(trainer.state).lower(trainer.state, programs.zero_metrics(), on_mesh)
    evaluate = programs.evaluation.lower(trainer.state.params, on_mesh)
    mesh = sharding.make_mesh(jax.devices())
    with monkeypatch.context() as patch:
        patch.setattr(jax, "devices", None)
        patch.setattr(jax, "device_put", None)
        made = {name: each.lower() for name, each in make_programs(build, model.input_spec(32), config, mesh).items()}
    assert made["update"].as_text() == update.as_text()
    assert made["evaluate"].as_text() == evaluate.as_text()
    state, _, _ = made["update"].compile()(trainer.state, programs.zero_metrics(), on_mesh)
    assert int(state.step) == 1


def test_parameters_split_over_a_grid_of_chips_learn_what_whole_ones_do():
    def wide():
        return create_model("bc", hidden_dim=256, n_layers=1, dropout=0.0)

    spec = wide().input_spec(16)
    grid = jax.make_mesh((4, 2), ("x", "y"), (AxisType.Auto,) * 2)
    # XLA's CPU devices wait for each other when exchanges of several groups run at once.
    in_order = {"xla_cpu_enable_concurrency_optimized_scheduler": False}

    def after_one_update(mesh, config):
        program = make_programs(wide, spec, config, mesh)["update"]
        shapes, totals, on_mesh = program.arguments
        state = jax.tree.map(sharding.put, init_state(split_model(wide(), config)[2], config), _places(shapes))
        totals = {name: jnp.zeros(()) for name in totals}
        return program.lower().compile(compiler_options=in_order)(
            state, jax.device_put(totals, sharding.replicated(mesh)), jax.device_put(fake_batch(spec), _places(on_mesh))
        )[0]

    split = after_one_update(grid, TrainConfig(fsdp=True))
    whole = after_one_update(sharding.make_mesh(jax.devices()), TrainConfig())
    kernel = split.params["state_encoder"]["layers"][1]["kernel"]
    assert kernel.sharding.spec == sharding.P(("x", "y"), None)
    assert kernel.addressable_shards[0].data.shape == (32, 256)
    moved = [np.abs(np.asarray(leaf)).max() for leaf in jax.tree.leaves(whole.opt_state) if leaf.shape == (256, 256)]
    assert max(moved) > 1e-4, "there is a gradient to compare"
    for a, b in zip(jax.tree.leaves(split.opt_state), jax.tree.leaves(whole.opt_state), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.wide
def test_layers_that_are_recomputed_gather_their_matrices_once_where_those_are_kept(monkeypatch):
    monkeypatch.setattr(sharding, "SHARDED_MIN_SIZE", 16)
    monkeypatch.setattr(sharding, "TILE", (1, 1))
    mesh = sharding.make_mesh(jax.devices())
    encoder = TransformerEncoder(16, 2, 3, 32, dropout=0.0, scan_layers=True, remat=True, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(encoder)
    params = jax.device_put(state, sharding.parameter_shardings(state, mesh, True))
    x = jax.device_put(jax.random.normal(jax.random.key(0), (8, 4, 16)), sharding.batch_sharding(mesh))

    def compiled(is_kept):
        def loss(params, x):
            with sharding.gathering(mesh, is_kept):
                return (nnx.merge(graphdef, sharding.whole(params))(x) ** 2).mean()

        places = sharding.parameter_shardings(state, mesh, True)
        return jax.jit(jax.grad(loss), out_shardings=places).lower(params, x).compile()

    def gathers(program):
        found = Module(program.as_text()).collectives()
        return sum(each.count for each in found if each.kind == "all-gather")

    again, once = compiled(False), compiled(True)
    assert gathers(again) - gathers(once) == 2 * 4, "the matrices of the two layers that run in a loop"
    for a, b in zip(jax.tree.leaves(again(params, x)), jax.tree.leaves(once(params, x)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def _places(shapes):
    return jax.tree.map(lambda leaf: leaf.sharding, shapes)


@pytest.mark.parametrize(("platform", "dtype"), [("cpu", "f32"), ("tpu", "bf16")])
def test_products_have_the_dtype_of_the_target(monkeypatch, platform, dtype):
    monkeypatch.setattr(sharding, "platform", lambda mesh: platform)
    mesh = sharding.make_mesh(jax.devices()[:2])
    config = TrainConfig(device="tpu")  # which is not on this machine
    text = make_programs(build, build().input_spec(8), config, mesh)["update"].lower().as_text()
    assert set(re.findall(r"dot_general.*-> tensor<[\dx]*x(\w+)>", text)) == {dtype}


def test_a_batch_that_does_not_divide_is_refused():
    mesh = sharding.make_mesh(jax.devices())
    with pytest.raises(ValueError, match=r"batch size of 12 .* nearest: 8 or 16"):
        make_programs(build, build().input_spec(12), TrainConfig(), mesh)
