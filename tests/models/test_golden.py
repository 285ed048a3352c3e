"""One training step gives the numbers in golden.json; `python -m tests.models.golden` remakes them."""

import json

import pytest

from tests.models import golden
from tests.models.conftest import CASES
from tests.params import others_wide

WANTED = json.loads(golden.FILE.read_text())


@pytest.mark.parametrize("name", others_wide(sorted(CASES), "bc"))
def test_one_step_gives_the_golden_metrics(name: str) -> None:
    close = 1e-3 if name.startswith("act") else 1e-4  # AdamW makes whole steps of its latent's smallest gradients
    assert golden.one_step(name) == pytest.approx(WANTED[name], rel=close, abs=1e-6)
    assert WANTED[name]["loss_after"] < WANTED[name]["loss"]
