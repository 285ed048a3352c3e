"""Every test sees 8 CPU devices, a warm compile cache, checked array types and our own warnings as errors."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

# Pytrees are also rebuilt with placeholders (PartitionSpecs, None), so only modules of plain array functions are
# checked.
CHECKED = ("sim.control", "models", "rl.ppo.gae")
install_import_hook([f"simscaleai_jax.{name}" for name in CHECKED], "beartype.beartype")

from simscaleai_jax.core.compile_cache import enable  # noqa: E402

enable()
