"""Stack: the task, its settings and its expert."""

INSTRUCTIONS = (
    "stack the red cube on the blue cube",
    "put the red block on the blue one",
    "place the red cube on top of the blue cube",
    "build a tower of two cubes",
    "pick up the red cube and set it down on the blue one",
    "stack the blocks",
)
