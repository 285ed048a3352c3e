"""XLA's persistent compilation cache, on by default: a second run of the same program skips 5 to 20 s of compiling.

What compiles calls `enable()` (making an environment, training, evaluation, data generation); importing the package
does not.
"""

import hashlib
import os
import platform
from functools import cache
from pathlib import Path

ENVIRONMENT_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
MIN_COMPILE_SECONDS = 0.3


@cache
def enable() -> Path | None:
    """Turns the cache on, once per process, and returns its folder (None where it cannot be written).

    `JAX_COMPILATION_CACHE_DIR` decides the folder where it is set; set and empty, it turns the cache off. A folder that
    the caller has already given to `jax.config` is kept.
    """
    import jax

    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen == "":
        return None
    folder = Path(chosen or jax.config.jax_compilation_cache_dir or default_folder())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return folder


def default_folder() -> Path:
    """Per-user cache folder, one per kind of processor: compiled CPU programs use the features of their machine."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "simscaleai_jax" / f"xla-{_processor()}"


def _processor() -> str:
    features = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        pass
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
