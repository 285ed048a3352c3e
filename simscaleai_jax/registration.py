"""Makes the built-in environments known to gymnasium, when `simscaleai_jax` is imported or named as in
`gymnasium.make("simscaleai_jax:simscaleai_jax/Reach-v0")`; the simulator itself loads when one is made.
"""

import copy
import importlib.util
from collections.abc import Mapping
from typing import Any

ENVIRONMENTS = {
    "simscaleai_jax/Reach-v0": "reach",
    "simscaleai_jax/PickPlace-v0": "pick_place",
    "simscaleai_jax/Lift-v0": "lift",
    "simscaleai_jax/Push-v0": "push",
    "simscaleai_jax/Stack-v0": "stack",
}
FACTORY = "simscaleai_jax.sim.factory"


def register() -> None:
    """Registers every environment that gymnasium does not know yet; nothing where gymnasium is not installed."""
    if importlib.util.find_spec("gymnasium") is None:
        return  # an interpreter that only reads exports
    import gymnasium

    for name, env_name in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                f"{FACTORY}:make_env",
                vector_entry_point=f"{FACTORY}:make_vec_env",
                kwargs={"env_name": env_name},
            )


def spec_of(env_name: str, options: Mapping[str, Any]) -> Any:
    """The `gymnasium.EnvSpec` that makes this environment again; None where it has no id."""
    import gymnasium

    for name, known in ENVIRONMENTS.items():
        if known == env_name:
            spec = copy.deepcopy(gymnasium.spec(name))
            spec.kwargs |= copy.deepcopy(dict(options))
            return spec
    return None
