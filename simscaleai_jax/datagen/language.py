"""Instructions: several ways to say each task, one drawn per episode.

All of them are lower case, at most 64 characters, and use only the symbols that the VLA's tokenizer knows. They are
true of the scenes: the target is a green ball, the object a red cube, and half of the cube's targets hang in the air.
Tasks with several goals say themselves what each episode is told (`sim.tasks.instructions`).
"""

from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.core.streams import Stream, host_random
from simscaleai_jax.sim.registry import find_instructions, tasks

_CHOSEN: dict[str, tuple[str, ...]] = {}  # by `register_instructions`


def register_instructions(env_name: str, instructions: tuple[str, ...] | list[str]) -> None:
    """Sets the instructions of a task in place of those that it brings.

    Raises:
      ValueError: no instruction, or an empty one; or the task's episodes have instructions of their own.
    """
    if find_instructions(env_name) is not None:
        raise ValueError(f"Episodes of {env_name!r} have instructions of their own, which say what is right in each.")
    if not instructions or not all(isinstance(text, str) and text.strip() for text in instructions):
        raise ValueError(f"Wanted a list of instructions for {env_name!r}, got {instructions!r}.")
    _CHOSEN[env_name] = tuple(instructions)


def instructions(env_name: str) -> tuple[str, ...]:
    """Every paraphrase of a task.

    Raises:
      ValueError: none are registered.
    """
    known = _known()
    if env_name not in known:
        raise unknown_name("task of instructions", env_name, known)
    return known[env_name]


def draw_instruction(env_name: str, seed: int, episode: int) -> str:
    """The instruction of one episode: a function of (seed, episode), so that shards agree. A task without paraphrases
    gets its name as a sentence."""
    options = _known().get(env_name)
    if options is None:
        return f"do the {env_name.replace('_', ' ')} task"
    return options[int(host_random(seed, Stream.INSTRUCTIONS, episode).integers(len(options)))]


def _known() -> dict[str, tuple[str, ...]]:
    """Instructions by task: the tasks' own, and those chosen in their place."""
    own = {name: entry.instructions for name, entry in tasks().items() if entry.instructions}
    return own | _CHOSEN
