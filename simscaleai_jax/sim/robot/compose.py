"""Builds a scene around an arm: table, target, object, cameras, contacts and touch sensors, with MuJoCo's MjSpec."""

import mujoco
import numpy as np

from simscaleai_jax.sim.robot.arms import Arm, Finger, locate
from simscaleai_jax.sim.robot.description import PADS, Needs, RobotNames

TABLE = (0.4, 0.6, 0.2)  # m, half sides
RED, GREEN, BLUE, GREY = ([0.88, 0.16, 0.12, 1], [0.12, 0.85, 0.3, 1], [0.15, 0.3, 0.9, 1], [0.2, 0.22, 0.26, 1])
OBJECTS, TARGETS = (RED, BLUE, GREEN), (GREEN, RED, BLUE)  # colours in their order; the last one of all further ones
MARK_HEIGHT, MARK_SHARE = 0.001, 0.125  # m; of a workspace's width, half the side of a mark at most
TARGET_RADIUS, SMALL_TARGET_RADIUS = 0.05, 0.02  # m, of a point to reach and of a place for an object
GRIP = (1.0, 1.0, 0.01, 1e-4, 1e-4)  # friction of what must not slip
GRAVITY_COMPENSATED = 1.0
# What a touch sensor tells: whether pad and object touch, and the force of the strongest contact.
FOUND_AND_FORCE = sum(1 << int(getattr(mujoco.mjtConDataField, f"mjCONDATA_{name}")) for name in ("FOUND", "FORCE"))
STRONGEST = 2
PREFIX = "arm/"  # of the arm's names in a scene
CAMERAS_REACH = 0.65  # m, of an arm that the cameras' distances are made for
SETTLE_STEPS = 1500  # in which an opened gripper comes to rest


def compose(name: str, arm: Arm, needs: Needs, dt: float) -> mujoco.MjModel:
    """The compiled scene of an arm, with what a task needs.

    Raises:
      FileNotFoundError: the arm's model is not on this machine.
      ValueError: MuJoCo refuses the scene, or the catalogue names a part that this version of the model lacks.
    """
    centre = 0.5 * np.add(arm.workspace_low, arm.workspace_high)
    spec = _surroundings(dt)
    _add_arm(spec, name, arm)
    _add_table(spec, centre)
    _add_cameras(spec, centre, arm.workspace_high[0])
    for number in range(needs.targets):
        body = spec.worldbody.add_body(name=_numbered("target", number), mocap=True, pos=centre)
        body.add_geom(**_target(needs, number, arm), **_untouched())
    for number in range(needs.objects):
        place = [centre[0], centre[1] + 3 * arm.cube * number, arm.cube]
        body = spec.worldbody.add_body(name=_numbered("object", number), pos=place)
        body.add_freejoint(name=_numbered("object", number))
        body.add_geom(name=_numbered("object", number), type=mujoco.mjtGeom.mjGEOM_BOX, size=[arm.cube] * 3, mass=0.05,
                      rgba=_coloured(OBJECTS, number), **_untouched())  # fmt: skip
    if arm.fingers:
        _add_touch(spec, arm, needs)
    try:
        model = spec.compile()
    except ValueError as error:
        raise ValueError(f"robot {name!r}: MuJoCo refuses the scene around {locate(name, arm)}: {error}") from error
    return _with_home(spec, model, arm)


def _target(needs: Needs, number: int, arm: Arm) -> dict[str, object]:
    """The geom of a target: a coloured ball, or a square on the table."""
    if needs.mark:
        side = min(needs.mark, MARK_SHARE * (arm.workspace_high[1] - arm.workspace_low[1]))
        size = [side, side, MARK_HEIGHT]
        return {"type": mujoco.mjtGeom.mjGEOM_BOX, "size": size, "rgba": GREY}
    radius = SMALL_TARGET_RADIUS if needs.objects else TARGET_RADIUS
    return {"type": mujoco.mjtGeom.mjGEOM_SPHERE, "size": [radius, 0, 0], "rgba": _coloured(TARGETS, number)}


def _coloured(colours: tuple[list[float], ...], number: int) -> list[float]:
    return colours[min(number, len(colours) - 1)]


def names_of(arm: Arm) -> RobotNames:
    """What the composed scene's names do not say."""
    closed, opened = zip(*arm.controls.values(), strict=True) if arm.controls else ((), ())
    return RobotNames(
        held_axes=arm.held_axes,
        gripper=tuple(PREFIX + name for name in arm.controls),
        closed=closed,
        opened=opened,
    )


