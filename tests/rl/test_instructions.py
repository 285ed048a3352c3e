"""Success by instruction, and the blind control, of policies that listen and of one that does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.core.intervals import wilson
from simscaleai_jax.core.text import tokenize
from simscaleai_jax.rl.evaluator import EvalConfig, evaluate_policy
from simscaleai_jax.rl.instructions import evaluate_instructions
from simscaleai_jax.sim import make_env, make_functional_env

EPISODES = 60


class Reacher:
    """Goes to the ball that it is told, or always to the first one."""

    def __init__(self, task, listens, text_len=64):
        sentences = task.instructions.sentences
        self.table = jnp.asarray(tokenize(list(sentences), 64))
        colours = ("green", "red", "blue")
        self.goals = jnp.array([next(i for i, name in enumerate(colours) if name in text) for text in sentences])
        self.listens = listens
        self.text_len = text_len if listens else None

    def __call__(self, obs, key):
        goal = self.goals[jnp.argmax(jnp.all(obs["language"] == self.table, axis=-1))] if self.listens else 0
        move = (obs["balls_pos"].reshape(3, 3)[goal] - obs["ee_pos"]) / 0.1
        return jnp.append(move / jnp.maximum(1.0, jnp.max(jnp.abs(move))), 1.0)


@pytest.fixture(scope="module")
def env():
    return make_functional_env("reach_language", cameras=[], dt=0.01, impl="c", phrases="held_out")


@pytest.mark.wide
def test_a_policy_that_listens_succeeds_and_fails_in_the_control(env):
    config = EvalConfig(EPISODES)
    played, result = evaluate_instructions(env, Reacher(env.task, listens=True), config)
    assert played.successes.all()
    assert set(result["instructions"]) == set(env.task.instructions.goals)
    assert sum(part["episodes"] for part in result["instructions"].values()) == EPISODES
    for part in result["instructions"].values():
        low, high = wilson(1.0, part["episodes"])
        assert (part["success_rate"], part["success_low"], part["success_high"]) == (1.0, low, high)
    assert 0.15 < result["blind"]["success_rate"] < 0.55  # by chance a third of the shuffled instructions is right
    assert result["blind"]["episodes"] == EPISODES


@pytest.mark.wide
def test_a_policy_that_does_not_listen_is_as_good_on_one_of_three(env):
    policy = Reacher(env.task, listens=False)
    played, result = evaluate_instructions(env, policy, EvalConfig(EPISODES))
    rates = {text: part["success_rate"] for text, part in result["instructions"].items()}
    assert rates == {"touch the green ball": 1.0, "touch the red ball": 0.0, "touch the blue ball": 0.0}
    assert "blind" not in result
    assert evaluate_policy(env, policy, EvalConfig(EPISODES)) == played.summary()


@pytest.mark.wide
def test_the_same_on_the_host():
    host = make_env("reach_language", cameras=[], dt=0.01, phrases="held_out")
    reacher = Reacher(host.task, listens=True)
    config = EvalConfig(24, on_host=True)
    played, result = evaluate_instructions(host, reacher, config)
    assert played.successes.all()
    assert result["blind"]["success_rate"] < 0.7
    seen = {tuple(np.asarray(host.reset(seed=seed)[0]["language"], int)) for seed in range(20)}
    assert seen <= {tuple(row) for row in tokenize([t for of in host.task.instructions.held_out for t in of], 64)}


def test_sentences_that_a_policy_cannot_read_are_refused_before_anything_is_played(env):
    with pytest.raises(ValueError, match="characters; the model reads 30"):
        evaluate_instructions(env, Reacher(env.task, listens=True, text_len=30), EvalConfig(EPISODES))


def test_the_control_gives_each_episode_the_instruction_of_another(env):
    told = []

    def spy(obs, key):
        jax.debug.callback(lambda tokens: told.append(np.asarray(tokens)), obs["language"])
        return jnp.zeros(4)

    spy.text_len = 64
    evaluate_instructions(env, spy, EvalConfig(8, max_steps=1))
    jax.effects_barrier()
    own, other = ({tuple(row) for row in np.reshape(part, (-1, 64))} for part in (told[:8], told[8:]))
    assert own == other
