"""The instructions of a data set, and what a policy is told."""

from typing import Any


def check_readable(dataset: Any, model: Any) -> None:
    """ValueError for an instruction of the data set that the model cannot read whole."""
    from simscaleai_jax.core.text import check_instructions
    from simscaleai_jax.models.planning import text_length

    length = text_length(model)
    if length is not None and hasattr(dataset, "index"):
        check_instructions(dataset.index.instructions[dataset.index.languages[dataset.episodes]], length)


def check_told(env_name: str, language: str | None) -> bool:
    """Whether each episode of an environment has an instruction of its own; a ValueError where another one is given."""
    from simscaleai_jax.sim.registry import find_instructions

    is_told = find_instructions(env_name) is not None
    if is_told and language is not None:
        raise ValueError(f"--language {language!r}: each episode of {env_name!r} has an instruction of its own.")
    return is_told


def common_instruction(dataset: Any, env: dict[str, Any]) -> str | None:
    """What a policy is told where it is told nothing: the first episode's instruction; nothing where instructions say
    what is right in each episode.
    """
    from simscaleai_jax.sim.registry import find_instructions

    if not hasattr(dataset, "demos"):
        return None
    has_own = find_instructions(env.get("name", "")) is not None
    return None if has_own else dataset.demos.language(0) or None
