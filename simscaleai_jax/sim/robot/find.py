"""Finds a robot's parts in a compiled model, or says all that is missing and the line to add for each."""

import itertools
from pathlib import Path

import mujoco
import numpy as np

from simscaleai_jax.core.config import load_yaml
from simscaleai_jax.core.errors import suggest
from simscaleai_jax.sim.robot.description import PADS, Needs, Robot, RobotNames
from simscaleai_jax.sim.robot.extent import geoms_of, half_size
from simscaleai_jax.sim.robot.gripper import Gripper, drives, find_gripper
from simscaleai_jax.sim.robot.models import home_data, table_surface

FULL_ORIENTATION = 6  # joints from which on an arm can hold its whole orientation
HOME = "home"  # the keyframe that an arm starts from
POSE_SLACK = 1e-3  # rad or m that a start pose may lie outside a joint's range
TOUCH_DIM = 4  # numbers of a contact sensor with data="found force"
FREE, HINGE, SLIDE = (int(getattr(mujoco.mjtJoint, f"mjJNT_{kind}")) for kind in ("FREE", "HINGE", "SLIDE"))


def read_names(xml_path: str) -> RobotNames:
    """What `arm.robot.yaml` beside `arm.xml` says; without one what is usual."""
    path = Path(xml_path).with_suffix(".robot.yaml")
    return load_yaml(path, RobotNames) if path.is_file() else RobotNames()


def find_robot(model: mujoco.MjModel, needs: Needs | None = None, names: RobotNames | None = None) -> Robot:
    """Resolve every id a task needs.

    Args:
      model: the compiled scene. Needed: a site at the tool centre (`ee_site`) at the end of a chain of joints that
        turn or slide, each driven by a position servo. A keyframe `home` and a mocap body `table` are used where they
        exist.
      needs: parts that the task cannot do without, one target by default.
      names: what the model's names do not say.

    Raises:
      ValueError: lists everything that is missing, each with the line to add.
    """
    needs, names = needs or Needs(), names or RobotNames()
    missing: list[str] = []
    site = _id(model, mujoco.mjtObj.mjOBJ_SITE, names.tool)
    if site < 0:
        missing.append(f"site '{names.tool}' at the tool centre (add <site name=\"{names.tool}\"/> to the last link)")
    joints = _chain(model, site, missing) if site >= 0 else []
    if site >= 0 and not joints:
        missing.append(f"joints between the world and '{names.tool}' (add a <joint/> to each link)")
    actuators = _arm_actuators(model, joints, missing)
    gripper = find_gripper(model, joints, names, needs, missing)
    targets = _targets(model, names, needs, missing)
    objects = _objects(model, names, needs, missing)
    sensors = _touch(model, objects, needs, missing)
    table = _id(model, mujoco.mjtObj.mjOBJ_BODY, names.table)
    if table < 0 and names.table != RobotNames.table:
        missing.append(
            f'body \'{names.table}\' for the table (add <body name="{names.table}" mocap="true"> with a box)'
        )
    if missing:
        raise ValueError("the MJCF model lacks: " + "; ".join(missing))
    held = (0, 1, 2) if len(joints) >= FULL_ORIENTATION else ()
    held = held if names.held_axes is None else tuple(names.held_axes)
    return _build(model, site, joints, actuators, held, gripper, targets, table, objects, sensors)


def _id(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str) -> int:
    return mujoco.mj_name2id(model, kind, name)


def _chain(model: mujoco.MjModel, site: int, missing: list[str]) -> list[int]:
    """Joints from the base to the site, all of which have to turn or slide."""
    joints: list[int] = []
    body = model.site_bodyid[site]
    while body > 0:
        first, count = model.body_jntadr[body], model.body_jntnum[body]
        joints = [*range(first, first + count), *joints]
        body = model.body_parentid[body]
    for joint in joints:
        body = model.body(model.jnt_bodyid[joint]).name
        if model.jnt_type[joint] == FREE:
            missing.append(f"a base that stands still: body '{body}' below the arm is free (take its <freejoint/> out)")
        elif model.jnt_type[joint] not in (HINGE, SLIDE):
            missing.append(f"hinges in place of the ball joint of body '{body}' (write three <joint type=\"hinge\"/>)")
    return [joint for joint in joints if model.jnt_type[joint] in (HINGE, SLIDE)]


