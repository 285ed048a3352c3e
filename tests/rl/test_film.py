"""The film of a run: a grid of episodes under a caption, act after act."""

import types

import imageio.v3 as imageio
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.rl import film
from simscaleai_jax.rl.evaluator import EvalConfig, play_episodes
from simscaleai_jax.sim import make_functional_env
from simscaleai_jax.tools.commands import demo


def still(obs, key):
    return jnp.zeros(4)


def up(obs, key):
    return jnp.array([0.0, 0.0, 1.0, 0.0])


@pytest.fixture(scope="module")
def env():
    return make_functional_env("reach", dt=0.01, cameras=[])


@pytest.fixture(scope="module")
def files(env, tmp_path_factory):
    config = EvalConfig(4)
    acts = [
        film.Act("Before", play_episodes(env, still, config, num_filmed=4), 4),
        film.Act("After", play_episodes(env, up, config, num_filmed=4), 6),
    ]
    return film.write_film(env.physics, acts, tmp_path_factory.mktemp("film") / "film.mp4", rows=2, side=48)


@pytest.mark.wide
def test_a_film_shows_every_act(files):
    video, gif = files
    frames = imageio.imread(video)
    assert frames.shape == (5, film.CAPTION_HEIGHT + 2 * 48, 2 * 48, 3), "each second control step"
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 60, "captions and arms differ"
    assert gif.suffix == ".gif"
    small = imageio.imread(gif)
    assert small.shape[2] == 2 * film.GIF_SIDE
    assert len(small) == len(frames)


def test_a_tile_shows_one_episode_after_the_other_and_stands_still_at_the_end():
    lengths, steps = np.array([3, 8, 2]), np.arange(8)
    physics = 100 * np.arange(3) + steps[:, None]  # [T, episodes]
    act = film.Act("", types.SimpleNamespace(lengths=lengths, physics=physics), 12)
    first, second = np.transpose(list(film.tiles(act, 2)))
    assert first.tolist() == [0, 2, 201, 201, 201, 201]
    assert second.tolist() == [100, 102, 104, 106, 107, 107]


def test_tiles_stand_in_rows():
    pictures = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((4, 2, 3, 3), np.uint8)
    grid = film.tile(pictures, 2)
    assert grid.shape == (4, 6, 3)
    assert grid[::2, ::3, 0].tolist() == [[0, 1], [2, 3]]


def test_the_halfway_policy_is_the_first_that_succeeds_half_of_the_time(monkeypatch):
    agent = types.SimpleNamespace(total_steps=0)
    monkeypatch.setattr(demo, "acting_params", lambda agent: f"weights after {agent.total_steps} steps")
    halfway = demo.HalfwayPolicy()
    for steps, success in ((100, 0.2), (200, float("nan")), (300, 0.9), (400, 0.9), (500, 0.9)):
        agent.total_steps = 200 * -(-steps // 200)  # two updates in a dispatch
        halfway(agent, {"plain_success_rate": success, "total_steps": float(steps)})
    assert halfway.steps == 400
    assert halfway.params == "weights after 400 steps"
