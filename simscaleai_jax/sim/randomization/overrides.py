"""Domain randomization as data: every reset draws one episode's model anew from the nominal one, which is never
written to.

`draw` returns overrides, a dict of arrays. Those named in `MODEL_INPUTS` replace model fields, in each engine its own
way; `table_height` and `object_half_size` are read by name; the look (`geom_rgb`, `light_*`, `camera_*`) goes to the
ray-caster.
"""

import operator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from simscaleai_jax.core.config import from_dict
from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.sim import exact_random
from simscaleai_jax.sim.randomization.config import JITTERS, NOMINAL, PRESETS, DomainRandomizationConfig
from simscaleai_jax.sim.robot import home_data, table_surface
from simscaleai_jax.sim.robot.extent import half_size, why_not_scaled

__all__ = [
    "DERIVED_FIELDS", "JITTERS", "MODEL_INPUTS", "NOMINAL", "PRESETS", "DomainRandomizationConfig", "apply_to_host",
    "apply_to_mjx", "draw", "draw_between", "resolve",
]  # fmt: skip

# Overrides that replace model fields, and the names that MuJoCo knows the fields by.
MODEL_INPUTS = {
    **{name: name for name in (
        "pair_friction", "body_mass", "body_inertia", "body_ipos", "dof_damping", "geom_size", "geom_pos",
        "actuator_gainprm", "actuator_biasprm",
    )},
    "gravity": "opt.gravity",
}  # fmt: skip
# What MuJoCo derives from them and MJX does not: bounding volumes, masses of subtrees, inverse weights.
DERIVED_FIELDS = ("body_subtreemass", "body_invweight0", "dof_invweight0", "geom_rbound", "geom_aabb")


def resolve(randomization: Any) -> DomainRandomizationConfig:
    """The config that a `SimConfig.randomization` value stands for: None (default preset), a preset's name, a dict,
    a config.

    Raises:
      ValueError: unknown preset or field, or a range that makes no sense.
    """
    if randomization is None:
        return PRESETS["default"]
    if isinstance(randomization, str):
        if randomization not in PRESETS:
            raise unknown_name("randomization preset", randomization, PRESETS)
        return PRESETS[randomization]
    if isinstance(randomization, Mapping):
        return from_dict(DomainRandomizationConfig, randomization, where="randomization: ")
    if not isinstance(randomization, DomainRandomizationConfig):
        raise ValueError(
            "randomization must be a DomainRandomizationConfig, a preset's name, a dict or None, "
            f"got {type(randomization).__name__}"
        )
    return randomization


def draw(key: PRNGKeyArray, config: Any, model: mujoco.MjModel) -> dict[str, Array]:
    """Overrides of one episode.

    Args:
      key: everything random follows from it; a parameter's value does not depend on which others are randomized.
      config: as in `resolve`. A parameter at its nominal range is not drawn and overrides nothing.
      model: the nominal model.
    """
    config = resolve(config)
    ranges = {name: getattr(config, name) for name in NOMINAL if getattr(config, name) != NOMINAL[name]}
    jitters = {name: getattr(config, name) for name in JITTERS if getattr(config, name) > 0.0}
    return draw_between(key, ranges, jitters, model)


def draw_between(
    key: PRNGKeyArray,
    ranges: Mapping[str, tuple[Any, Any]],
    jitters: Mapping[str, Any],
    model: mujoco.MjModel,
) -> dict[str, Array]:
    """`draw` from (low, high) ranges and largest deviations by name, which may be arrays under `jit` and `vmap`: each
    environment of one batch can have its own. What is named overrides its fields even where it stays nominal.
    """
    values = {
        name: exact_random.uniform(jax.random.fold_in(key, number), (), *ranges[name])
        for number, name in enumerate(NOMINAL)
        if name in ranges
    }
    overrides = {**_physics(values, model), **_object(values, model), **_scenery(values, model)}
    return {**overrides, **_look(jax.random.fold_in(key, len(NOMINAL)), jitters, model)}


def apply_to_mjx(model: Any, overrides: dict[str, Array]) -> Any:
    """The MJX model with one environment's overrides in place."""
    fields = {
        name: overrides[name].reshape(jnp.shape(getattr(model, name)))
        for name in (*MODEL_INPUTS, *DERIVED_FIELDS)
        if name in overrides and name != "gravity"
    }
    if "gravity" in overrides:
        fields["opt"] = model.opt.replace(gravity=overrides["gravity"])
    return model.replace(**fields) if fields else model


def apply_to_host(model: mujoco.MjModel, nominal: mujoco.MjModel, overrides: dict[str, Array]) -> None:
    """Write the overrides into `model`, and what derives from them; whatever they do not name goes back to `nominal`,
    so that nothing drifts.
    """
    for name, field_name in MODEL_INPUTS.items():
        read = operator.attrgetter(field_name)
        field = read(model)
        field[:] = np.reshape(overrides[name] if name in overrides else read(nominal), field.shape)
    mujoco.mj_setConst(model, mujoco.MjData(model))


