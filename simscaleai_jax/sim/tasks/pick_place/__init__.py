"""Pick and place: the task, its settings, its stages, its curriculum and its expert."""

INSTRUCTIONS = (
    "pick up the red cube and bring it to the target",
    "move the cube to the target",
    "grasp the block and move it to the goal",
    "lift the cube and carry it to the green ball",
    "take the object to the target position",
    "move the block to the marked spot",
)
