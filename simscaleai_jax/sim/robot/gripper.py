"""Finds a gripper: its actuators, their controls and the finger positions when closed and open, and how wide it opens.

Slides, jaws that turn, linkages and tendons alike: what is beyond the arm's last link is moved once to either end.
"""

import copy
import dataclasses

import mujoco
import numpy as np

from simscaleai_jax.sim.robot.description import Needs, RobotNames
from simscaleai_jax.sim.robot.models import home_data

TIPS = ("left_tip", "right_tip")
SETTLE_SECONDS = 3.0
HINGE, SLIDE = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)
JOINT_TRANSMISSIONS = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))


@dataclasses.dataclass(frozen=True, eq=False)
class Gripper:
    """Empty arrays where an arm has none; the fields are those of `Robot`."""

    actuators: np.ndarray
    controls: np.ndarray
    qpos: np.ndarray
    positions: np.ndarray
    opening: np.ndarray
    tips: np.ndarray


def find_gripper(
    model: mujoco.MjModel, joints: list[int], names: RobotNames, needs: Needs, missing: list[str]
) -> Gripper:
    """The gripper beyond the last of the arm's `joints`; what it lacks is added to `missing`."""
    fingers = _joints_below(model, model.jnt_bodyid[joints[-1]]) if joints else []
    given = [mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_ACTUATOR, name) for name in names.gripper]
    unknown = [name for name, actuator in zip(names.gripper, given, strict=True) if actuator < 0]
    if unknown:
        known = ", ".join(model.actuator(a).name for a in range(model.nu)) or "none"
        missing.append(
            f"the gripper's actuators {', '.join(unknown)}, which the robot's description names (write "
            f"`gripper: [...]` with some of the model's: {known})"
        )
    actuators = given or [a for a in range(model.nu) if drives(model, a, fingers)]
    if not actuators or not fingers or unknown:
        if needs.gripper and not unknown:
            missing.append(
                "a gripper: joints beyond the arm's last link and an actuator that moves them (add two "
                '<joint type="slide" range="0 0.04"/> and a <position ctrlrange="0 0.04" joint=.../> for each)'
            )
        none, nowhere = np.zeros(0, int), np.zeros((0, 2))
        return Gripper(none, nowhere, none, nowhere, np.zeros(2), none)
    tips = [mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, name) for name in names.fingertips or TIPS]
    before = len(missing)
    _check(model, actuators, fingers, tips, names, missing)
    controls = model.actuator_ctrlrange[actuators].copy()
    for column, values in ((0, names.closed), (1, names.opened)):
        controls[:, column] = values or controls[:, column]
    qpos = model.jnt_qposadr[fingers]
    if len(missing) > before:
        return Gripper(np.array(actuators), controls, qpos, np.zeros((len(fingers), 2)), np.zeros(2), np.zeros(0, int))
    if min(tips) < 0:
        opening = model.jnt_range[fingers[0]].copy()
        return Gripper(np.array(actuators), controls, qpos, model.jnt_range[fingers].copy(), opening, np.zeros(0, int))
    ends = [_settle(model, actuators, controls[:, column], qpos, tips) for column in (0, 1)]
    positions = np.stack([end[0] for end in ends], axis=1)
    opening = np.array([0.5 * end[1] for end in ends])
    if opening[0] > opening[1]:
        missing.append(
            f"a gripper that opens: its fingertips are {2 * opening[1]:.3f} m apart with the control that should open "
            f"it and {2 * opening[0]:.3f} m when closed (swap `closed` and `opened` of its description)"
        )
    return Gripper(np.array(actuators), controls, qpos, positions, opening, np.array(tips))


def drives(model: mujoco.MjModel, actuator: int, joints: list[int]) -> bool:
    """Whether an actuator moves one of the joints, by itself or through a tendon."""
    kind, target = model.actuator_trntype[actuator], model.actuator_trnid[actuator, 0]
    if kind in JOINT_TRANSMISSIONS:
        return target in joints
    if kind != mujoco.mjtTrn.mjTRN_TENDON:
        return False
    wraps = range(model.tendon_adr[target], model.tendon_adr[target] + model.tendon_num[target])
    return any(model.wrap_type[w] == mujoco.mjtWrap.mjWRAP_JOINT and model.wrap_objid[w] in joints for w in wraps)


def _joints_below(model: mujoco.MjModel, link: int) -> list[int]:
    """Joints that turn or slide on bodies beyond `link`."""
    return [
        j
        for j in range(model.njnt)
        if model.jnt_type[j] in (HINGE, SLIDE) and _is_below(model, model.jnt_bodyid[j], link)
    ]


def _is_below(model: mujoco.MjModel, body: int, link: int) -> bool:
    while body > 0:
        body = model.body_parentid[body]
        if body == link:
            return True
    return False


def _check(
    model: mujoco.MjModel,
    actuators: list[int],
    fingers: list[int],
    tips: list[int],
    names: RobotNames,
    missing: list[str],
) -> None:
    unlimited = [model.actuator(a).name or f"#{a}" for a in actuators if not model.actuator_ctrllimited[a]]
    if unlimited and not (names.closed and names.opened):
        missing.append(
            f"a ctrlrange from closed to open for the gripper's actuators {', '.join(unlimited)} "
            '(add ctrlrange="CLOSED OPEN" to each)'
        )
    first = model.joint(fingers[0]).name or f"#{fingers[0]}"
    if min(tips) >= 0:
        return
    if names.fingertips or any(model.jnt_type[j] != SLIDE for j in fingers):
        lacking = [name for name, tip in zip(names.fingertips or TIPS, tips, strict=True) if tip < 0]
        missing.append(
            f"fingertip sites {' and '.join(lacking)}, which a gripper with joints that turn needs (add "
            f"{' and '.join(f'<site name="{name}"/>' for name in lacking)} where each finger meets what it holds)"
        )
    elif not model.jnt_limited[fingers[0]]:
        missing.append(f'a range for the finger joint {first} (add range="0 0.04")')


def _settle(
    model: mujoco.MjModel, actuators: list[int], controls: np.ndarray, qpos: np.ndarray, tips: list[int]
) -> tuple[np.ndarray, float]:
    """Finger positions, and the distance (m) between the tips, once the gripper has followed `controls`."""
    still = copy.copy(model)
    still.opt.gravity[:] = 0.0
    still.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
    data = home_data(still)
    data.ctrl[actuators] = controls
    mujoco.mj_step(still, data, round(SETTLE_SECONDS / still.opt.timestep))
    mujoco.mj_kinematics(still, data)
    return data.qpos[qpos].copy(), float(np.linalg.norm(data.site_xpos[tips[0]] - data.site_xpos[tips[1]]))
