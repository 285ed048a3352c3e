"""Names and ids: finds the arm, gripper, objects and sensors of a suitable MJCF, or says all that is missing."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from simscaleai_jax.core.errors import suggest, unknown_name
from simscaleai_jax.sim.config import CameraConfig

ARM_JOINTS = 7
PADS = ("left", "right")
HOME = "home"  # the keyframe that an arm starts from
POSE_SLACK = 1e-3  # rad or m that a start pose may lie outside a joint's range


@dataclasses.dataclass(frozen=True, eq=False)
class Robot:
    """Where a task's parts are inside MuJoCo's arrays. N objects, U actuators."""

    model: mujoco.MjModel  # for questions asked while a task is built; its functions never read it
    joints: np.ndarray  # (7,) joint ids along the chain from the base to `ee_site`
    joint_qpos: np.ndarray  # (7,)
    joint_dof: np.ndarray  # (7,)
    joint_range: np.ndarray  # (7, 2) rad
    arm_actuators: np.ndarray  # (7,) in the order of `joints`
    gripper_actuators: np.ndarray  # (1,) or (2,)
    gripper_range: np.ndarray  # (G, 2) control range, closed and open
    finger_qpos: np.ndarray  # (F,)
    finger_range: np.ndarray  # (2,) m
    ee_site: int
    target_mocap: int  # index into mocap_pos
    table_mocap: int  # index into mocap_pos, -1 without a table
    table_top: float  # m above the table body's origin
    table_height: float  # m, world height of the table's top in the model as given
    object_body: np.ndarray  # (N,)
    object_qpos: np.ndarray  # (N, 7)
    object_dof: np.ndarray  # (N, 6)
    object_geom: np.ndarray  # (N,) the first geom of each object
    object_half_size: np.ndarray  # (N, 3) m, half the box around that geom in its own frame
    touch_sensor: np.ndarray  # (N, 2, 4) addresses into sensordata
    home_qpos: np.ndarray  # (nq,)
    home_ctrl: np.ndarray  # (U,)
    home_ee_pos: np.ndarray  # (3,) m
    home_ee_mat: np.ndarray  # (3, 3)
    mocap_pos: np.ndarray  # (M, 3) m
    mocap_quat: np.ndarray  # (M, 4)


def pick(values: Any, index: np.ndarray) -> Any:
    """`values[index]` along the first axis; a run of neighbours is a slice, much cheaper under jit than a gather."""
    if not _is_run(index):
        return values[index]
    start = int(index.flat[0]) if index.size else 0
    return values[start : start + index.size].reshape(index.shape + values.shape[1:])


def place(values: Any, index: np.ndarray, new: Any) -> Any:
    """JAX `values` with `values[index]` replaced by `new`."""
    if not _is_run(index):
        return values.at[index].set(new)
    start = int(index.flat[0]) if index.size else 0
    return values.at[start : start + index.size].set(new)


def _is_run(index: np.ndarray) -> bool:
    return bool(np.all(np.diff(index.ravel()) == 1))


def load_model(path: str, dt: float) -> mujoco.MjModel:
    """Compile an MJCF file with physics step `dt` seconds.

    Raises:
      FileNotFoundError, OSError, ValueError: no such file, one that cannot be read, a folder or no MJCF; each names it.
    """
    if Path(path).is_dir():
        files = sorted(file.name for file in Path(path).glob("*.xml"))
        raise ValueError(f"wanted an MJCF file, got the folder {str(path)!r}; it holds {', '.join(files) or 'no .xml'}")
    try:
        with open(path, "rb"):
            pass
        spec = mujoco.MjSpec.from_file(str(path))
        spec.option.timestep = dt
        return spec.compile()
    except FileNotFoundError:
        raise FileNotFoundError(f"no MJCF file at {path!r}") from None
    except OSError as error:
        raise OSError(f"cannot read the MJCF file {str(path)!r}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path}: not a valid MJCF model: {error}") from error


def check_cameras(model: mujoco.MjModel, cameras: Sequence[CameraConfig]) -> None:
    """ValueError for a camera that the model does not have (the message lists those it has) and for one named twice."""
    names = [model.camera(i).name for i in range(model.ncam)]
    wanted = [camera.name for camera in cameras]
    for name in wanted:
        if name not in names:
            raise unknown_name("camera", name, names)
        if wanted.count(name) > 1:
            raise ValueError(f"camera {name!r} is configured twice; its pictures could not be told apart")


def find_robot(model: mujoco.MjModel, has_object: bool) -> Robot:
    """Resolve every id a task needs.

    Needed: a site `ee_site` at the end of a chain of 7 hinge joints with position actuators each (any names), finger
    slides below the last of them, the first with its range, and one or two further actuators with control ranges for
    these, a mocap body `target`; with `has_object` a free body `object` and contact sensors `left_touch` and
    `right_touch` with data="found force". A mocap body `table` and a keyframe `home` are used where they exist.

    Raises:
      ValueError: lists everything that is missing.
    """
    missing: list[str] = []
    site = _id(model, mujoco.mjtObj.mjOBJ_SITE, "ee_site")
    if site < 0:
        missing.append("site 'ee_site' at the tool centre")
    joints = _chain(model, site) if site >= 0 else []
    actuators = [_position_actuator(model, joint) for joint in joints]
    if site >= 0 and len(joints) != ARM_JOINTS:
        missing.append(f"{ARM_JOINTS} hinge joints between the world and 'ee_site' (found {len(joints)})")
    unactuated = [model.joint(j).name for j, a in zip(joints, actuators, strict=True) if a < 0]
    if unactuated:
        missing.append(f"position actuators for the arm joints {', '.join(unactuated)}")
    gripper, fingers = _find_gripper(model, joints, missing)
    target = _id(model, mujoco.mjtObj.mjOBJ_BODY, "target")
    if target < 0 or model.body_mocapid[target] < 0:
        missing.append("body 'target' with mocap='true'")
    objects, sensors = _find_objects(model, missing) if has_object else ([], np.zeros((0, 2, 4), int))
    if missing:
        raise ValueError("the MJCF model lacks: " + "; ".join(missing))
    return _build(model, site, joints, actuators, gripper, fingers, target, objects, sensors)


def _id(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str) -> int:
    return mujoco.mj_name2id(model, kind, name)


def _chain(model: mujoco.MjModel, site: int) -> list[int]:
    """Hinge joints from the base to the site."""
    joints: list[int] = []
    body = model.site_bodyid[site]
    while body > 0:
        first, count = model.body_jntadr[body], model.body_jntnum[body]
        joints = [j for j in range(first, first + count) if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_HINGE] + joints
        body = model.body_parentid[body]
    return joints


def _position_actuator(model: mujoco.MjModel, joint: int) -> int:
    for actuator in range(model.nu):
        is_position = model.actuator_biasprm[actuator, 1] < 0.0
        if is_position and _drives(model, actuator, [joint]):
            return actuator
    return -1


def _drives(model: mujoco.MjModel, actuator: int, joints: list[int]) -> bool:
    is_on_joint = model.actuator_trntype[actuator] == mujoco.mjtTrn.mjTRN_JOINT
    return bool(is_on_joint) and model.actuator_trnid[actuator, 0] in joints


def _find_gripper(model: mujoco.MjModel, joints: list[int], missing: list[str]) -> tuple[list[int], list[int]]:
    """Actuators that do not drive the arm, and the slide joints below its last link (all where there is no arm)."""
    gripper = [a for a in range(model.nu) if not _drives(model, a, joints)]
    link = model.jnt_bodyid[joints[-1]] if joints else 0
    slides = [j for j in range(model.njnt) if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_SLIDE]
    fingers = [j for j in slides if _is_below(model, model.jnt_bodyid[j], link)]
    if not gripper or not fingers:
        missing.append("a gripper: slide joints below the arm's last link and an actuator that moves them")
    elif joints:
        unlimited = [model.actuator(a).name or f"#{a}" for a in gripper if not model.actuator_ctrllimited[a]]
        if unlimited:
            missing.append(f"a ctrlrange from closed to open for the gripper's actuators {', '.join(unlimited)}")
        if not model.jnt_limited[fingers[0]]:
            missing.append(f"a range for the finger joint {model.joint(fingers[0]).name or f'#{fingers[0]}'}")
    return gripper, fingers


def _is_below(model: mujoco.MjModel, body: int, link: int) -> bool:
    while body > 0:
        body = model.body_parentid[body]
        if body == link:
            return True
    return False


def _find_objects(model: mujoco.MjModel, missing: list[str]) -> tuple[list[int], np.ndarray]:
    body = _id(model, mujoco.mjtObj.mjOBJ_BODY, "object")
    if (
        body < 0
        or model.body_jntnum[body] != 1
        or model.jnt_type[model.body_jntadr[body]] != mujoco.mjtJoint.mjJNT_FREE
    ):
        missing.append("body 'object' with a freejoint")
    addresses = np.zeros((1, len(PADS), 4), int)
    for i, pad in enumerate(PADS):
        sensor = _id(model, mujoco.mjtObj.mjOBJ_SENSOR, f"{pad}_touch")
        if sensor < 0 or model.sensor_dim[sensor] != 4:
            missing.append(f"contact sensor '{pad}_touch' between the {pad} pad and the object with data='found force'")
        else:
            addresses[0, i] = model.sensor_adr[sensor] + np.arange(4)
    return [body], addresses


def _build(model, site, joints, actuators, gripper, fingers, target, objects, sensors) -> Robot:
    data = home_data(model)
    _check_start_pose(model, data.qpos, [*joints, *fingers])
    if _id(model, mujoco.mjtObj.mjOBJ_KEY, "home") < 0:
        data.ctrl[actuators] = data.qpos[model.jnt_qposadr[joints]]
    table = _id(model, mujoco.mjtObj.mjOBJ_BODY, "table")
    free = [model.body_jntadr[body] for body in objects]
    geoms = model.body_geomadr[objects]
    return Robot(
        model=model,
        joints=np.array(joints),
        joint_qpos=model.jnt_qposadr[joints],
        joint_dof=model.jnt_dofadr[joints],
        joint_range=_joint_range(model, joints),
        arm_actuators=np.array(actuators),
        gripper_actuators=np.array(gripper),
        gripper_range=model.actuator_ctrlrange[gripper].copy(),
        finger_qpos=model.jnt_qposadr[fingers],
        finger_range=model.jnt_range[fingers[0]].copy(),
        ee_site=site,
        target_mocap=int(model.body_mocapid[target]),
        table_mocap=int(model.body_mocapid[table]) if table >= 0 else -1,
        table_top=table_surface(model, table),
        table_height=_table_height(model, table, data, geoms),
        object_body=np.array(objects, int),
        object_qpos=np.array([model.jnt_qposadr[j] + np.arange(7) for j in free], int).reshape(-1, 7),
        object_dof=np.array([model.jnt_dofadr[j] + np.arange(6) for j in free], int).reshape(-1, 6),
        object_geom=geoms,
        object_half_size=model.geom_aabb[geoms, 3:].copy(),
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


def _joint_range(model: mujoco.MjModel, joints: list[int]) -> np.ndarray:
    """Joint limits; a joint without them may turn once either way."""
    limited = model.jnt_limited[joints].astype(bool)[:, None]
    return np.where(limited, model.jnt_range[joints], np.array([-np.pi, np.pi]))


def _table_height(model: mujoco.MjModel, table: int, data: mujoco.MjData, geoms: np.ndarray) -> float:
    """Top of the table; without one, where the lowest object rests, else 0."""
    if table >= 0:
        return float(data.xpos[table, 2]) + table_surface(model, table)
    return float(np.min(data.geom_xpos[geoms, 2] - model.geom_aabb[geoms, 5], initial=np.inf)) if len(geoms) else 0.0


def home_data(model: mujoco.MjModel) -> mujoco.MjData:
    """The model at its keyframe `home`, or as it is written where there is none."""
    data = mujoco.MjData(model)
    home = _id(model, mujoco.mjtObj.mjOBJ_KEY, "home")
    if home >= 0:
        mujoco.mj_resetDataKeyframe(model, data, home)
    mujoco.mj_forward(model, data)
    return data


def table_surface(model: mujoco.MjModel, table: int) -> float:
    """Height of the table's highest box face above its body, 0 without boxes."""
    boxes = [
        g
        for g in range(model.ngeom)
        if table >= 0 and model.geom_bodyid[g] == table and model.geom_type[g] == mujoco.mjtGeom.mjGEOM_BOX
    ]
    return max((float(model.geom_pos[g, 2] + model.geom_size[g, 2]) for g in boxes), default=0.0)
