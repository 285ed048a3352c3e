"""Every numbered sentence of docs/contract.md has a test that names its number."""

import ast
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_sentence_has_a_test():
    promised = re.findall(r"^- \*\*(C\d\d)\*\*", (ROOT / "docs" / "contract.md").read_text(), re.MULTILINE)
    assert len(promised) == len(set(promised)) > 20
    held = set().union(*(held_numbers(path.read_text()) for path in (ROOT / "tests").rglob("test_*.py")))
    assert [number for number in promised if number not in held] == []


def test_helpers_hold_nothing():
    source = """
        class TestA:
            def test_c01_and_more(self):
                'C02 and C03.'

        def check_same_run():
            'C04.'
        """
    assert held_numbers(textwrap.dedent(source)) == {"C01", "C02", "C03"}


def held_numbers(source: str) -> set[str]:
    """The numbers that the names and docstrings of a file's tests say."""
    held = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            said = f"{node.name} {ast.get_docstring(node)}"
            held.update(number.upper() for number in re.findall(r"(?<![a-zA-Z0-9])[cC]\d\d(?![0-9])", said))
    return held
