"""Physics: one interface and three engines behind it.

| impl | what | for |
|---|---|---|
| "c" | MuJoCo itself, many simulations on a pool of threads | CPUs |
| "jax" | MJX in XLA | TPUs, GPUs without warp |
| "warp" | MJX on MuJoCo Warp | NVIDIA GPUs |
"""

import importlib.util

import jax
import mujoco

from simscaleai_jax.sim.physics.state import Kinematics, Physics, PhysicsState
from simscaleai_jax.sim.robot import Robot

__all__ = ["ENGINES", "Kinematics", "Physics", "PhysicsState", "choose_impl", "make_physics"]

ENGINES = {"c": "MuJoCo C", "jax": "MJX", "warp": "MJX warp"}  # names for people


def make_physics(model: mujoco.MjModel, robot: Robot, substeps: int, impl: str, ramp_steps: int) -> Physics:
    """A scene on an engine.

    Args:
      model: the scene.
      robot: what is in it.
      substeps: physics steps per control step.
      impl: "c", "jax" or "warp", as `choose_impl` gives it.
      ramp_steps: equal steps in which control targets move; they divide `substeps`.
    """
    if impl == "c":
        from simscaleai_jax.sim.physics.c_batch import BatchPhysics

        return BatchPhysics(model, robot, substeps, ramp_steps)
    from simscaleai_jax.sim.physics.mjx import MjxPhysics

    return MjxPhysics(model, robot, substeps, impl, ramp_steps)


def choose_impl(impl: str) -> str:
    """The engine that "auto" stands for on this machine; a name of `ENGINES` is returned as it is.

    Raises:
      ValueError: "warp" without the warp extra.
    """
    has_warp = _has_warp()
    if impl == "auto":
        if jax.default_backend() == "cpu":
            return "c"
        on_nvidia = jax.default_backend() == "gpu" and "nvidia" in jax.devices()[0].device_kind.lower()
        return "warp" if has_warp and on_nvidia else "jax"
    if impl == "warp" and not has_warp:
        raise ValueError("impl='warp' needs warp-lang: pip install 'simscaleai-jax[warp]'")
    return impl


def _has_warp() -> bool:
    return importlib.util.find_spec("warp") is not None