def _arm_actuators(model: mujoco.MjModel, joints: list[int], missing: list[str]) -> list[int]:
    """The position servo of each joint; what is wrong with the others."""
    found, bare, odd = [], [], []
    for joint in joints:
        name = model.joint(joint).name or f"#{joint}"
        servos = [a for a in range(model.nu) if model.actuator_biasprm[a, 1] < 0.0 and drives(model, a, [joint])]
        reasons = [why_no_servo(model, a) for a in servos]
        good = [a for a, reason in zip(servos, reasons, strict=True) if not reason]
        found.append(good[0] if good else -1)
        if not good:
            (odd if servos else bare).append(f"{name} ({reasons[0]})" if servos else name)
    if bare:
        missing.append(
            f'position actuators for the arm joints {", ".join(bare)} (add <position joint="{bare[0]}" kp="..."/>)'
        )
    if odd:
        missing.append(
            f"actuators whose control is the angle of the arm joints {'; '.join(odd)} (write <position joint=.../>)"
        )
    return found


def why_no_servo(model: mujoco.MjModel, actuator: int) -> str:
    """Why an actuator's control is not the position that its joint goes to; "" where it is."""
    gain, bias, gear = (getattr(model, f"actuator_{name}")[actuator] for name in ("gainprm", "biasprm", "gear"))
    if model.actuator_trntype[actuator] == mujoco.mjtTrn.mjTRN_TENDON and not _is_one_joint(model, actuator):
        return "it pulls a tendon of several joints, or one with a coefficient"
    kinds = model.actuator_gaintype[actuator], model.actuator_biastype[actuator]
    if kinds != (mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE):
        return "its gaintype and biastype are not fixed and affine"
    if model.actuator_dyntype[actuator] != mujoco.mjtDyn.mjDYN_NONE:
        return "it has a state of its own: intvelocity, filter or integrator"
    if abs(gear[0] - 1.0) > 1e-6:
        return f"gear is {gear[0]:g}, wanted 1"
    if abs(gain[0] + bias[1]) > 1e-6 * abs(gain[0]) or bias[0] != 0.0:
        return f"gainprm {gain[0]:g} unlike biasprm {bias[0]:g} {bias[1]:g}"
    return ""


def _is_one_joint(model: mujoco.MjModel, actuator: int) -> bool:
    """Whether an actuator's tendon is as long as one joint's position."""
    tendon = model.actuator_trnid[actuator, 0]
    wrap = model.tendon_adr[tendon]
    return model.tendon_num[tendon] == 1 and model.wrap_prm[wrap] == 1.0


def _targets(model: mujoco.MjModel, names: RobotNames, needs: Needs, missing: list[str]) -> list[int]:
    """Mocap ids of the targets."""
    bodies = [_id(model, mujoco.mjtObj.mjOBJ_BODY, name) for name in names.targets] or _named(model, "target")
    found = [b for b in bodies if b >= 0 and model.body_mocapid[b] >= 0]
    for name in _lacking(model, found, names.targets, "target", needs.targets):
        is_there = _id(model, mujoco.mjtObj.mjOBJ_BODY, name) >= 0
        add = f"mocap=\"true\" to body '{name}'" if is_there else f'<body name="{name}" mocap="true"/> to the world'
        missing.append(f"body '{name}' with mocap='true' (add {add})")
    return [int(model.body_mocapid[b]) for b in found]


