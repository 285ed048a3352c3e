"""Seeds: one number from the user, and from it a stream of random numbers for every purpose.

Two purposes that shared a key would draw the same numbers: a policy would be judged on the episodes that it learned
from. A purpose's stream is hashed from its number and every 32-bit word of the seed, so that any non-negative integer,
however long, is a seed of its own.

JAX's `fold_in(key, i)` and `split(key, n)[i]` are the same key. Where a key has been split, another purpose of it
therefore takes `substream`, which lies beyond all that a split gives.
"""

import enum
import functools
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from simscaleai_jax.core.jax_settings import GENERATOR

if TYPE_CHECKING:  # JAX is imported where a key is made: readers of data files need none
    from collections.abc import Callable

    from jaxtyping import PRNGKeyArray

ROOT = 0x51A5CA1E  # where every stream begins; a bare `jax.random.key(0)` is none of them
FIRST_SUBSTREAM = 1 << 24  # splits and folded counters stay below it
FOREIGN_BITS = 31  # what every foreign environment takes as its seed


class Stream(enum.IntEnum):
    """The purposes. A number is never given to another purpose: results of a seed would change."""

    TRAINING = 1  # a PPO run: the key in its state, of which the next three are substreams
    TRAINING_EPISODES = 2  # starts and goals of the environments that PPO learns in
    POLICY_NOISE = 3  # exploration
    MINIBATCHES = 4
    WEIGHTS = 5  # of a new network
    UPDATES = 6  # dropout and whatever else is random in a supervised update
    AUGMENTATION = 7
    SAMPLE_ORDER = 8  # in which a data set is read
    EVALUATION = 9  # episodes that judge a policy, its videos among them
    VALIDATION = 10  # closed-loop episodes and losses while a policy trains
    TRANSFER = 11  # episodes of the transfer report
    DEMONSTRATIONS = 12  # generated episodes
    ACTIONS = 13  # a policy's own randomness within an episode, where it is not training
    ACTION_NOISE = 14  # what disturbs a demonstration
    INSTRUCTIONS = 15
    DATA_SPLIT = 16  # which episodes are for validation
    DUMMY_DATA = 17
    DUMMY_IMAGES = 18
    ADAPTER_EPISODES = 19  # of a gymnasium environment
    VECTOR_EPISODES = 20  # of a gymnasium vector environment
    VIEWER = 21  # episodes that somebody looks at
    CURRICULUM = 22  # whether a start is eased


def check_seed(seed: Any, name: str = "seed") -> int:
    """The seed as a Python integer; NumPy's integers are taken.

    Raises:
      ValueError: it is negative or no integer. A bool is none, nor is 1.0.
    """
    message = f"{name} must be a non-negative integer (of any size), got {seed!r}"
    if isinstance(seed, bool | np.bool_):
        raise ValueError(message)
    try:
        value = operator.index(seed)
    except TypeError:
        raise ValueError(message) from None
    if value < 0:
        raise ValueError(message)
    return value


def seed_key(seed: int, stream: Stream) -> "PRNGKeyArray":
    """The key of one purpose.

    Raises:
      ValueError: as `check_seed`.
    """
    import jax

    words = np.array(_words(seed, stream), np.uint32)
    return _folding()(jax.random.key(ROOT, impl=GENERATOR), words)


def substream(key: "PRNGKeyArray", stream: Stream) -> "PRNGKeyArray":
    """Another purpose of a key: disjoint from its other substreams and from what `split` or `fold_in` of a counter
    give.
    """
    import jax

    return jax.random.fold_in(key, np.uint32(FIRST_SUBSTREAM + stream))


def host_words(seed: int, stream: Stream, *numbers: int, count: int) -> np.ndarray:
    """uint32 (count,) random words for one purpose; `numbers` count within it, an episode's for instance."""
    return _sequence(seed, stream, numbers).generate_state(count)


def host_random(seed: int, stream: Stream, *numbers: int) -> np.random.Generator:
    """NumPy's generator for one purpose; `numbers` count within it."""
    return np.random.default_rng(_sequence(seed, stream, numbers))


def host_seed(seed: int, stream: Stream, *numbers: int) -> int:
    """A seed for an environment that is not ours, below 2**31; `numbers` count within the purpose."""
    return int(host_words(seed, stream, *numbers, count=1)[0]) >> (32 - FOREIGN_BITS)


def draw_key(random: np.random.Generator, stream: Stream) -> "PRNGKeyArray":
    """A key from 64 bits of NumPy's generator."""
    return seed_key(int.from_bytes(random.bytes(8), "little"), stream)


@functools.cache
def _folding() -> "Callable[[PRNGKeyArray, np.ndarray], PRNGKeyArray]":
    """Folds words into a key one after the other; jitted, for an environment is reset in less time than these calls."""
    import jax

    def fold(key: Any, words: Any) -> Any:
        return jax.lax.scan(lambda key, word: (jax.random.fold_in(key, word), None), key, words)[0]

    return jax.jit(fold)


def _words(seed: Any, stream: Stream) -> list[int]:
    """The stream's number and the seed's 32-bit words after their count: no seed's words begin another's."""
    value = check_seed(seed)
    words = [value >> shift & 0xFFFFFFFF for shift in range(0, max(value.bit_length(), 1), 32)]
    return [int(stream), len(words), *words]


def _sequence(seed: int, stream: Stream, numbers: tuple[int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence([*_words(seed, stream), len(numbers), *(number & 0xFFFFFFFF for number in numbers)])
