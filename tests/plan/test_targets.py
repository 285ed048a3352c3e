"""Programs compiled for TPUs and GPUs that are not there: what they exchange and need must not change unseen."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from simscaleai_jax.core import sharding
from simscaleai_jax.core.ahead import Program, abstract
from simscaleai_jax.core.batch_last import compiled_for
from simscaleai_jax.models import create_model
from simscaleai_jax.plan.report import TooLargeError, examine
from simscaleai_jax.plan.targets import find_target
from simscaleai_jax.rl.ppo.config import PPOConfig
from simscaleai_jax.rl.ppo.state import init_training_state, make_learner
from simscaleai_jax.rl.ppo.update import Batch, minibatch_step
from simscaleai_jax.sim import make_functional_env
from simscaleai_jax.tools.commands.plan import PlanOptions, plan

pytestmark = [pytest.mark.plan, pytest.mark.filterwarnings("error:Error reading persistent compilation cache")]
BC = ["train", "--model", "bc", "--model.hidden-dim", "1024", "--model.n-layers", "3", "--batch-size", "8192"]
SERIOUS = ("float64", "host", "split over the chips", "copy of")  # words of warnings


def check(report):
    assert not [line for line in report["warnings"] if any(word in line for word in SERIOUS)]


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5e:16x16", "v6e:4x4"])
def test_a_minibatch_makes_one_all_reduce_of_the_same_bytes_on_any_slice(topology):
    target = find_target(topology)
    learner, params = jax.eval_shape(
        lambda: make_learner(PPOConfig(), {"obs_dim": 20, "action_dim": 4, "hidden_dim": 256, "n_layers": 2})
    )
    state = jax.eval_shape(lambda params: init_training_state(learner, params), params)
    rows = 1024 * target.mesh.size
    shapes = [jax.ShapeDtypeStruct((rows, *rest), jnp.float32) for rest in ((20,), (4,), (), (), (), ())]
    batch = Batch({"state": shapes[0]}, *shapes[1:])
    mapped = jax.shard_map(
        lambda state, batch: minibatch_step(learner, state, batch, sharding.AXIS), mesh=target.mesh,
        in_specs=(sharding.REPLICATED, sharding.BATCH), out_specs=sharding.REPLICATED, check_vma=False,
    )  # fmt: skip
    arguments = (
        abstract(state, sharding.replicated(target.mesh)),
        abstract(batch, sharding.batch_sharding(target.mesh)),
    )
    report = examine(Program(jax.jit(mapped, donate_argnums=0), arguments), target)
    (reduced,) = report["collectives"]["each"]
    weights = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert (reduced["kind"], reduced["count"], reduced["chips"]) == ("all-reduce", 1, target.mesh.size)
    assert reduced["size"] == 4 * (weights + 6), "and the six numbers of the loss"
    assert report["memory"]["needed"] < 16 * 2**20
    assert report["flops"]["passes"] == 6 * report["flops"]["products"], "whole float32, as docs/ppo.md says"
    check(report)


def test_an_update_of_ppo_reach():
    report = plan(PlanOptions("v5e:4x4"), ["ppo_reach"])["programs"]["update"]
    collectives = report["collectives"]
    assert (collectives["count"], collectives["bytes"]) == (4 * 8 + 2, 9_275_496)
    assert {row["kind"] for row in collectives["each"]} == {"all-reduce"}
    assert report["memory"]["needed"] < 48 * 2**20
    cycles = report["cycles"]
    assert cycles["total"] < 150e6, "71 million when this was written"
    assert {"physics", "resets", "task", "policy", "learning"} <= set(cycles["parts"])
    assert cycles["parts"]["physics"] > cycles["total"] / 2
    check(report)


def test_a_physics_step_keeps_environments_along_the_lanes():
    target = find_target("v5e:1x1")
    env = make_functional_env("pick_place", impl="jax", cameras=[], dt=0.01, control_dt=0.01)
    state = jax.eval_shape(env.reset, jax.random.key(0)).physics
    arguments = jax.tree.map(lambda x: jax.ShapeDtypeStruct((4096, *x.shape), x.dtype), (state, state.ctrl))
    step = jax.jit(compiled_for("tpu")(jax.vmap(lambda state, ctrl: env.physics.step(state, ctrl, {}))))
    report = examine(Program(step, abstract(arguments, sharding.replicated(target.mesh))), target)
    assert report["cycles"]["total"] < 18e6, "a third of 54.7 million under jax.vmap; 7.5 when this was written"
    assert report["memory"]["temporaries"] < 300 * 2**20, "a third of jax.vmap's; 57 MiB when this was written"
    check(report)
    assert not [line for line in report["warnings"] if "lanes" in line]


def test_split_parameters_are_scattered_and_gathered_and_send_no_more_than_whole_ones():
    whole, split = (plan(PlanOptions("v5e:4x4"), [*BC, *more])["programs"]["update"] for more in ([], ["--fsdp"]))
    kinds = {row["kind"] for row in split["collectives"]["each"]}
    assert {"reduce-scatter", "all-gather"} <= kinds
    assert split["collectives"]["sent"] < 1.02 * whole["collectives"]["sent"]
    assert split["memory"]["arguments"] < whole["memory"]["arguments"] / 8
    check(split)


@pytest.mark.parametrize("topology", ["a100:4", "h100:8", "h200:2"])
def test_gpus_of_a_node_exchange_gradients_once(topology):
    report = plan(PlanOptions(topology), BC)["programs"]["update"]
    assert report["devices"] == int(topology[-1])
    model = nnx.eval_shape(lambda: create_model("bc", hidden_dim=1024, n_layers=3))
    weights = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    rows = report["collectives"]["each"]
    assert {row["kind"] for row in rows} == {"all-reduce"}
    exchanged = sum(row["count"] * row["size"] for row in rows)
    assert 2 * weights < exchanged < 4.01 * weights, "sums in bfloat16 or, on some GPUs, float32; the loss's numbers"
    assert report["cycles"] is None, "only TPU programs carry them"
    check(report)


def test_gradients_cross_between_slices_once():
    report = plan(PlanOptions("v5e:4x4", slices=2), [*BC, "--fsdp"])["programs"]["update"]
    assert report["devices"] == 32
    across = [row for row in report["collectives"]["each"] if row["axes"] == ["slice"]]
    assert {(row["kind"], row["chips"]) for row in across} == {("all-reduce", 2)}
    bytes_across = sum(row["size"] * row["count"] for row in across)
    model = nnx.eval_shape(lambda: create_model("bc", hidden_dim=1024, n_layers=3))
    part = 2 * sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) / 16
    assert part < bytes_across < 1.1 * part, "a chip's part of the gradients, in bfloat16"
    assert report["collectives"]["sent_between_slices"] == bytes_across
    check(report)


def test_what_does_not_fit_is_said_and_the_largest_that_fits_is_found():
    batch = ["--batch-size", str(2**28)]
    with pytest.raises(TooLargeError, match="does not fit into the memory of a chip of v5e:1x1"):
        plan(PlanOptions("v5e:1x1"), ["train", "--model", "bc", *batch])
    found = plan(PlanOptions("v5e:1x1", fit=True), ["train", "--model", "bc"])
    memory = found["programs"]["update"]["memory"]
    assert memory["available"] / 4 < memory["needed"] <= memory["available"]
    assert 2**16 < found["batch"] < 2**28
    needed = {size["size"]: size["needed"] for size in found["tried"]}
    assert len(needed) == len(found["tried"]), "nothing is compiled twice"
    assert (needed[found["batch"]], needed[2 * found["batch"]]) == (memory["needed"], None)


def test_an_unknown_shape_lists_those_there_are():
    with pytest.raises(ValueError, match="libtpu knows no topology 'v5e:3x3'; there are v5e:1x1, v5e:2x2"):
        find_target("v5e:3x3")
