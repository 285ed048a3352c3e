"""Numbers that are not finite: they end a run before a checkpoint could hold them, and are nobody's best."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from simscaleai_jax.training.loop import Loop
from simscaleai_jax.training.trainer import TrainConfig

from .conftest import make_trainer


@pytest.mark.parametrize(("name", "what"), [("loss", "loss"), ("grad_norm", "gradient's norm")])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_loss_or_a_gradient_ends_the_run(name, what, number):
    """A gradient may be NaN where the loss is not; the weights are NaN then, and the next loss comes too late."""
    loop: Any = SimpleNamespace(config=TrainConfig())
    Loop._check_finite(loop, {"loss": 1.0, "grad_norm": 1.0}, 3, 4)
    with pytest.raises(ValueError, match=rf"The {what} became {number} within updates 3 to 4\. Lower lr"):
        Loop._check_finite(loop, {"loss": 1.0, "grad_norm": 1.0} | {name: number}, 3, 4)


def test_an_evaluation_that_gives_no_number_costs_no_run(tmp_path):
    rates = iter([math.nan, 0.5, math.nan])
    trainer = make_trainer(tmp_path, trainer={"eval_fn": lambda policy: next(rates)})
    trainer.train()
    assert trainer.step == 24
    assert trainer.best_value == 0.5
    assert trainer.series.best().name == "step_000000016"