def _surroundings(dt: float) -> mujoco.MjSpec:
    """Floor and light."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.timestep = dt
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.jacobian = mujoco.mjtJacobian.mjJAC_DENSE
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_EULERDAMP
    spec.visual.headlight.ambient = [0.38, 0.38, 0.4]
    spec.visual.headlight.diffuse = [0.22, 0.22, 0.22]
    spec.worldbody.add_light(
        name="key", pos=[0.8, -0.6, 2.2], dir=[-0.35, 0.45, -1], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        diffuse=[0.5, 0.5, 0.48], specular=[0, 0, 0],
    )  # fmt: skip
    spec.worldbody.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.1], pos=[0, 0, -0.4], rgba=[0.72, 0.75, 0.79, 1],
        **_untouched(),
    )  # fmt: skip
    return spec


def _add_cameras(spec: mujoco.MjSpec, centre: np.ndarray, reach: float) -> None:
    """Two that look at the workspace from either side, as near as the arm is small."""
    for name, side in (("front_cam", -1.0), ("side_cam", 1.0)):
        place = centre + reach / CAMERAS_REACH * np.array([0.805, side * 0.8, 0.66])
        camera = spec.worldbody.add_camera(name=name, pos=place, fovy=45)
        camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
        camera.alt.xyaxes = [-side * 0.607, 0.795, 0, -0.303, -side * 0.231, 0.925]


def _add_table(spec: mujoco.MjSpec, centre: np.ndarray) -> None:
    table = spec.worldbody.add_body(name="table", mocap=True, pos=[centre[0], centre[1], 0])
    table.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_BOX, size=TABLE, pos=[0, 0, -TABLE[2]], rgba=[0.8, 0.66, 0.5, 1],
        **_untouched(),
    )  # fmt: skip


def _add_arm(spec: mujoco.MjSpec, name: str, arm: Arm) -> None:
    """The arm, weightless for its servos, touching nothing but through contact pairs."""
    child = mujoco.MjSpec.from_file(str(locate(name, arm)))
    _take_options(child, spec)
    if arm.hand:
        hand = mujoco.MjSpec.from_file(str(locate(name, arm, is_hand=True)))
        _forget(hand)
        _take_options(hand, spec)
        child.attach(hand, site=_part(child.site(arm.hand_site), name, "site", arm.hand_site), prefix="hand/")
    _forget(child)
    for body in arm.without:
        child.delete(_part(child.body(body), name, "body", body))
    for body in child.bodies:
        if body.name != "world":
            body.gravcomp = GRAVITY_COMPENSATED
    for geom in child.geoms:
        geom.contype = geom.conaffinity = 0
    for actuator in child.actuators:
        gains = arm.gains.get(actuator.name, arm.gains.get("*") if actuator.target in arm.home else None)
        if gains:
            actuator.set_to_position(kp=gains[0], kv=gains[1])
    frame = spec.worldbody.add_frame(pos=arm.base_pos, quat=arm.base_quat)
    spec.attach(child, frame=frame, prefix=PREFIX)
    _add_tool(spec, name, arm)


def _add_tool(spec: mujoco.MjSpec, name: str, arm: Arm) -> None:
    """The tool's site, a camera that looks along it, fingertips and their pads."""
    tool = _part(spec.body(PREFIX + arm.tool_body), name, "body", arm.tool_body)
    tool.add_site(name="ee_site", pos=arm.tool_pos, quat=arm.tool_quat, size=[0.005, 0.005, 0.005])
    tool.add_camera(name="wrist_cam", pos=_wrist_camera(arm), quat=_looking_along(arm.tool_quat), fovy=60)
    for side, finger in zip(PADS, arm.fingers, strict=False):
        body = _part(spec.body(PREFIX + finger.body), name, "body", finger.body)
        body.add_site(name=f"{side}_tip", pos=finger.tip, size=[0.002, 0.002, 0.002])
        if not finger.pad:
            body.add_geom(
                name=_pad(side, finger), type=mujoco.mjtGeom.mjGEOM_BOX, pos=finger.pad_pos, quat=finger.pad_quat,
                size=finger.pad_size, mass=0, rgba=[0.12, 0.12, 0.14, 1], **_untouched(),
            )  # fmt: skip


