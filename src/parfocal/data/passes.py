"""One pass over many files: in threads, a bounded number ahead, the outcomes in order, with progress."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from os import cpu_count
from typing import TypeVar

from parfocal.progress import progress

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_AHEAD = 8


def in_order(
    items: Iterable[Item], work: Callable[[Item], Outcome], label: str, workers: int | None = None, before: int = 0
) -> Generator[Outcome, None, None]:
    """Yield what `work` makes of each item; `before` counts items that were done earlier, for the bar.

    Items that come one by one, so that nobody knows how many there will be, are taken only as far ahead as is needed.
    """
    threads = workers or cpu_count() or 1
    total = before + len(items) if isinstance(items, Sized) else None
    with ThreadPoolExecutor(threads) as pool, progress(label, total) as done:
        done(before)
        remaining = iter(items)
        waiting: deque[Future[Outcome]] = deque(pool.submit(work, item) for item in islice(remaining, _AHEAD * threads))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(remaining, 1))
                done(1)
        finally:
            # An interruption should not wait for what has not begun.
            pool.shutdown(wait=False, cancel_futures=True)
