"""One description for any arm: joint counts, slides, jaws, linkages, tendons, none; and what a model lacks."""

import re
from types import SimpleNamespace

import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from simscaleai_jax.sim import make_env
from simscaleai_jax.sim.physics.state import KINEMATICS_FIELDS
from simscaleai_jax.sim.robot import PICKING, Needs, RobotNames, find_robot, load_model, read_names
from simscaleai_jax.sim.robot.ik import solve_poses
from simscaleai_jax.sim.tasks.snapshot import make_snapshot

AXES = ("0 0 1", "0 1 0", "0 1 0", "0 1 0", "0 0 1", "0 1 0", "0 0 1")
HOME = (0.1, 0.5, 0.9, 0.6, 0.1, 0.4, 0.1)

JAW = (
    '<body pos="0 0 .04"><joint name="jaw" axis="-1 0 0" range="0 1"/>'
    '<geom type="box" size=".01 .005 .03" pos="0 .01 .03"/><site name="right_tip" pos="0 .005 .06"/></body>'
    '<site name="left_tip" pos="0 -.005 .1"/>'
)
SLIDES = "".join(
    f'<body pos="0 0 .08"><joint name="finger{i}" type="slide" axis="0 {1 - 2 * i} 0" range="0 .04"/>'
    '<geom type="box" size=".01 .005 .02" pos="0 0 .02"/></body>'
    for i in (0, 1)
)
LINKAGE = "".join(
    f'<body pos="0 {s * 0.03} .04"><joint name="driver{s}" axis="{s} 0 0" range="-.4 .6"/>'
    f'<geom type="box" size=".01 .004 .03" pos="0 0 .03"/><site name="{tip}_tip" pos="0 0 .06"/></body>'
    for s, tip in ((1, "left"), (-1, "right"))
)
HANDS = {
    "none": ("", "", ""),
    "jaw": (JAW, '<position joint="jaw" kp="20" kv="2" ctrlrange="0 1"/>', ""),
    "slides": (SLIDES, "".join(f'<position joint="finger{i}" kp="200" kv="5" ctrlrange="0 .04"/>' for i in (0, 1)), ""),
    "tendon": (
        LINKAGE,
        '<general tendon="both" ctrlrange="0 255" gainprm="-.0784" biasprm="12 -20 -2" biastype="affine"/>',
        '<tendon><fixed name="both"><joint joint="driver1" coef=".5"/><joint joint="driver-1" coef=".5"/></fixed>'
        "</tendon>"
        '<equality><joint joint1="driver1" joint2="driver-1"/></equality>',
    ),
}


def arm(count, hand="none", actuators=None, own_hand=True):
    """A model with `count` joints in a chain of 0.2 m links."""
    inside, hand_actuators, rest = HANDS[hand]
    body = f'<site name="ee_site" pos="0 0 .1"/>{inside}'
    for i in reversed(range(count)):
        body = (
            f'<body gravcomp="1" pos="0 0 {0.2 if i else 0.1}"><joint name="j{i}" axis="{AXES[i]}" range="-2.5 2.5" '
            f'armature=".1" damping="1"/><geom type="capsule" size=".03" fromto="0 0 0 0 0 .18"/>{body}</body>'
        )
    servos = "".join(f'<position joint="j{i}" kp="1000" kv="100" ctrlrange="-2 2"/>' for i in range(count))
    home = " ".join(map(str, HOME[:count]))
    fingers = " 0" * len(re.findall("<joint name=.(?:jaw|finger|driver)", inside))
    return mujoco.MjModel.from_xml_string(
        f"""<mujoco><compiler angle="radian"/><option integrator="implicitfast"/>
        <default><geom contype="0" conaffinity="0"/></default>
        <worldbody>{body}<body name="target" mocap="true"/></worldbody>
        <actuator>{servos if actuators is None else actuators}{hand_actuators * own_hand}</actuator>{rest}
        <keyframe><key name="home" qpos="{home}{fingers}"/></keyframe></mujoco>"""
    )


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7])
def test_arms_have_any_number_of_joints(count):
    robot = find_robot(arm(count))
    assert len(robot.joints) == len(robot.arm_actuators) == count
    assert robot.held_axes == ((0, 1, 2) if count >= 6 else ())
    assert not robot.has_gripper
    np.testing.assert_allclose(robot.joint_range, [[-2.0, 2.0]] * count)  # within the control ranges


def test_an_arm_of_five_joints_reaches_what_it_can_by_position_alone():
    """The full home orientation is more than five joints can hold."""
    robot, random = find_robot(arm(5)), np.random.default_rng(0)
    near = robot.home_ee_pos + random.uniform(-0.1, 0.1, (40, 3))
    assert np.sum(solve_poses(robot, near)[1] < 2e-3) == 40
    full = find_robot(arm(5), names=RobotNames(held_axes=(0, 1, 2)))
    assert np.sum(solve_poses(full, near)[1] < 2e-3) < 20