def _forget(spec: mujoco.MjSpec) -> None:
    """Take out what belongs to another scene."""
    for items in (spec.keys, spec.lights, spec.pairs):
        for item in list(items):
            spec.delete(item)


def _take_options(spec: mujoco.MjSpec, scene: mujoco.MjSpec) -> None:
    """Physics as in the scene: MuJoCo would warn of every difference and keep the scene's anyway."""
    for name in dir(scene.option):
        if not name.startswith("_"):
            setattr(spec.option, name, getattr(scene.option, name))


def _part(found: object, robot: str, kind: str, name: str) -> object:
    if found is None:
        raise ValueError(f"robot {robot!r}: this version of the model has no {kind} {name!r}")
    return found


def _add_touch(spec: mujoco.MjSpec, arm: Arm, needs: Needs) -> None:
    """Contacts that a task can have, and the fingertips' sensors of them."""
    objects = [_numbered("object", number) for number in range(needs.objects)]
    pads = [_pad(side, finger) for side, finger in zip(PADS, arm.fingers, strict=True)]
    for pad in pads:
        spec.add_pair(geomname1="table", geomname2=pad, condim=3)
    for number, name in enumerate(objects):
        for other in ("table", *pads, *objects[:number]):
            spec.add_pair(geomname1=other, geomname2=name, condim=3, friction=GRIP)
        for side, pad in zip(PADS, pads, strict=True):
            sensor = spec.add_sensor(name=f"{side}_touch" + (f"_{name}" if number else ""))
            sensor.type, sensor.objtype, sensor.reftype = (
                mujoco.mjtSensor.mjSENS_CONTACT, mujoco.mjtObj.mjOBJ_GEOM, mujoco.mjtObj.mjOBJ_GEOM,
            )  # fmt: skip
            sensor.objname, sensor.refname = pad, name
            sensor.intprm[:3] = [FOUND_AND_FORCE, STRONGEST, 1]


def _pad(side: str, finger: Finger) -> str:
    return PREFIX + finger.pad if finger.pad else f"{side}_pad"


def _with_home(spec: mujoco.MjSpec, model: mujoco.MjModel, arm: Arm) -> mujoco.MjModel:
    """The model with a keyframe `home`: the arm as the catalogue has it, the gripper open and at rest."""
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_GRAVITY
    data = mujoco.MjData(model)
    angles = {model.joint(PREFIX + name).id: angle for name, angle in arm.home.items()}
    opened = {PREFIX + name: controls[1] for name, controls in arm.controls.items()}
    for actuator in range(model.nu):
        joint = int(model.actuator_trnid[actuator, 0])
        is_arm = model.actuator_trntype[actuator] == int(mujoco.mjtTrn.mjTRN_JOINT) and joint in angles
        widest = opened.get(model.actuator(actuator).name, model.actuator_ctrlrange[actuator, 1])
        data.ctrl[actuator] = angles[joint] if is_arm else widest
    rest = data.qpos.copy()
    rest[model.jnt_qposadr[list(angles)]] = list(angles.values())
    data.qpos[:] = rest
    mujoco.mj_step(model, data, SETTLE_STEPS)
    moves = (model.jnt_type == int(mujoco.mjtJoint.mjJNT_HINGE)) | (model.jnt_type == int(mujoco.mjtJoint.mjJNT_SLIDE))
    fingers = [joint for joint in np.flatnonzero(moves) if joint not in angles]
    rest[model.jnt_qposadr[fingers]] = data.qpos[model.jnt_qposadr[fingers]]
    spec.add_key(name="home", qpos=rest, ctrl=data.ctrl)
    return spec.compile()


def _wrist_camera(arm: Arm) -> np.ndarray:
    """Behind the tool, looking along it."""
    back = np.zeros(3)
    mujoco.mju_rotVecQuat(back, np.array([0.06, 0.0, -0.1]), np.array(arm.tool_quat, float))
    return np.add(arm.tool_pos, back)


def _looking_along(quat: tuple[float, ...]) -> np.ndarray:
    """Orientation of a camera, which looks along its -z, for a tool that approaches along z."""
    turned = np.zeros(4)
    mujoco.mju_mulQuat(turned, np.array(quat, float), np.array([0.0, 1.0, 0.0, 0.0]))
    return turned


def _numbered(prefix: str, number: int) -> str:
    return prefix if number == 0 else f"{prefix}{number + 1}"


def _untouched() -> dict[str, int]:
    return {"contype": 0, "conaffinity": 0}