def _objects(model: mujoco.MjModel, names: RobotNames, needs: Needs, missing: list[str]) -> list[int]:
    """Bodies that move freely."""
    if not needs.objects and not names.objects:
        return []
    bodies = [_id(model, mujoco.mjtObj.mjOBJ_BODY, name) for name in names.objects] or _named(model, "object")
    found = [b for b in bodies if b >= 0 and _is_free(model, b)]
    for name in _lacking(model, found, names.objects, "object", needs.objects):
        is_there = _id(model, mujoco.mjtObj.mjOBJ_BODY, name) >= 0
        whole = f'<body name="{name}"><freejoint/><geom .../></body> to the world'
        add = f"<freejoint/> to body '{name}', its only joint" if is_there else whole
        missing.append(f"body '{name}' with a freejoint (add {add})")
    bare = [model.body(body).name for body in found if not geoms_of(model, body)]
    missing += [f"a geom of body '{name}' (add <geom .../> to it)" for name in bare]
    return found


def _lacking(model: mujoco.MjModel, found: list[int], given: tuple[str, ...], prefix: str, count: int) -> list[str]:
    """Names of the bodies that are not among those `found`: of those `given`, and as many as make `count`."""
    there = {model.body(body).name for body in found}
    lacking = [name for name in given if name not in there]
    free = (name for number in itertools.count() if (name := _numbered(prefix, number)) not in {*there, *lacking})
    return lacking + list(itertools.islice(free, max(0, count - len(found) - len(lacking))))


def _is_free(model: mujoco.MjModel, body: int) -> bool:
    return model.body_jntnum[body] == 1 and model.jnt_type[model.body_jntadr[body]] == FREE


def _named(model: mujoco.MjModel, prefix: str) -> list[int]:
    """Bodies named `prefix`, `prefix2`, ... in the order of the model."""
    names = [model.body(b).name for b in range(model.nbody)]
    return [b for b, name in enumerate(names) if name == prefix or name.removeprefix(prefix).isdigit()]


def _numbered(prefix: str, number: int) -> str:
    return prefix if number == 0 else f"{prefix}{number + 1}"


def _touch(model: mujoco.MjModel, objects: list[int], needs: Needs, missing: list[str]) -> np.ndarray:
    """Addresses of the contact sensors: `left_touch` for the first object, `left_touch_object2` for `object2`."""
    count = max(len(objects), 1 if needs.touch else 0)
    addresses = np.full((count, len(PADS), TOUCH_DIM), -1)
    for number in range(count):
        suffix = "" if number == 0 else f"_{model.body(objects[number]).name}"
        for i, pad in enumerate(PADS):
            name = f"{pad}_touch{suffix}"
            sensor = _id(model, mujoco.mjtObj.mjOBJ_SENSOR, name)
            if sensor >= 0 and model.sensor_dim[sensor] == TOUCH_DIM:
                addresses[number, i] = model.sensor_adr[sensor] + np.arange(TOUCH_DIM)
            elif number == 0 and needs.touch:
                missing.append(
                    f"contact sensor '{name}' between the {pad} pad and the object with data='found force' "
                    f'(add <contact name="{name}" geom1=... geom2=... data="found force" reduce="maxforce"/>)'
                )
    return addresses[: len(objects)]


