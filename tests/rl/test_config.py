"""PPO's settings, how they divide a rollout, and the published presets."""

import re
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simscaleai_jax.core import from_dict
from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.rl.ppo.config import make_layout
from simscaleai_jax.rl.ppo.update import as_units, minibatch_units
from simscaleai_jax.tools.commands.rl import parse_options

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("ppo_*.yaml"))


def test_documented_defaults():
    config = PPOConfig()
    assert (config.hidden_dim, config.n_layers, config.clip_epsilon, config.gamma) == (256, 2, 0.2, 0.99)
    assert (config.lr, config.n_steps, config.n_epochs, config.batch_size) == (3e-4, 2048, 10, 64)
    layout = make_layout(config)
    assert layout.num_envs * layout.num_steps == 2048
    assert layout.num_minibatches == 2048 // 64
    assert make_layout(PPOConfig(n_steps=100, batch_size=10)).num_envs == 2, "the default divides n_steps"


@pytest.mark.parametrize(("platform", "num_envs"), [("cpu", 64), ("gpu", 128), ("tpu", 128)])
def test_the_default_number_of_environments_suits_the_device(platform, num_envs):
    agent = PPOAgent(1, 1, PPOConfig(hidden_dim=4, n_layers=1), "cpu")
    agent.mesh = types.SimpleNamespace(size=4, devices=np.array([types.SimpleNamespace(platform=platform)] * 4))
    layout = agent.layout()
    assert (layout.num_envs, layout.num_envs * layout.num_steps) == (num_envs, 2048)
    given = make_layout(PPOConfig(num_envs=32), platform=platform)
    assert given.num_envs == 32, "a number that is given holds everywhere"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_epochs": 0}, r"n_epochs must be at least 1; got 0"),
        ({"gamma": 1.5}, r"gamma must lie between 0 and 1; got 1.5"),
        ({"lr": 0.0}, r"lr must be above 0"),
        ({"log_std_init": 3.0}, r"log_std_min <= log_std_init"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PPOConfig(**values)
    with pytest.raises(ValueError, match=r"'n_stesp'. Did you mean 'n_steps'"):
        from_dict(PPOConfig, {"n_stesp": 1})


@pytest.mark.parametrize(
    ("values", "devices", "message"),
    [
        ({"n_steps": 100, "num_envs": 64}, 1, r"n_steps of 100 .* nearest: 64 or 128"),
        ({"n_steps": 100, "batch_size": 64, "num_envs": 10}, 1, r"n_steps of 100 .*batch_size.* nearest: 64 or 128"),
        ({"num_envs": 4, "num_minibatches": 4}, 8, r"on 8 devices; nearest: num_envs=8, n_steps=4096, num_min.*=4\."),
        ({"num_envs": 6, "n_steps": 12, "num_minibatches": 2, "num_env_blocks": 4}, 1, r"in 4 blocks.* or num_envs=8"),
        ({"num_envs": 64, "num_minibatches": 1, "num_env_blocks": 8}, 16, r"num_envs=64, .*, num_env_blocks=16"),
    ],
)
def test_sizes_that_do_not_divide_name_the_nearest(values, devices, message):
    with pytest.raises(ValueError, match=message):
        make_layout(PPOConfig(**values), devices)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 70), st.integers(1, 20), st.integers(1, 12), st.integers(1, 40),
    st.one_of(st.none(), st.integers(1, 40)),
)  # fmt: skip
def test_sizes_divide_or_those_that_are_advised_do(num_envs, num_steps, num_minibatches, devices, blocks):
    def build(num_envs, n_steps, num_minibatches, num_env_blocks=None):
        config = PPOConfig(
            num_envs=num_envs, n_steps=n_steps, num_minibatches=num_minibatches, num_env_blocks=num_env_blocks
        )
        return make_layout(config, devices)

    n_steps = num_envs * num_steps * num_minibatches
    try:
        layouts = [build(num_envs, n_steps, num_minibatches, blocks)]
    except ValueError as error:
        advised = str(error).partition("nearest: ")[2].split(" or ")
        layouts = [build(**{name: int(n) for name, n in re.findall(r"(\w+)=(\d+)", sizes)}) for sizes in advised]
    for layout in layouts:
        assert layout.num_envs % devices == layout.num_blocks % devices == 0
        assert layout.units_per_block * layout.num_blocks == layout.num_envs * layout.num_chunks
        assert layout.units_per_block % layout.num_minibatches == 0


def test_a_single_environment_is_cut_in_time():
    layout = make_layout(PPOConfig(num_envs=1, n_steps=64, batch_size=16))
    assert (layout.num_steps, layout.num_minibatches, layout.num_chunks, layout.num_blocks) == (64, 4, 4, 1)
    units = as_units({"t": jnp.arange(64)[:, None]}, 4)["t"]
    assert units.tolist() == np.arange(64).reshape(4, 16).tolist()


def test_minibatches_take_every_unit_once_and_do_not_depend_on_the_devices():
    layout = make_layout(PPOConfig(num_envs=64, n_steps=512, num_minibatches=4))
    assert layout.num_blocks == 8
    key = jax.random.key(0)
    whole = minibatch_units(key, layout, jnp.arange(8), 3)
    assert whole.shape == (12, 16)
    for epoch in whole.reshape(3, 64):
        assert sorted(epoch.tolist()) == list(range(64))
    assert whole[0].tolist() != whole[4].tolist(), "epochs differ"
    halves = [minibatch_units(key, layout, jnp.arange(4) + 4 * part, 3) + 32 * part for part in range(2)]
    together = np.sort(np.concatenate(halves, axis=1), axis=1)
    assert np.array_equal(together, np.sort(whole, axis=1)), "the same units meet on two devices"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_published_presets_are_built(path):
    options = parse_options(["--config", str(path)])
    layout = make_layout(options.ppo)
    assert layout.num_envs * layout.num_steps == options.ppo.n_steps
    for devices in (2, 4, 8):
        assert make_layout(options.ppo, devices) == layout, "up to 8 devices take the same minibatches"
    for devices in (16, 64, 256):
        assert make_layout(options.ppo, devices).num_blocks == devices
    assert path.read_text().startswith("# "), "a preset says how to run it"
