"""Numbers that are not finite: left out, counted, said; a diverged run ends with an error and without a bad save."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.core import checkpoint
from simscaleai_jax.core.checkpoint_series import CheckpointSeries
from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.rl.ppo import storage
from simscaleai_jax.rl.ppo.finite import Watch, is_finite
from simscaleai_jax.rl.ppo.normalize import init_stats, merge
from simscaleai_jax.tools import cli
from simscaleai_jax.tools.commands import rl as command

from .conftest import SMALL, same_leaves
from .test_python_evaluator import Line

TINY = SMALL | {"hidden_dim": 8, "n_steps": 64, "num_envs": 16, "n_epochs": 1, "total_timesteps": 128}
TINY |= {"updates_per_dispatch": 1, "normalize_rewards": True}


@dataclasses.dataclass(frozen=True)
class Broken:
    """A batched environment around a probe whose first five environments give what is not finite at every step."""

    inner: Any
    rewards: tuple[float, ...] = (np.nan, np.inf, 1e30)  # of environments 0, 1, 2
    states: tuple[float, ...] = (np.nan, 1e30)  # of environments 3, 4
    action_size: int = 1

    @property
    def observation_spec(self):
        return self.inner.observation_spec

    def init(self, key, env_ids):
        return self.inner.init(key, env_ids)

    def step(self, state, action):
        after = self.inner.step(state, action)
        wrong = jnp.array(self.rewards)
        reward = after.reward.at[:3].set(wrong)
        terms = {name: term.at[:3].set(wrong) for name, term in after.reward_terms.items()}
        obs = {"state": after.obs["state"].at[3:5, 0].set(jnp.array(self.states))}
        total = after.episode_return + jnp.where(jnp.arange(len(reward)) < 3, reward, 0.0)
        return after.replace(obs=obs, reward=reward, reward_terms=terms, episode_return=total)


def test_a_broken_environment_is_counted_and_ruins_nothing(probe, caplog):
    env = Broken(probe)
    agent = PPOAgent.for_env(env, PPOConfig(**TINY), "cpu")
    history = agent.train(env, progress=False)
    rewards, first_states, states = 3 * 4, 2 * 3, 2 * 4  # 4 steps, of which the first begins with a sound observation
    assert history["nan_count"] == [rewards + first_states, rewards + states]
    assert history["skipped_steps"] == [0, 0]
    assert is_finite((agent.state.params, agent.state.opt_state, agent.state.normalizer, agent.state.reward_stats))
    names = ("policy_loss", "value_loss", "grad_norm", "episode_reward", "reward/gain", "explained_variance")
    assert np.isfinite([history[name] for name in names]).all()
    assert history["episodes"] == [13 * 4] * 2, "without the episodes whose return is not finite"
    assert np.abs(history["episode_reward"]).max() <= 1
    assert "transitions were not finite" in caplog.text
    assert caplog.text.count("nan_count") == 1, "said once"


class BrokenLine(Line):
    """`Line` whose first step of every third episode gives NaN as reward, or as observation."""

    def __init__(self, is_in_reward=True, period=3):
        super().__init__()
        self.is_in_reward, self.period, self.episode = is_in_reward, period, 0

    def reset(self, *, seed=None, options=None):
        self.episode += 1
        return super().reset(seed=seed, options=options)

    def step(self, action):
        obs, reward, *rest = super().step(action)
        if self.episode % self.period == 0 and self.count == 1:
            return (obs, np.nan, *rest) if self.is_in_reward else ({"state": obs["state"] * np.nan}, reward, *rest)
        return obs, reward, *rest


@pytest.mark.wide
@pytest.mark.parametrize("is_in_reward", [True, False])
def test_the_python_loop_leaves_them_out(is_in_reward, caplog):
    config = PPOConfig(**SMALL | {"n_steps": 36, "total_timesteps": 72, "normalize_rewards": True})
    env = BrokenLine(is_in_reward)
    agent = PPOAgent.for_env(env, config, "cpu")
    history = agent.train(env, progress=False)
    assert history["nan_count"] == [4, 4] if is_in_reward else [8, 8], "an observation spoils the steps around it"
    assert is_finite((agent.state.params, agent.state.opt_state, agent.state.normalizer, agent.state.reward_stats))
    assert np.isfinite([history[name] for name in ("policy_loss", "grad_norm", "episode_reward")]).all()
    assert "nan_count" in caplog.text


def test_an_environment_that_gives_nothing_else_ends_the_run():
    env = BrokenLine(period=1)
    env.step = lambda action: (env._obs(), np.nan, False, False, {})
    agent = PPOAgent.for_env(env, PPOConfig(**SMALL | {"n_steps": 12, "total_timesteps": 24}), "cpu")
    before = agent.state.params
    with pytest.raises(ValueError, match="All 12 transitions had a reward or an observation that is not finite"):
        agent.train(env, progress=False)
    assert same_leaves(agent.state.params, before)


@pytest.mark.parametrize("is_jitted", [True, False])
def test_a_diverged_run_ends_with_an_error_before_anything_is_saved(probe, is_jitted):
    env = probe if is_jitted else Line()
    settings = TINY | {"n_steps": 48, "lr": 1e30, "max_grad_norm": 1e30, "num_minibatches": 4, "n_epochs": 4}
    agent = PPOAgent.for_env(env, PPOConfig(**settings | {"total_timesteps": 480}), "cpu")
    seen = []
    with pytest.raises(ValueError, match=r"diverged: \d+ of 16 gradient steps .* Lower lr \(1e\+30\)"):
        agent.train(env, progress=False, callbacks=[lambda agent, row: seen.append(row)])
    assert not seen, "no callback, such as the one that saves, has seen it"
    assert is_finite((agent.state.params, agent.state.opt_state))


@pytest.mark.wide
def test_the_command_fails_and_leaves_the_last_good_checkpoint(probe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "make_training_env", lambda options: probe)
    sizes = {"n-steps": 64, "num-envs": 16, "num-minibatches": 4, "n-epochs": 4, "hidden-dim": 8}
    sizes |= {"updates-per-dispatch": 1}
    run = ["rl", "--output", str(tmp_path / "run"), "--device", "cpu"]
    run += [word for name, value in sizes.items() for word in (f"--ppo.{name}", str(value))]
    assert cli.main([*run, "--total-steps", "64"]) == 0
    wild = ["--total-steps", "640", "--ppo.lr", "1e30"]
    assert cli.main([*run, *wild]) == 1
    assert "Training has diverged" in capsys.readouterr().err
    assert [path.name for path in sorted((tmp_path / "run").glob("step_*"))] == ["step_000000064"]
    assert is_finite(checkpoint.load(tmp_path / "run")[0])


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    agent = PPOAgent(1, 1, PPOConfig(**SMALL))
    agent.save(tmp_path / "one")
    agent.state = agent.state.replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, agent.state.params))
    with pytest.raises(ValueError, match=r"'params/actor_log_std' holds numbers that are not finite"):
        agent.save(tmp_path / "one")
    assert checkpoint.is_complete(tmp_path / "one"), "the one before it is still there"
    with CheckpointSeries(tmp_path / "run") as series:
        with pytest.raises(ValueError, match="not finite"):
            series.save(1, agent.state, storage.make_manifest(agent))
        assert series.latest() is None


def test_some_skipped_steps_are_said_and_most_end_the_run(caplog):
    watch = Watch(PPOConfig(**SMALL))  # 2 epochs of 2 minibatches
    row = {"nan_count": 0.0, "skipped_steps": 2.0, "total_steps": 256.0}
    watch.check(row)
    watch.check(row)
    assert caplog.text.count("2 of 4 gradient steps were not finite and were not taken") == 1
    with pytest.raises(ValueError, match="3 of 4 gradient steps"):
        watch.check(row | {"skipped_steps": 3.0})


def test_statistics_do_not_take_what_overflows():
    stats = merge(init_stats(2), jnp.array([[1.0, 1e30], [3.0, 1e30]]))
    assert stats.mean[0] == 2
    assert is_finite(stats)
