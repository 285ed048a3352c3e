"""Turns chunks of slots into whole episodes on the host, while the device plays the next chunk."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simscaleai_jax.core.demonstrations.layout import Episode
from simscaleai_jax.core.errors import ExpectedError
from simscaleai_jax.datagen.rollout import Chunk, Slots

MAX_ATTEMPTS = 50
MIN_CAPACITY = 4096  # of the list of episodes on the device


def play_episodes(
    chunk_fn: Callable[[Slots, Any, Any], tuple[Slots, Chunk]],
    slots: Slots,
    numbers: list[int],
    max_attempts: int = MAX_ATTEMPTS,
    sentences: Sequence[str] = (),
) -> Iterator[tuple[int, Episode]]:
    """Plays the episodes `numbers` and yields (number, episode) as they end.

    The next chunk is on its way before the last one is fetched, so the host's work costs no device time. `sentences`
    are the task's instructions by number, where each episode has its own.

    Raises:
      ExpectedError: an episode broke, or failed although only successes are wanted, `max_attempts` times.
    """
    capacity = max(
        MIN_CAPACITY, 1 << max(len(numbers) - 1, 0).bit_length()
    )  # few shapes, so that shards share one compile
    todo = jnp.asarray(np.pad(np.array(numbers, np.int32), (0, capacity - len(numbers))))
    num_todo = jnp.int32(len(numbers))
    collector = Collector(slots.episode.shape[0], max_attempts, sentences)
    pending: Chunk | None = None
    left = bool(numbers)
    while left:
        slots, chunk = chunk_fn(slots, todo, num_todo)
        if pending is not None:
            yield from collector.take(pending)
        left = bool(chunk.left)
        pending = chunk
    if pending is not None:
        yield from collector.take(pending)


class Collector:
    """Pieces of the episode that each slot is playing."""

    def __init__(self, num_envs: int, max_attempts: int, sentences: Sequence[str] = ()) -> None:
        self.pieces: list[list[dict[str, np.ndarray]]] = [[] for _ in range(num_envs)]
        self.max_attempts, self.sentences = max_attempts, sentences

    def take(self, chunk: Chunk) -> Iterator[tuple[int, Episode]]:
        """Adds a chunk; yields the episodes that it completes."""
        chunk = jax.device_get(chunk)
        flat = _flatten(chunk.records)
        played = chunk.valid.sum(axis=0)  # the played steps of a chunk are its first ones
        for slot in np.nonzero(played)[0].tolist():
            self.pieces[slot].append({name: array[: played[slot], slot].copy() for name, array in flat.items()})
        for slot in np.nonzero(chunk.done)[0].tolist():
            pieces, self.pieces[slot] = self.pieces[slot], []
            number, attempts = int(chunk.episode[slot]), int(chunk.attempt[slot]) + 1
            if not chunk.retry[slot]:
                language = self.sentences[int(chunk.sentence[slot])] if self.sentences else ""
                yield number, _episode(pieces, chunk, slot, attempts, language)
            elif attempts >= self.max_attempts:
                why = _why(bool(chunk.nan[slot]), bool(chunk.lost[slot]), attempts)
                raise ExpectedError(f"Episode {number} {why}")


def _why(is_nan: bool, is_lost: bool, attempts: int) -> str:
    """Why an episode is given up, by what spoiled its last attempt."""
    if is_lost:
        return f"was played {attempts} times, and a full buffer of the physics cost it contacts again; use impl='jax'."
    if is_nan:
        return f"was played {attempts} times, and its state was not finite again; a smaller dt steadies the physics."
    return (
        f"failed {attempts} times in a row, and only successes are wanted; "
        "the policy does not solve this task often enough."
    )


def _episode(pieces: list[dict[str, np.ndarray]], chunk: Chunk, slot: int, attempts: int, language: str) -> Episode:
    arrays = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    next_obs = _under(arrays, "next_obs/")
    return Episode(
        obs=_under(arrays, "obs/"),
        actions=arrays["actions"],
        rewards=arrays["rewards"],
        success=bool(chunk.success[slot]),
        language=language,
        terminated=bool(chunk.terminated[slot]),
        attempts=attempts,
        states=arrays.get("states"),
        next_obs=next_obs or None,
        actions_executed=arrays.get("actions_executed"),
    )


def _flatten(records: dict[str, Any]) -> dict[str, np.ndarray]:
    """{"obs": {"ee_pos": x}} to {"obs/ee_pos": x}."""
    flat = {}
    for name, value in records.items():
        flat |= {f"{name}/{key}": array for key, array in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _under(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
