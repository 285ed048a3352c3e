"""What `make docs` built: its search finds every public name; and the notebooks run at a small size."""

import html
import importlib
import json
import pkgutil
import re

import pytest

import simscaleai_jax

from .pages import ROOT

SITE = ROOT / "outputs" / "site"
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
SMALL = {
    "pick_place_from_scratch": "total_steps = 8192\nepisodes = 2",
    "imitation_with_diffusion": "demonstrations = 8\nupdates = 40\nepisodes = 2",
}
SECONDS = 900


def public_names():
    """(package, name) of every `__all__` that users import from: of packages down to the second level."""
    for module in pkgutil.walk_packages(simscaleai_jax.__path__, "simscaleai_jax."):
        if module.ispkg and module.name.count(".") <= 2:
            for name in getattr(importlib.import_module(module.name), "__all__", ()):
                yield module.name, name


@pytest.mark.docs
def test_the_search_finds_every_public_name():
    index = json.loads((SITE / "search" / "search_index.json").read_text())
    words = {word for entry in index["docs"] for word in re.findall(r"\w+", html.unescape(entry["title"]))}
    wanted = list(public_names())
    assert len(wanted) > 80
    assert [f"{package}.{name}" for package, name in wanted if name not in words] == []


@pytest.mark.docs
def test_every_page_is_in_the_site():
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("")
        assert (SITE / ("" if name.stem == "index" else name) / "index.html").is_file(), page


def test_notebooks_keep_their_output_and_have_a_small_size():
    assert {path.stem for path in NOTEBOOKS} == set(SMALL)
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text())["cells"]
        assert "parameters" in cells[1]["metadata"]["tags"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert all(cell["execution_count"] for cell in code), path
        assert any("image/png" in output.get("data", {}) for cell in code for output in cell["outputs"])


@pytest.mark.docs
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = SMALL[path.stem]
    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(tmp_path)}}).execute()
