"""Parameters of a test of which few run by default."""

from collections.abc import Iterable
from typing import Any

import pytest


def others_wide(values: Iterable[Any], *quick: Any) -> list[Any]:
    """The values of one argument, all but the quick ones marked as wide."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.wide) for value in values]
