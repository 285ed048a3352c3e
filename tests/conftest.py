"""Every test sees 8 CPU devices, a warm compile cache, checked array types and our own warnings as errors.

XLA compiles without its expensive passes: most of a test's time is compilation, and this halves it. Under pytest-xdist
the tests of one folder stay in one worker, because they share compiled functions through session fixtures.
"""

import os

FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
)
os.environ["XLA_FLAGS"] = " ".join((*FLAGS, os.environ.get("XLA_FLAGS", "")))  # the last one wins: the caller's
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# Pytrees are also rebuilt with placeholders (PartitionSpecs, None), so only modules of plain array functions are
# checked.
CHECKED = ("sim.control", "models", "rl.ppo.gae")
install_import_hook([f"simscaleai_jax.{name}" for name in CHECKED], "beartype.beartype")

from simscaleai_jax.core.compile_cache import enable  # noqa: E402

enable()


LONGEST_FIRST = ("pick", "sim", "models", "tools", "rl", "training")  # so that no worker is left with a long folder


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in its own hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.parent.name, len(ranks)))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(item.path.parent.name))
