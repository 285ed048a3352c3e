"""README and docs say what the benchmarks wrote."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "figures.py"


@pytest.fixture
def figures():
    spec = importlib.util.spec_from_file_location("figures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_figure_is_that_of_its_file(figures, capsys):
    assert figures.main(["--check"]) == 0, capsys.readouterr().err


def test_a_figure_that_was_typed_is_found(figures, tmp_path, monkeypatch, capsys):
    for name in ("README", "PAGE"):
        path = getattr(figures, name)
        copy = tmp_path / path.name
        copy.write_text(path.read_text().replace("env steps/s", "env steps/h"))
        monkeypatch.setattr(figures, name, copy)
    assert figures.main(["--check"]) == 1
    assert capsys.readouterr().err.count("run python benchmarks/figures.py") == 2
    assert figures.main([]) == 0
    assert figures.main(["--check"]) == 0
    assert "env steps/h" not in figures.PAGE.read_text()


def test_the_readme_shows_few_of_them(figures):
    shown = [claim for section in figures.SECTIONS for claim in section.claims if claim.in_readme]
    assert 1 <= len(shown) <= 8
