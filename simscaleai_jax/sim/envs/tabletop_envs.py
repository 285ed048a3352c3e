"""Lift, push, stack and the tasks that are told what to do, on host physics. Spaces as `PickPlaceEnv`'s but where said;
docs/tasks.md has a table.
"""

from simscaleai_jax.sim.envs.task_env import TaskEnv


class LiftEnv(TaskEnv):
    """Grasp a cube and raise it.

    Info: step, reach_dist, height (m, of the cube's lowest corner), grasped, lifted, success (both pads hold it, at
    least LiftConfig.height above the table), failed (it left the workspace), assisted (the episode began eased).
    """

    task_name = "lift"


class PushEnv(TaskEnv):
    """Slide a cube to a goal on the table; the gripper stays closed, whatever the action's last number.

    Info: step, reach_dist, distance (m, of the cube to its goal), success (within 3 cm, slower than 0.1 m/s), failed
    (the cube left the workspace).
    """

    task_name = "push"


class StackEnv(TaskEnv):
    """Put one cube on another and let it go.

    Further observations: base_pos (3,) m, base_quat (4,) wxyz. Info: step, reach_dist, place_dist (m), grasped, lifted,
    stands (on the base, held or not), success (it stands, is free and slower than 0.1 m/s), failed (a cube left the
    workspace), assisted (the episode began eased).
    """

    task_name = "stack"


class ReachLanguageEnv(TaskEnv):
    """Touch the ball that the instruction names.

    Observations: joint_pos, joint_vel, ee_pos, balls_pos (9,) m, language (64,) token ids. Info: step, distance (m, to
    the right ball), goal, sentence (numbers), instruction, success (it was touched), failed (another one was).
    """

    task_name = "reach_language"


class PickPlaceLanguageEnv(TaskEnv):
    """Put the cube on the pad that the instruction names.

    Observations: joint_pos, joint_vel, ee_pos, gripper_state, cubes_pos (9,) m, cubes_quat (12,) wxyz, language (64,)
    token ids. Info: step, reach_dist, place_dist (m), grasped, lifted, goal, sentence (numbers), instruction, success
    (it rests there, free and slow), failed (another cube was lifted, the other pad was taken, a cube left the
    workspace).
    """

    task_name = "pick_place_language"
