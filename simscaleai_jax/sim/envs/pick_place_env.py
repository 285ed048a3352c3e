"""The documented pick-and-place environment on host physics."""

from simscaleai_jax.sim.envs.task_env import TaskEnv


class PickPlaceEnv(TaskEnv):
    """Grasp a cube, lift it and bring it to a target on the table or above it; friction alone holds the cube.

    Observation: joint_pos (7,) rad, joint_vel (7,) rad/s, ee_pos (3,) m, object_pos (3,) m, object_quat (4,) wxyz,
    target_pos (3,) m, gripper_state (1,) opening of one finger in m, image (H, W, 3) uint8 with a camera. Action:
    end-effector step (3,) in units of 0.05 m, gripper (-1 closed, +1 open). Info: step, reach_dist, place_dist (m),
    grasped, lifted, success (lifted, within 5 cm, slower than 0.1 m/s), success_strict (the same within 2 cm),
    failed (the cube left the workspace), assisted (the episode began eased, see PickPlaceConfig). With
    `relative_observations=True` the observation has five keys more (PickPlaceConfig names them).
    """

    task_name = "pick_place"
