"""Who may import whom, and a light and silent import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "simscaleai_jax"
ALLOWED = {
    "core": set(),
    "sim": {"core", "registration"},
    "models": {"core"},
    "training": {"core", "models"},
    "rl": {"core", "sim", "models"},
    "datagen": {"core", "registration", "sim"},
    "interop": {"core", "models", "rl", "policy"},
    "adapters": {"core", "sim"},
    "policy": {"core", "models", "rl"},
    "plan": {"core"},
    "tools": {"core", "plan", "sim", "models", "training", "rl", "datagen", "interop", "policy"},
}
SIM_ADAPTERS = {("sim", "base_env.py"), ("sim", "task_env.py"), ("sim", "vector_env.py")}


def imports(path):
    """(imported module, whether at the top level) of every import in a file."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in names:
            yield name, id(node) in top


def files():
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_import_arrows(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name, is_top in imports(path):
        root, *rest = name.split(".")
        if root == "simscaleai_jax" and rest and part in ALLOWED:
            assert rest[0] == part or rest[0] in ALLOWED[part], f"{part} may not import {name}"
        if root == "gymnasium" and is_top:
            assert (part, path.name) in SIM_ADAPTERS, "gymnasium belongs to sim's adapters"
        if root == "torch":
            assert part in ("interop", "adapters"), "torch belongs to interop and adapters"


@pytest.mark.parametrize("module", ["simscaleai_jax", "simscaleai_jax.sim", "simscaleai_jax.tools.cli"])
def test_import_is_silent(module):
    run = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=True)
    assert run.stdout + run.stderr == ""


def test_package_import_is_light():
    code = "import sys, simscaleai_jax; print(sorted({'jax', 'mujoco', 'flax', 'torch'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
