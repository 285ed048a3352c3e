"""A policy does as well on every engine as on the one that it learned on."""

import pytest

from simscaleai_jax.tools.commands import rl
from simscaleai_jax.tools.commands.eval import EvalOptions, evaluate

EPISODES = 300


@pytest.mark.slow
@pytest.mark.parametrize("impl", ["c", "jax"])
def test_a_checkpoint_of_one_engine_succeeds_as_often_on_the_others(tmp_path, impl):
    """After 49,152 steps the policy of the recipe reaches many of its targets and far from all: most is to be seen."""
    run = str(tmp_path / "run")
    argv = ["--config", "configs/ppo_reach.yaml", "--env.impl", impl, "--total-steps", "49152", "--output", run]
    rl.train(rl.parse_options(argv))
    results = evaluate(EvalOptions(run, n_episodes=EPISODES, impl="c"))
    results |= evaluate(EvalOptions(run, n_episodes=EPISODES, impl="jax", physics="batched"))
    assert set(results) == {"c", "jax", "host"}
    assert 0.05 < results[impl]["success_rate"] < 0.98, "nothing could be seen"
    for name, result in results.items():
        others = [other for label, other in results.items() if label != name]
        assert all(result["success_low"] <= other["success_high"] for other in others), results
