"""Instructions: several ways to say each task, one drawn per episode.

All of them are lower case, at most 64 characters, and use only the symbols that the VLA's tokenizer knows. They are
true of the scenes: the target is a green ball, the object a red cube, and half of the cube's targets hang in the air.
"""

from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.core.streams import Stream, host_random

_INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "reach": (
        "reach the target",
        "move the gripper to the target",
        "bring the hand to the green ball",
        "touch the target with the end effector",
        "go to the goal position",
        "move your hand to the marked point",
    ),
    "pick_place": (
        "pick up the red cube and bring it to the target",
        "move the cube to the target",
        "grasp the block and move it to the goal",
        "lift the cube and carry it to the green ball",
        "take the object to the target position",
        "move the block to the marked spot",
    ),
}


def register_instructions(env_name: str, instructions: tuple[str, ...] | list[str]) -> None:
    """Sets the instructions of a task of one's own (or replaces a built-in set).

    Raises:
      ValueError: no instruction, or an empty one.
    """
    if not instructions or not all(isinstance(text, str) and text.strip() for text in instructions):
        raise ValueError(f"Wanted a list of instructions for {env_name!r}, got {instructions!r}.")
    _INSTRUCTIONS[env_name] = tuple(instructions)


def instructions(env_name: str) -> tuple[str, ...]:
    """Every paraphrase of a task.

    Raises:
      ValueError: none are registered.
    """
    if env_name not in _INSTRUCTIONS:
        raise unknown_name("task of instructions", env_name, _INSTRUCTIONS)
    return _INSTRUCTIONS[env_name]


def draw_instruction(env_name: str, seed: int, episode: int) -> str:
    """The instruction of one episode: a function of (seed, episode), so that shards agree. A task without paraphrases
    gets its name as a sentence."""
    if env_name not in _INSTRUCTIONS:
        return f"do the {env_name.replace('_', ' ')} task"
    options = _INSTRUCTIONS[env_name]
    return options[int(host_random(seed, Stream.INSTRUCTIONS, episode).integers(len(options)))]
