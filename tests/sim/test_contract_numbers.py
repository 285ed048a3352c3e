"""Every numbered sentence of docs/contract.md has a test that names its number."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_sentence_has_a_test():
    promised = re.findall(r"^- \*\*(C\d\d)\*\*", (ROOT / "docs" / "contract.md").read_text(), re.MULTILINE)
    assert len(promised) == len(set(promised)) > 20
    held = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                said = f"{node.name} {ast.get_docstring(node)}"
                held.update(number.upper() for number in re.findall(r"(?<![a-zA-Z0-9])[cC]\d\d(?![0-9])", said))
    assert [number for number in promised if number not in held] == []
