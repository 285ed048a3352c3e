"""The arms there are, by name."""

from simscaleai_jax.sim.robot.arms import Arm, Finger

PANDA_HOME = {
    "joint1": 0.0, "joint2": 0.0, "joint3": 0.0, "joint4": -1.9, "joint5": 0.0, "joint6": 1.9, "joint7": 0.785,
}  # fmt: skip


FRANKA_GAINS = {1: 1350.0, 2: 1350.0, 3: 1050.0, 4: 1050.0, 5: 600.0, 6: 600.0, 7: 600.0}  # Nm/rad, by joint


def _franka_gains(prefix: str) -> dict[str, tuple[float, float]]:
    return {f"{prefix}{number}": (kp, 0.1 * kp) for number, kp in FRANKA_GAINS.items()}


def _panda_fingers(prefix: str = "") -> tuple[Finger, Finger]:
    left, right = (
        Finger(prefix + body, (0.0, 0.0, 0.0445), pad_pos=(0.0, 0.004, 0.0445), pad_size=(0.0085, 0.004, 0.0085))
        for body in ("left_finger", "right_finger")
    )
    return left, right


def _aloha_finger(side: str, sign: float) -> Finger:
    """Along y in its body's frame."""
    return Finger(
        f"left/{side}_finger_link",
        (0.0177, sign * 0.0798, 0.0268),
        pad_pos=(0.0177, sign * 0.0798, 0.0228),
        pad_size=(0.008, 0.008, 0.004),
    )


