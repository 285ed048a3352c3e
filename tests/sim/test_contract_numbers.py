"""Every numbered sentence of docs/contract.md has a test that names its number."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_sentence_has_a_test():
    promised = re.findall(r"^- \*\*(C\d\d)\*\*", (ROOT / "docs" / "contract.md").read_text(), re.MULTILINE)
    assert len(promised) == len(set(promised)) > 20
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py")).lower()
    assert [number for number in promised if number.lower() not in tests] == []
