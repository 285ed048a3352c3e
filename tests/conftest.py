"""Every test sees 8 CPU devices, a warm compile cache, checked array types and our own warnings as errors.

XLA compiles without its expensive passes: most of a test's time is compilation, and this halves it. Under pytest-xdist
the tests of one folder stay in one worker, because they share compiled functions through session fixtures.
"""

import multiprocessing
import os
import signal
from typing import Any

FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
)
os.environ["XLA_FLAGS"] = " ".join((*FLAGS, os.environ.get("XLA_FLAGS", "")))  # the last one wins: the caller's
os.environ.setdefault("JAX_PLATFORMS", "cpu")

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell started the tests in the background

import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402
from xdist.scheduler import LoadScopeScheduling  # noqa: E402

# Pytrees are also rebuilt with placeholders (PartitionSpecs, None), so only modules of plain array functions are
# checked.
CHECKED = ("sim.control", "models", "rl.ppo.gae")
install_import_hook([f"simscaleai_jax.{name}" for name in CHECKED], "beartype.beartype")

import jax  # noqa: E402

from simscaleai_jax.core.compile_cache import enable  # noqa: E402

enable()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # tests compile thousands of tiny programs


# No worker ends with a long folder.
LONGEST_FIRST = ("docs", "training", "sim", "rl", "tools", "datagen", "pick", "models")

FORKED = [
    "orbax.checkpoint", "simscaleai_jax.core.checkpoint_series", "simscaleai_jax.core.flat_tree",
    "simscaleai_jax.core.runs.folder", "simscaleai_jax.datagen", "tests.datagen.test_kill",
]  # fmt: skip


@pytest.fixture(scope="session")
def context() -> Any:
    """For processes that are killed: they are forked with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(FORKED)
    return context


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.parent.name, len(ranks)))


class FolderScheduling(LoadScopeScheduling):
    """Gives each folder of tests to one worker. (xdist 3.8's own loadgroup does nothing under pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.split("::")[0].rpartition("/")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FolderScheduling | None:
    return FolderScheduling(config, log) if config.option.dist == "loadscope" else None
