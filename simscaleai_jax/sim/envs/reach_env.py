"""The documented reach environment on host physics."""

from simscaleai_jax.sim.envs.task_env import TaskEnv


class ReachEnv(TaskEnv):
    """Bring the end effector to a target point.

    Observation: joint_pos (7,) rad, joint_vel (7,) rad/s, ee_pos (3,) m, target_pos (3,) m, image (H, W, 3) uint8
    with a camera. Action: end-effector step (3,) in units of 0.05 m, gripper. Info: step, distance, success (within
    5 cm).
    """

    task_name = "reach"