def test_one_held_axis_lets_the_tool_turn_about_itself():
    robot, random = find_robot(arm(6), names=RobotNames(held_axes=(2,))), np.random.default_rng(1)
    data = mujoco.MjData(robot.model)
    joints, misses = solve_poses(robot, robot.home_ee_pos + random.uniform(-0.05, 0.05, (10, 3)))
    assert misses.max() < 2e-3
    for angles in joints:
        data.qpos[robot.joint_qpos] = angles
        mujoco.mj_kinematics(robot.model, data)
        approach = data.site_xmat[robot.ee_site].reshape(3, 3)[:, 2]
        assert approach @ robot.home_ee_mat[:, 2] > 0.999


@pytest.mark.parametrize(("hand", "opened"), [("jaw", 0.03), ("slides", 0.04), ("tendon", 0.04)])
def test_the_opening_of_any_gripper_is_in_metres(hand, opened):
    robot = find_robot(arm(6, hand), Needs(gripper=True))
    low, high = robot.finger_range
    assert low < 0.012
    assert high > low + 0.02
    assert high == pytest.approx(opened, abs=0.015)
    for opening, column in ((low, 0), (high, 1)):
        start = robot.start(opening=float(opening))
        np.testing.assert_allclose(start.qpos[robot.finger_qpos], robot.finger_pos[:, column], atol=1e-6)
    data = mujoco.MjData(robot.model)
    data.qpos[:] = robot.start(opening=float(high)).qpos
    mujoco.mj_kinematics(robot.model, data)
    if len(robot.tip_sites):
        left, right = data.site_xpos[robot.tip_sites]
        assert 0.5 * np.linalg.norm(left - right) == pytest.approx(high, abs=1e-4)


def test_a_gripper_that_opens_backwards_is_told_so():
    hand = HANDS["jaw"][1].replace("<position", '<position name="squeeze"')
    servos = "".join(f'<position joint="j{i}" kp="1000" kv="100"/>' for i in range(6))
    model = arm(6, "jaw", actuators=servos + hand, own_hand=False)
    names = RobotNames(gripper=("squeeze",), closed=(1.0,), opened=(0.0,))
    with pytest.raises(ValueError, match=r"a gripper that opens: its fingertips are .*swap `closed` and `opened`"):
        find_robot(model, names=names)
    with pytest.raises(ValueError, match="the gripper's actuators squeze, which the robot's description names"):
        find_robot(model, names=RobotNames(gripper=("squeze",)))


@pytest.mark.parametrize(
    ("servo", "reason"),
    [
        ('<position joint="j2" kp="100" gear="5"/>', "gear is 5, wanted 1"),
        ('<intvelocity joint="j2" kp="100" actrange="-1 1"/>', "it has a state of its own"),
        ('<position joint="j2" kp="100" timeconst=".1"/>', "it has a state of its own"),
        (
            '<general joint="j2" gainprm="50" biasprm="0 -100 -10" biastype="affine"/>',
            "gainprm 50 unlike biasprm 0 -100",
        ),
        ('<general joint="j2" gainprm="50" biasprm="7 -50 -10" biastype="affine"/>', "gainprm 50 unlike biasprm 7 -50"),
        ('<general joint="j2" gainprm="50" biasprm="0 -50"/>', "its gaintype and biastype are not fixed and affine"),
        ('<position tendon="half" kp="100"/>', "it pulls a tendon of several joints, or one with a coefficient"),
    ],
)
def test_actuators_whose_control_is_no_angle_are_refused(servo, reason):
    servos = "".join(f'<position joint="j{i}" kp="100"/>' for i in (0, 1, 3, 4, 5))
    servos += '</actuator><tendon><fixed name="half"><joint joint="j2" coef=".5"/></fixed></tendon><actuator>'
    with pytest.raises(ValueError, match=rf"control is the angle of the arm joints j2 \({reason}") as error:
        find_robot(arm(6, actuators=servo + servos))
    assert "<position joint=" in str(error.value)


def test_many_objects_and_targets():
    world = "".join(
        f'<body name="object{i or ""}" pos="1 0 {i}"><freejoint/><geom size=".02"/></body>' for i in (0, *range(2, 9))
    )
    robot = find_robot(mujoco.MjModel.from_xml_string(_bare(world)), Needs(objects=8, targets=2))
    assert robot.object_qpos.shape == (8, 7)
    assert robot.touch_sensor.shape == (8, 2, 4)
    assert (robot.touch_sensor == -1).all()
    assert len(robot.target_mocaps) == 2
    with pytest.raises(ValueError, match=r"body 'object9' with a freejoint \(add .*body 'object10'") as error:
        find_robot(robot.model, Needs(objects=10, targets=3))
    assert "body 'target3' with mocap='true' (add <body name=\"target3\" mocap=\"true\"/>" in str(error.value)


