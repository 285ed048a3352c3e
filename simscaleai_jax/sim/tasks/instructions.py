"""What a task with several goals is told: the sentences that mean each goal, and the one that an episode gets."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.core.text import LENGTH, check_instructions, tokenize

PHRASES = ("train", "held_out")


@dataclasses.dataclass(frozen=True)
class Instructions:
    """Sentences of G goals, numbered: all for training, goal by goal, then all that are held out.

    Attributes:
      goals: a plain sentence of each goal, by which it is reported.
      train: sentences of each goal for demonstrations, as many of each.
      held_out: likewise, for evaluation: sentences that no demonstration has.
    """

    goals: tuple[str, ...]
    train: tuple[tuple[str, ...], ...]
    held_out: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        for name in PHRASES:
            counts = [len(of_goal) for of_goal in getattr(self, name)]
            if len(counts) != len(self.goals) or len(set(counts)) != 1 or not counts[0]:
                raise ValueError(f"{name}: wanted as many sentences of each of {len(self.goals)} goals, got {counts}")
        check_instructions(self.sentences, LENGTH)
        if len(set(self.sentences)) != len(self.sentences):
            raise ValueError("wanted different sentences, those held out and of different goals included")

    @functools.cached_property
    def sentences(self) -> tuple[str, ...]:
        """All of them, by number."""
        return tuple(itertools.chain(*self.train, *self.held_out))

    def draw(self, key: PRNGKeyArray, goal: Int[Array, ""], phrases: str) -> Int[Array, ""]:
        """The number of a sentence for `goal`, one of those for training or of those held out."""
        counts = {name: len(getattr(self, name)[0]) for name in PHRASES}
        first = 0 if phrases == "train" else counts["train"] * len(self.goals)
        return first + counts[phrases] * goal + jax.random.randint(key, (), 0, counts[phrases])

    def observe(self, sentence: Int[Array, ""]) -> Float[Array, "L"]:
        """Token ids of a sentence, as observed; 0 behind its end."""
        return jnp.asarray(self._tokens)[sentence].astype(jnp.float32)

    @functools.cached_property
    def _tokens(self) -> np.ndarray:
        return tokenize(list(self.sentences), LENGTH).astype(np.uint8)


def check_phrases(phrases: str) -> None:
    """ValueError for a name that is not in PHRASES."""
    if phrases not in PHRASES:
        raise unknown_name("phrases", phrases, PHRASES)


def sentences(*parts: tuple[str, ...], longest: int = LENGTH, **names: str) -> tuple[str, ...]:
    """Combinations of `parts`, in which "{colour}" stands for the value of `colour`, and so on.

    Those whose pattern is longer than `longest` are left out, the same ones whatever the names stand for.
    """
    patterns = ("".join(chosen) for chosen in itertools.product(*parts))
    return tuple(pattern.format(**names) for pattern in patterns if len(pattern) <= longest)
