"""A memory budget that threads share: an image that does not fit waits until others are done."""

import threading
from types import TracebackType

from parfocal.data.image_header import MAX_BYTES


class MemoryBudget:
    """A number of bytes that can be in use at the same time, in all threads together."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self._n_used = 0
        self._is_freed = threading.Condition()

    def take(self, n_bytes: int) -> None:
        """Take a part of the budget, once it is free; whatever is larger than the budget takes all of it."""
        with self._is_freed:
            self._is_freed.wait_for(lambda: self._n_used + n_bytes <= self.n_bytes or not self._n_used)
            self._n_used += n_bytes

    def free(self, n_bytes: int) -> None:
        """Return a part of the budget."""
        with self._is_freed:
            self._n_used -= n_bytes
            self._is_freed.notify_all()


class MemoryReservation:
    """A context that holds a part of the budget from `reserve` until it ends.

    A thread reserves once, when it knows the size: two threads that hold a part and wait for more would wait forever.
    """

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._n_bytes = 0

    def reserve(self, n_bytes: int) -> None:
        """Wait until this many bytes are free, and hold them."""
        self._budget.take(n_bytes)
        self._n_bytes = n_bytes

    def __enter__(self) -> "MemoryReservation":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._budget.free(self._n_bytes)


DECODING_MEMORY = MemoryBudget(2 * MAX_BYTES)
"""An image takes up to twice its decoded size, for the time in which it is converted to RGB."""
