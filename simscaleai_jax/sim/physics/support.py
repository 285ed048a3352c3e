"""What of MuJoCo a scene uses that MJX lacks or pays dearly for, said before anything is compiled."""

import contextlib
import io
import warnings
from collections.abc import Iterator

import mujoco

from simscaleai_jax.core.errors import listed
from simscaleai_jax.sim.physics.buffers import candidate_pairs

with contextlib.redirect_stdout(io.StringIO()):  # as in `mjx`
    from mujoco.mjx._src import collision_driver, types

MESH = mujoco.mjtGeom.mjGEOM_MESH
MANY_MESH_PAIRS = 10  # each is compiled code of its own kind; a whole arm's took more than five minutes
ADVICE = "or play it on MuJoCo itself (impl='c')"


def check_supported(model: mujoco.MjModel, impl: str) -> None:
    """Whether MJX can play a scene, and whether it should.

    Raises:
      ValueError: lists everything of the scene that MJX on `impl` ("jax" or "warp") does not have.
    Warns:
      UserWarning: pairs of meshes that would take minutes to compile.
    """
    lacking = list(dict.fromkeys(_options(model)))
    if impl == "jax":
        lacking += dict.fromkeys([*_parts(model), *_collisions(model)])
    if lacking:
        raise ValueError(f"MJX (impl={impl!r}) lacks what the scene uses: {'; '.join(lacking)}. Change it, {ADVICE}.")
    if impl == "jax":
        _warn_of_meshes(model)


def _options(model: mujoco.MjModel) -> Iterator[str]:
    """Settings of <option> that no implementation of MJX has, each with those that it has."""
    enums = (
        ("solver", types.SolverType, mujoco.mjtSolver, "mjSOL_"),
        ("integrator", types.IntegratorType, mujoco.mjtIntegrator, "mjINT_"),
        ("cone", types.ConeType, mujoco.mjtCone, "mjCONE_"),
        ("jacobian", types.JacobianType, mujoco.mjtJacobian, "mjJAC_"),
    )
    for field, known, enum, prefix in enums:
        value = getattr(model.opt, field)
        if value not in set(known):
            has = ", ".join(_name(enum(option), prefix) for option in known)
            yield f"{field} {_name(enum(value), prefix)} (it has {has})"
    bits = (1 << number for number in range(int(mujoco.mjtEnableBit.mjNENABLE)))
    for bit in bits:
        if model.opt.enableflags & bit and bit not in set(types.EnableBit):
            yield f"flag {_name(mujoco.mjtEnableBit(bit), 'mjENBL_')}"


def _parts(model: mujoco.MjModel) -> Iterator[str]:
    """Kinds of actuators, sensors, equalities and so on that MJX's own implementation does not compute."""
    kinds = (
        (model.actuator_biastype, types.BiasType, mujoco.mjtBias, "actuator bias", "mjBIAS_"),
        (model.actuator_dyntype, types.DynType, mujoco.mjtDyn, "actuator dynamics", "mjDYN_"),
        (model.actuator_gaintype, types.GainType, mujoco.mjtGain, "actuator gain", "mjGAIN_"),
        (model.actuator_trntype, types.TrnType, mujoco.mjtTrn, "transmission", "mjTRN_"),
        (model.eq_type, types.EqType, mujoco.mjtEq, "equality", "mjEQ_"),
        (model.sensor_type, types.SensorType, mujoco.mjtSensor, "sensor", "mjSENS_"),
        (model.wrap_type, types.WrapType, mujoco.mjtWrap, "tendon wrap", "mjWRAP_"),
    )
    for values, known, enum, what, prefix in kinds:
        for value in sorted(set(values.tolist()) - {int(kind) for kind in known}):
            yield f"{what} {_name(enum(value), prefix)}"
    if model.nflex:
        yield "flex bodies"
    if model.nplugin:
        yield "plugins"
    if model.opt.noslip_iterations:
        yield "noslip iterations"
    has_fluid = model.opt.density > 0 or model.opt.viscosity > 0 or model.opt.wind.any()
    if has_fluid and model.opt.integrator == mujoco.mjtIntegrator.mjINT_IMPLICITFAST:
        yield "fluid drag (density, viscosity or wind) with integrator IMPLICITFAST"
    touch = model.sensor_type == mujoco.mjtSensor.mjSENS_CONTACT
    matched = {*model.sensor_objtype[touch].tolist(), *model.sensor_reftype[touch].tolist()}
    for kind in (mujoco.mjtObj.mjOBJ_SITE, mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_XBODY):
        if int(kind) in matched:
            yield f"contact sensors of a {_name(kind, 'mjOBJ_').lower()} (it has those of two geoms)"
    if (model.sensor_intprm[touch, 1] == 3).any():
        yield "contact sensors with reduce='netforce'"


def _collisions(model: mujoco.MjModel) -> Iterator[str]:
    """Kinds of geoms that may touch and that MJX cannot test against each other, each with the geoms of that kind."""
    lacking: dict[str, list[tuple[int, int]]] = {}
    for first, second, pair in candidate_pairs(model):
        kinds = model.geom_type[[first, second]]
        names = " and ".join(sorted(_name(mujoco.mjtGeom(kind), "mjGEOM_").lower() for kind in kinds))
        if not collision_driver.has_collision_fn(*kinds):
            lacking.setdefault(f"contacts between {names}", []).append((first, second))
        margin = model.pair_margin[pair] if pair >= 0 else model.geom_margin[first] + model.geom_margin[second]
        if margin and {int(MESH), int(mujoco.mjtGeom.mjGEOM_HFIELD)} & set(kinds.tolist()):
            lacking.setdefault(f"a margin between {names}", []).append((first, second))
    for what, pairs in lacking.items():
        yield f"{what} ({listed([' with '.join(_label(model, geom) for geom in pair) for pair in pairs])})"


def _label(model: mujoco.MjModel, geom: int) -> str:
    """What to call a geom: its name, else its number and its body's name."""
    name = model.geom(geom).name
    return repr(name) if name else f"#{geom} of body {model.body(model.geom_bodyid[geom]).name!r}"


def _warn_of_meshes(model: mujoco.MjModel) -> None:
    pairs = [(first, second) for first, second, _ in candidate_pairs(model)]
    with_mesh = [pair for pair in pairs if MESH in model.geom_type[list(pair)]]
    if len(with_mesh) >= MANY_MESH_PAIRS:
        meshes = {geom for pair in with_mesh for geom in pair if model.geom_type[geom] == MESH}
        warnings.warn(
            f"{len(with_mesh)} of the scene's {len(pairs)} pairs of geoms that may touch have a mesh "
            f"({listed([_label(model, geom) for geom in sorted(meshes)])}). MJX compiles its test of "
            f"convex meshes into every step: many minutes, and slow steps. Give colliding parts primitive geoms, or "
            f"list the few pairs that matter (<contact><pair>, contype='0' conaffinity='0' elsewhere), {ADVICE}.",
            UserWarning,
            stacklevel=4,
        )


def _name(member: object, prefix: str) -> str:
    return getattr(member, "name", str(member)).removeprefix(prefix)