def _build(
    model: mujoco.MjModel,
    site: int,
    joints: list[int],
    actuators: list[int],
    held: tuple[int, ...],
    gripper: Gripper,
    targets: list[int],
    table: int,
    objects: list[int],
    sensors: np.ndarray,
) -> Robot:
    data = home_data(model)
    slides = [] if len(gripper.tips) else np.flatnonzero(np.isin(model.jnt_qposadr, gripper.qpos)).tolist()
    _check_start_pose(model, data.qpos, [*joints, *slides])
    if _id(model, mujoco.mjtObj.mjOBJ_KEY, "home") < 0:
        data.ctrl[actuators] = data.qpos[model.jnt_qposadr[joints]]
    free = [model.body_jntadr[body] for body in objects]
    extents = np.array([half_size(model, body) for body in objects]).reshape(-1, 3)
    return Robot(
        model=model,
        joints=np.array(joints),
        joint_qpos=model.jnt_qposadr[joints],
        joint_dof=model.jnt_dofadr[joints],
        joint_slides=model.jnt_type[joints] == SLIDE,
        joint_range=_joint_range(model, joints, actuators),
        arm_actuators=np.array(actuators),
        held_axes=held,
        gripper_actuators=gripper.actuators,
        gripper_range=gripper.controls,
        finger_qpos=gripper.qpos,
        finger_pos=gripper.positions,
        finger_range=gripper.opening,
        tip_sites=gripper.tips,
        ee_site=site,
        target_mocaps=np.array(targets, int),
        table_mocap=int(model.body_mocapid[table]) if table >= 0 else -1,
        table_top=table_surface(model, table),
        table_height=_table_height(model, table, data.xpos, objects, extents),
        object_body=np.array(objects, int),
        object_qpos=np.array([model.jnt_qposadr[j] + np.arange(7) for j in free], int).reshape(-1, 7),
        object_dof=np.array([model.jnt_dofadr[j] + np.arange(6) for j in free], int).reshape(-1, 6),
        object_half_size=extents,
        touch_sensor=sensors,
        home_qpos=data.qpos.copy(),
        home_ctrl=data.ctrl.copy(),
        home_ee_pos=data.site_xpos[site].copy(),
        home_ee_mat=data.site_xmat[site].reshape(3, 3).copy(),
        mocap_pos=data.mocap_pos.copy(),
        mocap_quat=data.mocap_quat.copy(),
    )


def _check_start_pose(model: mujoco.MjModel, qpos: np.ndarray, joints: list[int]) -> None:
    """ValueError where the start pose puts a joint outside its range, with what to do about it."""
    wrong = []
    for joint in joints:
        value, (low, high) = qpos[model.jnt_qposadr[joint]], model.jnt_range[joint]
        if model.jnt_limited[joint] and not low - POSE_SLACK <= value <= high + POSE_SLACK:
            wrong.append(f"{model.joint(joint).name or f'#{joint}'} at {value:.4g} outside {low:.4g}..{high:.4g}")
    if not wrong:
        return
    keys = [model.key(number).name for number in range(model.nkey)]
    if HOME in keys:
        advice = f"mend the keyframe {HOME!r}"
    else:
        there = f"; the scene's keyframes are {', '.join(map(repr, keys))}.{suggest(HOME, keys)}" if keys else ""
        advice = f"give the scene a keyframe named {HOME!r} with a pose that the arm can hold{there}"
    raise ValueError(f"the start pose violates the range of joint {', of joint '.join(wrong)}: {advice}")


def _joint_range(model: mujoco.MjModel, joints: list[int], actuators: list[int]) -> np.ndarray:
    """Joint limits within the control ranges; a joint without either may turn once either way."""
    limited = model.jnt_limited[joints].astype(bool)[:, None]
    of_joint = np.where(limited, model.jnt_range[joints], np.array([-np.pi, np.pi]))
    has_range = model.actuator_ctrllimited[actuators].astype(bool)[:, None]
    of_control = np.where(has_range, model.actuator_ctrlrange[actuators], of_joint)
    low, high = np.maximum(of_joint[:, 0], of_control[:, 0]), np.minimum(of_joint[:, 1], of_control[:, 1])
    return np.stack([low, high], axis=1)


def _table_height(
    model: mujoco.MjModel, table: int, xpos: np.ndarray, objects: list[int], extents: np.ndarray
) -> float:
    """Top of the table; without one, where the lowest object rests, else 0."""
    if table >= 0:
        return float(xpos[table, 2]) + table_surface(model, table)
    return float(np.min(xpos[objects, 2] - extents[:, 2])) if objects else 0.0
