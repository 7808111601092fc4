"""One pass over many files: in threads, a bounded number ahead, the outcomes in order, with progress."""

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
    """Yield what `work` makes of each item; `before` counts items that were done earlier, for the bar.

    Items that come one by one, so that nobody knows how many there will be, are taken only as far ahead as is needed.
    """
    threads = workers or cpu_count() or 1
    total = n_done + len(items) if isinstance(items, Sized) else None
    with ThreadPoolExecutor(threads) as pool, show_progress(label, total) as done:
        done(n_done)
        remaining = iter(items)
        waiting: deque[Future[Result]] = deque(
            pool.submit(function, item) for item in islice(remaining, _ITEMS_AHEAD_PER_THREAD * threads)
        )
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(remaining, 1))
                done(1)
        finally:
            # An interruption should not wait for what has not begun.
            pool.shutdown(wait=False, cancel_futures=True)


def catch_unreadable(function: Callable[[Item], Result]) -> Callable[[Item], Result | str]:
    """Wrap `function` so that it returns the reason as text where an image cannot be read."""

    def read(item: Item) -> Result | str:
        try:
            return function(item)
        except UnreadableImageError as reason:
            return str(reason)

    return read
