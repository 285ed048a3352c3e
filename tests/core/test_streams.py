"""C32: seeds and the streams that are made of them, at every entry point that takes one."""

import ast
from pathlib import Path

import gymnasium
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.core.demonstrations import split_masks
from simscaleai_jax.core.streams import (
    Stream,
    check_seed,
    draw_key,
    host_random,
    host_seed,
    host_words,
    seed_key,
    substream,
)
from simscaleai_jax.datagen.generator import check_options, file_attributes, generate_dataset
from simscaleai_jax.datagen.language import draw_instruction
from simscaleai_jax.datagen.rollout import episode_key as demonstration_key
from simscaleai_jax.rl.evaluator import EvalConfig
from simscaleai_jax.rl.evaluator import episode_keys as evaluation_keys
from simscaleai_jax.rl.ppo.config import PPOConfig
from simscaleai_jax.rl.ppo.state import init_training_state, make_learner
from simscaleai_jax.rl.transfer.sweep import episode_keys as transfer_keys
from simscaleai_jax.sim.config import SimConfig
from simscaleai_jax.sim.envs.batched import episode_key
from simscaleai_jax.training.config import TrainConfig
from simscaleai_jax.training.data.sampling import shuffled_index
from simscaleai_jax.training.step import init_state

PACKAGE = Path(__file__).parents[2] / "simscaleai_jax"
SEEDS = 1000
COUNT = 4  # episodes, attempts, environments, updates of each seed
WRONG = (-1, True, np.True_, 1.0, float("nan"), np.float32(3), "1", [1])
LONG = (0, 1, 2**31, 2**32, 2**32 + 1, 2**33, 2**63, 2**64, 2**64 + 1, 2**96, 2**200)


def words(keys):
    """The keys of any shape as a list of integers."""
    data = np.asarray(jax.random.key_data(keys), np.uint64).reshape(-1, 2)
    return [int(value) for value in data[:, 0] << np.uint64(32) | data[:, 1]]


@pytest.fixture(scope="module")
def roots():
    """Per purpose, the keys [SEEDS] that the entry points make of the seeds 0, 1, ..."""
    streams = (stream for stream in Stream if stream not in SUBSTREAMS)
    return {stream: jnp.stack([seed_key(seed, stream) for seed in range(SEEDS)]) for stream in streams}


# Purposes of a key rather than of a seed.
SUBSTREAMS = (Stream.TRAINING_EPISODES, Stream.POLICY_NOISE, Stream.ACTION_NOISE, Stream.CURRICULUM)


def counted(keys):
    """Two levels of counters, as episodes and attempts or environments and episodes are folded in."""
    once = jax.vmap(lambda key: jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(COUNT)))(keys)
    return once, jax.vmap(jax.vmap(lambda key: jax.random.split(key, COUNT)))(once)


def of_an_episode(keys):
    """The keys that are made of an episode's: its reset's two, and what acts and disturbs in it."""
    split = jax.vmap(lambda key: jax.random.split(key))(keys)
    streams = (Stream.ACTIONS, Stream.ACTION_NOISE)
    acting = [jax.vmap(lambda key, stream=stream: substream(key, stream))(keys) for stream in streams]
    return [keys, split, *acting, *(jax.vmap(jax.random.split)(part) for part in acting)]


@pytest.mark.wide
def test_c32_no_two_purposes_share_a_key_over_a_thousand_seeds(roots):
    seen = {}
    for stream, keys in roots.items():
        parts = [keys, *counted(keys)]
        for sub in (Stream.TRAINING_EPISODES, Stream.POLICY_NOISE, Stream.MINIBATCHES, Stream.ACTIONS):
            of_sub = jax.vmap(lambda key, sub=sub: substream(key, sub))(keys)
            parts += [of_sub, *counted(of_sub)]
        for part in of_an_episode(parts[1][:, 0]):
            parts.append(part)
        values = np.concatenate([np.array(words(part), np.uint64) for part in parts])
        # `fold_in` of a counter and `split` are one, so within a purpose the same key has two names here.
        seen[stream] = np.unique(values)
    together = np.concatenate(list(seen.values()))
    assert len(np.unique(together)) == len(together)
    bare = {value for seed in range(SEEDS) for value in words(jax.random.key(seed))}
    assert not bare & set(together.tolist())


@pytest.mark.wide
def test_entry_points_use_the_stream_of_their_purpose(roots):
    learner, params = make_learner(PPOConfig(seed=7, hidden_dim=4, n_layers=1), {"obs_dim": 3, "action_dim": 2})
    one = jnp.int32(1)
    found = {
        Stream.TRAINING: init_training_state(learner, params).key,
        Stream.UPDATES: init_state(params, TrainConfig(seed=7)).key,
        Stream.DEMONSTRATIONS: demonstration_key(7, one, one),
        Stream.EVALUATION: evaluation_keys(EvalConfig(2, seed=7))[1],
        Stream.VALIDATION: evaluation_keys(EvalConfig(2, seed=7, stream=Stream.VALIDATION))[1],
        Stream.TRANSFER: transfer_keys(7, 2)[1],
    }
    for stream, key in found.items():
        wanted = roots[stream][7]
        wanted = wanted if stream in (Stream.TRAINING, Stream.UPDATES) else jax.random.fold_in(wanted, 1)
        wanted = jax.random.fold_in(wanted, 1) if stream == Stream.DEMONSTRATIONS else wanted
        assert words(key) == words(wanted), stream
    assert words(episode_key(roots[Stream.TRAINING][7], one, one)) != words(found[Stream.DEMONSTRATIONS])


