"""One writer thread: HDF5 releases no more than one thread at a time, and the rollout must not wait for the disk."""

import queue
import threading
from types import TracebackType

from simscaleai_jax.core.demonstrations.layout import Episode
from simscaleai_jax.datagen.files.writer import ShardWriter


class BackgroundWriter:
    """Feeds a `ShardWriter` from another thread; an error there is raised here, at the next `put` or at the end.

    At most `max_waiting` episodes wait, so a slow disk slows the rollout down instead of filling the memory.
    """

    def __init__(self, writer: ShardWriter, max_waiting: int = 256) -> None:
        self.writer = writer
        self._queue: queue.Queue[tuple[int, Episode] | None] = queue.Queue(max_waiting)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="shard-writer", daemon=True)

    def __enter__(self) -> "BackgroundWriter":
        self._thread.start()
        return self

    def put(self, number: int, episode: Episode) -> None:
        """Hands over an episode.

        Raises:
          Whatever the writer raised meanwhile.
        """
        self._raise()
        self._queue.put((number, episode))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if error is None:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None:  # after an error the queue is still drained, so that `put` never blocks for good
                try:
                    self.writer.add(*item)
                except Exception as error:
                    self._error = error
