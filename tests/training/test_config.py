"""Settings, the learning rate and the optimizer."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from simscaleai_jax.models import create_model
from simscaleai_jax.tools.arguments import presets
from simscaleai_jax.tools.commands.train import TrainOptions, parse_options
from simscaleai_jax.training.config import TrainConfig
from simscaleai_jax.training.data.augment import ImageAugmentation
from simscaleai_jax.training.optimizer import is_decayed, learning_rate, make_optimizer
from tests.models.conftest import CASES

CONFIGS = [path for name, path in presets().items() if name.startswith("bc_")]


def test_documented_defaults():
    config = TrainConfig()
    documented = {
        "model_name": "bc", "model_kwargs": {}, "dataset_path": "", "batch_size": 32, "num_workers": 4, "lr": 1e-4,
        "weight_decay": 1e-5, "warmup_steps": 500, "max_steps": 100_000, "grad_clip": 1.0, "use_amp": True,
        "amp_dtype": "bfloat16", "distributed": False, "backend": "nccl", "checkpoint_dir": "checkpoints",
        "save_every": 5000, "resume_from": None, "log_every": 100, "eval_every": 1000, "use_wandb": False,
        "wandb_project": "simscaleai", "wandb_run_name": None, "device": "auto",
    }  # fmt: skip
    assert {name: getattr(config, name) for name in documented} == documented
    assert [field.name for field in dataclasses.fields(config)][: len(documented)] == list(documented)
    assert config.resolved_device == "cpu"
    assert config.amp_torch_dtype == jnp.bfloat16
    assert config.compute_dtype == "float32", "a CPU computes in float32"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be positive; got 0"),
        ({"grad_clip": -1.0}, "grad_clip must not be negative"),
        ({"backend": "glooo"}, "Did you mean 'gloo'"),
        ({"amp_dtype": "bfloat"}, "Did you mean 'bfloat16'"),
        ({"amp_dtype": "float16"}, "loss scaling"),
        ({"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\)"),
        ({"random_shift": -1}, "random_shift must not be negative; got -1"),
        ({"device_mb": -1}, "device_mb must not be negative; got -1"),
        ({"min_lr_ratio": 2.0}, "min_lr_ratio must lie"),
        ({"keep_gathered": True, "fsdp": True}, "wanted fsdp and remat"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)


@pytest.mark.parametrize("device", ["gpu", "cuda", "tpu"])
def test_an_absent_device_names_what_there_is(device):
    with pytest.raises(ValueError, match=f"No '{device}' device on this machine; found: cpu"):
        _ = TrainConfig(device=device).resolved_device


def test_mps_is_explained():
    with pytest.raises(ValueError, match="no backend"):
        _ = TrainConfig(device="mps").resolved_device


@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (0, 10), (1, 1), (1, 2), (4, 10), (9, 10), (10, 10)])
def test_learning_rate_for_every_relation(warmup, total):
    config = TrainConfig(lr=0.5, warmup_steps=warmup, max_steps=total, min_lr_ratio=0.1)
    rates = [float(learning_rate(config, step)) for step in range(total + 5)]
    rising = [0.5 * (step + 1) / warmup for step in range(warmup)]
    falling = [
        0.5 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * (step - warmup) / max(total - warmup, 1))))
        for step in range(warmup, total)
    ]
    np.testing.assert_allclose(rates[:total], rising + falling, rtol=1e-5)
    assert max(rates) == pytest.approx(0.5), "the peak is reached"
    assert rates[total + 1 :] == pytest.approx([0.05] * 4), "and it stays at the floor"


def test_a_run_shorter_than_its_warm_up_is_allowed_as_documented():
    config = TrainConfig(max_steps=10)
    assert config.warmup_steps == 500, "the documented default"
    rates = [float(learning_rate(config, step)) for step in range(10)]
    np.testing.assert_allclose(rates, [1e-4 * (step + 1) / 500 for step in range(10)], rtol=1e-6)


def test_the_optimizer_is_adamw_after_clipping():
    config = TrainConfig(lr=1e-2, weight_decay=0.1, grad_clip=1.0, warmup_steps=0, max_steps=10)
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[3.0]])}
    grads = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}
    ours = make_optimizer(config)
    reference = optax.adamw(1e-2, weight_decay=0.1, mask={"a": False, "b": True})  # no vector is decayed
    updates, _ = ours.update(grads, ours.init(params), params)
    clipped = {name: grad / 5.0 for name, grad in grads.items()}
    wanted, _ = reference.update(clipped, reference.init(params), params)
    for name in params:
        np.testing.assert_allclose(-1e-2 * updates[name], wanted[name], rtol=1e-5)


def test_weight_decay_takes_kernels_alone_in_every_model():
    for name, (cls, kwargs) in CASES.items():
        shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(partial(cls, **kwargs)), nnx.Param))
        decayed = jax.tree_util.tree_leaves_with_path(is_decayed(shapes))
        kinds = {path: jax.tree_util.keystr(path[-1:], simple=True) for path, _ in decayed}
        assert {kinds[path] for path, flag in decayed if flag} == {"kernel"}, name
        spared = {"bias", "scale", "pos_embed", "token_embed", "cls_token", "queries", "places", "first"}
        assert {kinds[path] for path, flag in decayed if not flag} <= spared, name


def test_weight_decay_does_not_move_what_it_spares():
    model = create_model("vla", image_size=16, embed_dim=8, num_heads=2, patch_size=8, num_layers=1, lang_num_layers=1)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    optimizer = make_optimizer(TrainConfig(weight_decay=0.5))
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(optimizer.update)(zeros, jax.jit(optimizer.init)(params), params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        is_kernel = jax.tree_util.keystr(path[-1:], simple=True) == "kernel"
        assert bool(np.abs(update).max() > 0) == is_kernel, path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_published_configs_are_built(path):
    options = parse_options([path.stem])
    assert options == parse_options(["--config", str(path)]) == dataclasses.replace(options, config=str(path))
    assert options.checkpoint_dir != TrainConfig.checkpoint_dir
    assert path.read_text().startswith("#"), "a header says what it is"


def test_there_is_a_published_config():
    assert CONFIGS


def test_the_options_of_the_command_are_the_settings(tmp_path):
    """No field is written down twice, and what the command line or a file says arrives."""
    own = set(vars(TrainOptions).get("__annotations__", {}))
    shared = own & {field.name for field in dataclasses.fields(TrainConfig)}
    assert shared == {"max_steps", "warmup_steps"}, "these two have other defaults on the command line"
    argv = ["--amp-dtype", "float32", "--min-lr-ratio", "0.1", "--no-resume", "--best-metric", "grad_norm"]
    argv += ["--random-shift", "3", "--random-contrast", "0.25", "--model.hidden-dim", "16"]
    path = tmp_path / "run.yaml"
    path.write_text("max_steps_per_dispatch: 7\nrandom_shift: 2\nrandom_brightness: 0.5\nrandom_saturation: 0.125\n")
    config = parse_options(["--config", str(path), *argv])
    assert isinstance(config, TrainConfig)
    assert (config.amp_dtype, config.min_lr_ratio, config.resume) == ("float32", 0.1, False)
    assert (config.best_metric, config.max_steps_per_dispatch) == ("grad_norm", 7)
    assert config.augmentation == ImageAugmentation(shift=3, brightness=0.5, contrast=0.25, saturation=0.125)
    assert config.model_kwargs == {"hidden_dim": 16}
    assert parse_options([]).augmentation is TrainConfig().augmentation is None
    assert (parse_options([]).max_steps, parse_options([]).warmup_steps) == (1000, 100)


def test_old_names_are_taken_with_a_note(tmp_path, capsys):
    new = ["--data.split", "train", "--eval.episodes", "2", "--log.trackers", "tensorboard", "--model.hidden-dim", "9"]
    old = ["--split", "train", "--eval_episodes=2", "--use-tensorboard", "--model-kwargs", '{"hidden_dim": 9}']
    wanted = parse_options(new)
    assert capsys.readouterr().err == ""
    assert parse_options(old) == wanted
    shown = capsys.readouterr().err
    assert "train: --split is now --data.split; the old name works for a while yet" in shown
    assert shown.count("is now") == 4
    path = tmp_path / "old.yaml"
    path.write_text("model: bc\ndataset: a.h5\nsplit: train\neval_episodes: 2\nmodel_kwargs: {hidden_dim: 9}\n")
    options = parse_options(["--config", str(path)])
    assert (options.model_name, options.dataset_path, options.data.split) == ("bc", "a.h5", "train")
    assert (options.eval.episodes, options.model_kwargs) == (2, {"hidden_dim": 9})
    assert "split is now data.split" in capsys.readouterr().err
    path.write_text("split: train\ndata: {split: valid}\n")
    with pytest.raises(ValueError, match=r"split and data\.split are two names of one setting"):
        parse_options(["--config", str(path)])


def test_a_models_own_arguments_are_options(tmp_path, capsys):
    options = parse_options(["--model", "vla", "--model.embed-dim", "32", "--model.action-head-type", "flow"])
    assert options.model_kwargs == {"embed_dim": 32, "action_head_type": "flow"}
    path = tmp_path / "run.yaml"
    path.write_text("model_name: vla\nmodel: {embed_dim: 64}\n")
    assert parse_options(["--config", str(path), "--model.num-heads", "2"]).model_kwargs == {
        "embed_dim": 64, "num_heads": 2,
    }  # fmt: skip
    with pytest.raises(SystemExit):
        parse_options(["--model", "bc", "--model.embed-dim", "32"])
    with pytest.raises(ValueError, match="Did you mean 'vla'"):
        parse_options(["--model", "vlaa"])