def test_keys_and_generators_are_made_of_seeds_in_one_file_only():
    """Whoever makes a key of anything but a number that is written there goes through `core.streams`."""
    makers = {"key", "PRNGKey", "default_rng", "SeedSequence", "Rngs", "seed"}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).as_posix() in ("core/streams.py", "models/specs.py"):
            continue  # specs draws arrays that stand in for data
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or not call.args:
                continue
            is_random = "random" in ast.unparse(call.func) or call.func.attr in ("Rngs", "seed")
            if call.func.attr in makers and is_random:
                given = ast.unparse(call.args[0])
                made_here = given.startswith(("seed_key(", "host_seed("))
                assert made_here or given.isdigit() or given == "key", f"{path.name}:{call.lineno}: {ast.unparse(call)}"


def test_every_seed_of_any_length_is_a_seed_of_its_own():
    keys = [words(seed_key(seed, Stream.EVALUATION))[0] for seed in LONG]
    assert len(set(keys)) == len(LONG)
    drawn = [tuple(host_words(seed, Stream.SAMPLE_ORDER, count=4)) for seed in LONG]
    assert len(set(drawn)) == len(LONG)
    assert len({host_seed(seed, Stream.EVALUATION, number) for seed in LONG for number in range(3)}) == 3 * len(LONG)
    assert max(host_seed(seed, Stream.EVALUATION) for seed in range(200)) < 2**31
    orders = {tuple(shuffled_index(np.arange(50), 50, 0, seed).tolist()) for seed in LONG}
    assert len(orders) == len(LONG)
    on_device = shuffled_index(jnp.arange(50), 50, 3, 2**64, jnp)
    np.testing.assert_array_equal(on_device, shuffled_index(np.arange(50), 50, 3, 2**64))
    assert len({tuple(split_masks(40, seed, 0.5)["valid"].tolist()) for seed in LONG}) == len(LONG)
    assert len({draw_instruction("reach", seed, episode) for seed in LONG for episode in range(9)}) > 1
    first = host_random(1, Stream.DUMMY_DATA, 2).random(4)
    assert not np.allclose(first, host_random(1 + 2 * 2**32, Stream.DUMMY_DATA).random(4))
    np.testing.assert_array_equal(first, host_random(np.int64(1), Stream.DUMMY_DATA, 2).random(4))


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_what_is_no_seed_is_refused_in_one_message(wrong):
    entries = [
        lambda: check_seed(wrong),
        lambda: seed_key(wrong, Stream.TRAINING),
        lambda: EvalConfig(seed=wrong),
        lambda: PPOConfig(seed=wrong),
        lambda: TrainConfig(seed=wrong),
        lambda: SimConfig(seed=wrong),
        lambda: shuffled_index(np.arange(3), 3, 0, wrong),
        lambda: split_masks(3, wrong),
        lambda: generate_dataset(seed=wrong, output_path="/nowhere/x.h5"),
    ]
    for entry in entries:
        with pytest.raises(ValueError, match=r"seed must be a non-negative integer \(of any size\), got"):
            entry()
    check_options(1, "random", 1, None, 0.1)


def test_numpy_integers_are_seeds():
    for kind in (np.int8, np.uint64, np.int32):
        assert check_seed(kind(5)) == 5
        assert type(check_seed(kind(5))) is int
    assert words(seed_key(np.uint64(2**64 - 1), Stream.WEIGHTS)) == words(seed_key(2**64 - 1, Stream.WEIGHTS))


def test_a_substream_is_none_of_what_a_split_gives():
    """JAX's fold_in(key, i) is split(key, n)[i], which is why purposes of one key are not numbered from 0."""
    key = jax.random.key(3)
    assert words(jax.random.fold_in(key, 1)) == words(jax.random.split(key, 2)[1])
    assert not set(words(jnp.stack([substream(key, stream) for stream in Stream]))) & set(
        words(jax.random.split(key, 4096))
    )


def test_a_key_drawn_by_numpys_generator_follows_from_its_seed():
    keys = [draw_key(gymnasium.utils.seeding.np_random(seed)[0], Stream.ADAPTER_EPISODES) for seed in (0, 0, 2**32)]
    first, again, other = (words(key) for key in keys)
    assert first == again != other


def test_a_file_takes_a_seed_that_hdf5_has_no_number_for(tmp_path):
    settings = {"env_name": "reach", "env_kwargs": {}, "policy_type": "random"}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for seed in (7, 2**63, 2**200):
            for name, value in file_attributes(settings | {"seed": seed}).items():
                file.attrs[name] = value
            assert int(file.attrs["seed"]) == seed