def _bare(world):
    return (
        '<mujoco><worldbody><body><joint name="a"/><geom size=".1"/><site name="ee_site"/></body>'
        f'<body name="target" mocap="true"/><body name="target2" mocap="true"/>{world}</worldbody>'
        '<actuator><position joint="a" kp="1"/></actuator></mujoco>'
    )


def test_everything_that_picking_lacks_comes_with_the_line_to_add():
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='.1'/></worldbody></mujoco>")
    with pytest.raises(ValueError, match="the MJCF model lacks") as error:
        find_robot(model, PICKING)
    parts = str(error.value).split("; ")
    assert len(parts) == 6
    assert all("(add <" in part or "(add two <" in part for part in parts)


INNER = '<geom size=".1"/><body pos="1 0 0">'  # the arm's joint on a body of its own


@pytest.mark.parametrize(
    ("change", "to", "said"),
    [
        ('<body name="target" mocap="true"/>', '<body name="target"/>', "(add mocap=\"true\" to body 'target')"),
        ("<freejoint/>", "", "(add <freejoint/> to body 'object', its only joint)"),
        ('<geom size=".02"/>', "", "a geom of body 'object' (add <geom .../> to it)"),
        ('<body name="arm">', '<body name="arm"><freejoint/>' + INNER, "body 'arm' below the arm is free"),
        ('<body name="arm">', '<body name="arm"><joint type="ball"/>' + INNER, "the ball joint of body 'arm'"),
    ],
)
def test_a_part_that_is_there_but_wrong_is_said_how_to_mend(change, to, said):
    world = '<body name="object" pos="1 0 0"><freejoint/><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>{}</body>'
    xml = _bare(world.format('<geom size=".02"/>')).replace("<worldbody><body>", '<worldbody><body name="arm">')
    if INNER in to:
        xml = xml.replace('<body name="target"', '</body><body name="target"', 1)
    changed = xml.replace(change, to)
    assert changed != xml
    with pytest.raises(ValueError, match=re.escape(said)):
        find_robot(mujoco.MjModel.from_xml_string(changed), Needs(objects=1, targets=2))


def test_parts_that_yaml_names_are_said_to_be_missing():
    model = mujoco.MjModel.from_xml_string(_bare(""))
    names = RobotNames(targets=("goal",), objects=("mug",), table="bench", gripper=("squeeze",))
    with pytest.raises(ValueError, match="the MJCF model lacks") as error:
        find_robot(model, names=names)
    for part in ("body 'goal' with mocap", "body 'mug' with a freejoint", "body 'bench' for the table", "squeeze"):
        assert part in str(error.value)
    assert len(str(error.value).split("; ")) == 4


def test_a_few_lines_beside_the_model_say_what_its_names_do_not(tmp_path):
    xml = _bare("").replace("ee_site", "flange").replace('name="target"', 'name="goal"')
    (tmp_path / "arm.xml").write_text(xml)
    (tmp_path / "arm.robot.yaml").write_text("tool: flange\ntargets: [goal]\nheld_axes: [2]\n")
    robot = find_robot(load_model(str(tmp_path / "arm.xml"), 0.002), names=read_names(str(tmp_path / "arm.xml")))
    assert robot.held_axes == (2,)
    assert len(robot.target_mocaps) == 1
    (tmp_path / "arm.robot.yaml").write_text("tol: flange\n")
    with pytest.raises(ValueError, match="Did you mean 'tool'"):
        make_env("reach", cameras=[], xml_path=str(tmp_path / "arm.xml"))


def test_a_sliding_joint_of_the_arm_moves_the_tool_along_its_axis():
    joints = '<joint name="a" type="slide" axis="0 1 0"/><joint name="b" axis="0 0 1"/>'
    servos = '<position joint="a" kp="1"/><position joint="b" kp="1"/>'
    xml = _bare("").replace('<joint name="a"/>', joints).replace('<position joint="a" kp="1"/>', servos)
    robot = find_robot(mujoco.MjModel.from_xml_string(xml))
    data = mujoco.MjData(robot.model)
    data.qpos[:] = (0.1, 0.3)
    mujoco.mj_forward(robot.model, data)
    jac = np.zeros((6, robot.model.nv))
    mujoco.mj_jacSite(robot.model, data, jac[:3], jac[3:], robot.ee_site)
    fields = {name: jnp.asarray(getattr(data, name)) for name in KINEMATICS_FIELDS}
    np.testing.assert_allclose(make_snapshot(robot, SimpleNamespace(**fields)).ee_jac, jac, atol=1e-6)
