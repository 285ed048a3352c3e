"""What every other package stands on: config loading, error messages, observations, checkpoints, mesh, compile cache.

Imports nothing of ours. `checkpoint`, `sharding` and `compile_cache` are imported by name where they are needed,
because they bring JAX.
"""

from simscaleai_jax.core.config import apply_overrides, from_dict, load_yaml, to_dict
from simscaleai_jax.core.errors import check_names, suggest, unknown_name
from simscaleai_jax.core.observations import image_keys, state_keys, state_size, state_vector

__all__ = [
    "apply_overrides",
    "check_names",
    "from_dict",
    "image_keys",
    "load_yaml",
    "state_keys",
    "state_size",
    "state_vector",
    "suggest",
    "to_dict",
    "unknown_name",
]