ARMS = {
    "fr3": Arm(
        "Franka FR3 with the Panda's hand",
        ("franka_fr3/fr3.xml",),
        "fr3_mj_description",
        hand=("franka_emika_panda/hand.xml",),
        hand_site="attachment_site",
        tool_body="hand/hand",
        tool_pos=(0.0, 0.0, 0.1034),
        home={
            "fr3_joint1": 0.0, "fr3_joint2": 0.0, "fr3_joint3": 0.0, "fr3_joint4": -1.9, "fr3_joint5": 0.0,
            "fr3_joint6": 1.9, "fr3_joint7": 0.0,
        },
        workspace_low=(0.4, -0.2, 0.02),
        workspace_high=(0.65, 0.2, 0.3),
        fingers=_panda_fingers("hand/"),
        gains=_franka_gains("fr3_joint"),
    ),
    "panda_menagerie": Arm(
        "Franka Panda",
        ("franka_emika_panda/panda.xml",),
        "panda_mj_description",
        tool_body="hand",
        tool_pos=(0.0, 0.0, 0.1034),
        home=PANDA_HOME,
        workspace_low=(0.4, -0.2, 0.02),
        workspace_high=(0.65, 0.2, 0.3),
        fingers=_panda_fingers(),
        gains=_franka_gains("actuator"),
    ),
    "so100": Arm(
        "SO-100",
        ("trs_so_arm100/so_arm100.xml",),
        "so_arm100_mj_description",
        tool_body="Fixed_Jaw",
        tool_pos=(-0.0106, -0.0964, 0.0),
        tool_quat=(0.7071068, 0.7071068, 0.0, 0.0),
        home={"Rotation": 0.0, "Pitch": -1.998, "Elbow": 2.085, "Wrist_Pitch": 1.484, "Wrist_Roll": 0.0},
        base_quat=(0.7071068, 0.0, 0.0, 0.7071068),
        workspace_low=(0.16, -0.1, 0.0125),
        workspace_high=(0.25, 0.1, 0.075),
        fingers=(
            Finger("Fixed_Jaw", (0.0079, -0.0964, 0.0), pad_pos=(0.0109, -0.0964, 0.0), pad_size=(0.003, 0.008, 0.007)),
            Finger("Moving_Jaw", (-0.0123, -0.072, 0.0), pad_pos=(-0.0093, -0.072, 0.0),
                   pad_size=(0.003, 0.008, 0.007)),
        ),
        controls={"Jaw": (-0.2, 0.6)},
        held_axes=(2,),
        cube=0.0125,
    ),
    "so101": Arm(
        "SO-101",
        ("robotstudio_so101/so101.xml", "so101_new_calib.xml"),
        "so_arm101_mj_description",
        tool_body="gripper",
        tool_pos=(0.017, 0.0, -0.0972),
        tool_quat=(0.0, 1.0, 0.0, 0.0),
        home={"shoulder_pan": 0.0, "shoulder_lift": -0.14, "elbow_flex": 0.18, "wrist_flex": 1.52, "wrist_roll": 0.0},
        workspace_low=(0.16, -0.1, 0.0125),
        workspace_high=(0.25, 0.1, 0.075),
        fingers=(
            Finger("gripper", (-0.0015, -0.0002, -0.0972), pad_pos=(-0.00675, -0.0002, -0.0972),
                   pad_size=(0.00525, 0.008, 0.0072)),
            Finger("moving_jaw_so101_v1", (-0.0078, -0.0762, 0.0189), pad_pos=(-0.01233, -0.07625, 0.0189),
                   pad_quat=(0.68849, -0.68849, 0.1612, -0.1612), pad_size=(0.0045, 0.006, 0.0072)),
        ),
        controls={"gripper": (-0.17, 0.6)},
        held_axes=(2,),
        cube=0.0125,
    ),
    "ur5e_2f85": Arm(
        "UR5e with Robotiq 2F-85",
        ("universal_robots_ur5e/ur5e.xml",),
        "ur5e_mj_description",
        hand=("robotiq_2f85/2f85.xml",),
        hand_site="attachment_site",
        tool_body="hand/base",
        tool_pos=(0.0, 0.0, 0.145),
        home={
            "shoulder_pan_joint": -1.83, "shoulder_lift_joint": -1.509, "elbow_joint": 1.744,
            "wrist_1_joint": -1.806, "wrist_2_joint": -1.571, "wrist_3_joint": -0.258,
        },
        base_quat=(0.7071068, 0.0, 0.0, -0.7071068),
        workspace_low=(0.4, -0.2, 0.02),
        workspace_high=(0.65, 0.2, 0.3),
        fingers=(
            Finger("hand/left_pad", (0.0, -0.0066, 0.0281), "hand/left_pad1"),
            Finger("hand/right_pad", (0.0, -0.0066, 0.0281), "hand/right_pad1"),
        ),
        controls={"hand/fingers_actuator": (255.0, 0.0)},
        gains={"*": (2000.0, 200.0)},
    ),
    "vx300s": Arm(
        "ViperX 300 of ALOHA",
        ("aloha/aloha.xml",),
        "aloha_mj_description",
        tool_body="left/gripper_link",
        tool_pos=(0.136, 0.0, -0.0035),
        tool_quat=(0.7071068, 0.0, 0.7071068, 0.0),
        home={
            "left/waist": 0.0, "left/shoulder": -0.011, "left/elbow": 0.151, "left/forearm_roll": 0.0,
            "left/wrist_angle": 1.43, "left/wrist_rotate": 0.0,
        },
        base_pos=(0.469, 0.019, -0.02),
        workspace_low=(0.25, -0.15, 0.02),
        workspace_high=(0.45, 0.15, 0.25),
        fingers=(_aloha_finger("left", -1.0), _aloha_finger("right", 1.0)),
        controls={"left/gripper": (0.0077, 0.037)},
        without=("right/base_link",),
        cube=0.015,
    ),
    "xarm7": Arm(
        "xArm7",
        ("ufactory_xarm7/xarm7.xml",),
        "xarm7_mj_description",
        tool_body="xarm_gripper_base_link",
        tool_pos=(0.0, 0.0, 0.165),
        home={
            "joint1": 0.0, "joint2": -0.088, "joint3": 0.0, "joint4": 1.113, "joint5": 0.0, "joint6": 1.201,
            "joint7": 0.0,
        },
        base_pos=(0.0, 0.0, -0.12),
        workspace_low=(0.35, -0.2, 0.02),
        workspace_high=(0.55, 0.2, 0.3),
        fingers=(
            Finger("left_finger", (0.0, -0.026, 0.05), "left_finger_pad_2"),
            Finger("right_finger", (0.0, 0.026, 0.05), "right_finger_pad_2"),
        ),
        controls={"gripper": (255.0, 0.0)},
    ),
}  # fmt: skip
