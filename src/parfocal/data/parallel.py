"""Map a function over many files: in threads, results in order, with a progress bar and bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from os import cpu_count
from typing import TypeVar

from parfocal.errors import UnreadableImageError
from parfocal.progress import show_progress

Item = TypeVar("Item")
Result = TypeVar("Result")

_ITEMS_AHEAD_PER_THREAD = 8


def map_ordered(
    items: Iterable[Item], function: Callable[[Item], Result], label: str, workers: int | None = None, n_done: int = 0
) -> Generator[Result, None, None]:
    """Yield `function(item)` for each item, in order; `n_done` items were done earlier and count in the progress bar.

    Only a few items for each thread are taken ahead, so an iterable without a length can be long or slow.
    """
    n_threads = workers or cpu_count() or 1
    total = n_done + len(items) if isinstance(items, Sized) else None
    with ThreadPoolExecutor(n_threads) as pool, show_progress(label, total) as advance:
        advance(n_done)
        remaining = iter(items)
        pending: deque[Future[Result]] = deque(
            pool.submit(function, item) for item in islice(remaining, _ITEMS_AHEAD_PER_THREAD * n_threads)
        )
        try:
            while pending:
                yield pending.popleft().result()
                pending.extend(pool.submit(function, item) for item in islice(remaining, 1))
                advance(1)
        finally:
            # After an interruption, items that have not started are not waited for.
            pool.shutdown(wait=False, cancel_futures=True)


def catch_unreadable(function: Callable[[Item], Result]) -> Callable[[Item], Result | str]:
    """Wrap `function` so that it returns the reason as text where an image cannot be read."""

    def read(item: Item) -> Result | str:
        try:
            return function(item)
        except UnreadableImageError as reason:
            return str(reason)

    return read
