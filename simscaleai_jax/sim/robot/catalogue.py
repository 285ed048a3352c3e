"""The arms there are, by name."""

from simscaleai_jax.sim.robot.arms import Arm, Finger

PANDA_HOME = {
    "joint1": 0.0, "joint2": 0.0, "joint3": 0.0, "joint4": -1.9, "joint5": 0.0, "joint6": 1.9, "joint7": 0.785,
}  # fmt: skip


def _panda_finger(body: str) -> Finger:
    return Finger(body, (0.0, 0.0, 0.0445), pad_pos=(0.0, 0.004, 0.0445), pad_size=(0.0085, 0.004, 0.0085))


ARMS = {
    "panda_menagerie": Arm(
        "Franka Panda",
        ("franka_emika_panda/panda.xml",),
        "panda_mj_description",
        tool_body="hand",
        tool_pos=(0.0, 0.0, 0.1034),
        home=PANDA_HOME,
        workspace_low=(0.4, -0.2, 0.02),
        workspace_high=(0.65, 0.2, 0.3),
        fingers=(_panda_finger("left_finger"), _panda_finger("right_finger")),
        gains={
            **{f"actuator{number}": (1350.0, 135.0) for number in (1, 2)},
            **{f"actuator{number}": (1050.0, 105.0) for number in (3, 4)},
            **{f"actuator{number}": (600.0, 60.0) for number in (5, 6, 7)},
        },
    ),
    "so101": Arm(
        "SO-101",
        ("robotstudio_so101/so101.xml", "so101_new_calib.xml"),
        "so_arm101_mj_description",
        tool_body="gripper",
        tool_pos=(0.013, 0.0, -0.0972),
        tool_quat=(0.0, 1.0, 0.0, 0.0),
        home={"shoulder_pan": 0.0, "shoulder_lift": -0.14, "elbow_flex": 0.18, "wrist_flex": 1.52, "wrist_roll": 0.0},
        workspace_low=(0.16, -0.1, 0.0125),
        workspace_high=(0.25, 0.1, 0.075),
        fingers=(
            Finger("gripper", (-0.0015, -0.0002, -0.0972), "fixed_jaw_pad"),
            Finger("moving_jaw_so101_v1", (-0.0078, -0.0762, 0.0189), "moving_jaw_pad"),
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
}  # fmt: skip