def _physics(values: dict[str, Array], model: mujoco.MjModel) -> dict[str, Array]:
    """Friction, damping, gains and gravity."""
    overrides = {}
    if "friction" in values:
        friction = jnp.asarray(model.pair_friction, jnp.float32)
        overrides["pair_friction"] = friction.at[:, :2].multiply(values["friction"])
    if "joint_damping" in values:
        overrides["dof_damping"] = jnp.asarray(model.dof_damping, jnp.float32) * values["joint_damping"]
    if "actuator_gain" in values:
        overrides["actuator_gainprm"] = jnp.asarray(model.actuator_gainprm, jnp.float32) * values["actuator_gain"]
        overrides["actuator_biasprm"] = jnp.asarray(model.actuator_biasprm, jnp.float32) * values["actuator_gain"]
    if "gravity" in values:
        overrides["gravity"] = jnp.asarray(model.opt.gravity, jnp.float32) * values["gravity"]
    return overrides


def _object(values: dict[str, Array], model: mujoco.MjModel) -> dict[str, Array]:
    """Mass and size of the body `object`, with the inertia that follows: mass times length squared. All of it is scaled
    about the body's origin; one whose size cannot be randomized keeps it.
    """
    body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, "object")
    if body >= 0 and why_not_scaled(model, body):
        values = {name: value for name, value in values.items() if name != "object_size"}
    if body < 0 or not {"object_mass", "object_size"} & values.keys():
        return {}
    mass, size = values.get("object_mass", jnp.float32(1.0)), values.get("object_size", jnp.float32(1.0))
    inertia = mass * size * size
    dofs = slice(model.body_dofadr[body], model.body_dofadr[body] + 6)
    added = exact_random.snap(float(model.body_mass[body]) * (mass - 1.0))
    weights = jnp.stack([1.0 / mass, 1.0 / inertia])

    def field(name):
        return jnp.asarray(getattr(model, name), jnp.float32)

    overrides = {
        "body_mass": field("body_mass").at[body].multiply(mass),
        "body_inertia": field("body_inertia").at[body].multiply(inertia),
        "body_subtreemass": field("body_subtreemass").at[jnp.array([0, body])].add(added),
        "body_invweight0": field("body_invweight0").at[body].multiply(weights),
        "dof_invweight0": field("dof_invweight0").at[dofs].multiply(jnp.repeat(weights, 3)),
    }
    if "object_size" in values:
        geoms = slice(model.body_geomadr[body], model.body_geomadr[body] + model.body_geomnum[body])
        shifted = ("geom_pos",) if model.geom_pos[geoms].any() else ()
        for name in ("geom_size", "geom_rbound", "geom_aabb", *shifted):
            overrides[name] = field(name).at[geoms].multiply(size)
        if model.body_ipos[body].any():
            overrides["body_ipos"] = field("body_ipos").at[body].multiply(size)
        overrides["object_half_size"] = exact_random.snap(half_size(model, body) * size)  # tasks add it to heights
    return overrides


def _scenery(values: dict[str, Array], model: mujoco.MjModel) -> dict[str, Array]:
    table = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, "table")
    if table < 0 or model.body_mocapid[table] < 0 or "table_height" not in values:
        return {}
    nominal = float(home_data(model).xpos[table, 2]) + table_surface(model, table)
    return {"table_height": nominal + values["table_height"]}


def _look(key: PRNGKeyArray, jitters: Mapping[str, Any], model: mujoco.MjModel) -> dict[str, Array]:
    """Colours, light and camera pose."""
    keys = jax.random.split(key, 6)

    def jitter(number: int, shape: tuple[int, ...], name: str) -> Float[Array, "..."]:
        return exact_random.uniform(keys[number], shape, -jitters[name], jitters[name])

    overrides = {}
    if "colour" in jitters:
        from simscaleai_jax.sim.render.materials import read_colours

        colours = jnp.asarray(read_colours(model)[:, :3])
        overrides["geom_rgb"] = jnp.clip(colours + jitter(0, colours.shape, "colour"), 0.0, 1.0)
    lights = [i for i in range(model.nlight) if model.light_active[i]]
    if lights and "light_direction" in jitters:
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        direction = data.light_xdir[lights] + jitter(1, (len(lights), 3), "light_direction")
        overrides["light_dir"] = direction / jnp.linalg.norm(direction, axis=1, keepdims=True)
        overrides["light_pos"] = data.light_xpos[lights] + jitter(2, (len(lights), 3), "light_direction")
    if lights and "light_intensity" in jitters:
        brightness = 1.0 + jitter(3, (len(lights), 1), "light_intensity")
        overrides["light_diffuse"] = jnp.clip(model.light_diffuse[lights] * brightness, 0.0, 1.0)
    if "camera_position" in jitters:
        overrides["camera_offset"] = jitter(4, (3,), "camera_position")
    if "camera_rotation" in jitters:
        overrides["camera_rotation"] = jitter(5, (3,), "camera_rotation")
    return {name: jnp.asarray(value, jnp.float32) for name, value in overrides.items()}
