"""Batches of uint8 pixels, rendered in threads a few batches ahead of the step that uses them."""

import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from parfocal.data.device_views import render_batch
from parfocal.data.sampling import epoch_order, occurrences, shown
from parfocal.data.store import Stack
from parfocal.data.views import Views, drawn, render, still
from parfocal.errors import UsageError
from parfocal.parts import TrainingPart, ViewsPart

# More threads than these would mostly hold batches that wait.
_MOST_THREADS = 8


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def smallest_of(images: int, batch: int) -> int:
    """Return how many images the smallest batch of an epoch has; the others have one more at most."""
    return images // max(1, -(-images // batch))


def require_images(images: int, batch: int, least: int, why: str, otherwise: str) -> None:
    """Refuse a `batch` that parts an epoch's images so that some batch has fewer than the `least`.

    The error names the smallest batch that works; `why` says who needs so many, `otherwise` what else would help.
    """
    smallest = smallest_of(images, batch)
    if smallest >= least:
        return
    works = next((one for one in range(least, images + 1) if smallest_of(images, one) >= least), None)
    advice = f"The smallest batch that works is batch={works}; or {otherwise}." if works else f"Instead, {otherwise}."
    raise UsageError(f"batch={batch} parts {images:,} images into batches of {smallest} and more; {why}. {advice}")


def require_shares(images: int, batch: int, processes: int) -> None:
    """Refuse a `batch` of which some process would at times have no image, and take fewer steps than the others."""
    why = f"each of {processes} processes needs an image of every batch"
    require_images(images, batch, processes, why, "use fewer devices")


@dataclass
class Batches:
    """The batches of one split: `places` in the Store's `pixels`, and their `labels`.

    Batch sizes differ by at most one, so none is left too small for batch norm. Of several processes, each renders its
    share of every batch, in as many threads as there are cores, at most 8. On a `resident` device all pixels lie in its
    memory and batches are rendered there. `waited` is the time, in seconds, for which the last pass was held up by
    rendering.
    """

    pixels: Stack
    places: np.ndarray
    labels: np.ndarray
    views: ViewsPart
    training: TrainingPart
    batch: int
    seed: int = 0
    threads: int = field(default_factory=lambda: min(cores(), _MOST_THREADS))
    rank: int = 0
    ranks: int = 1
    resident: torch.device | None = None
    names: tuple[str, ...] = ()
    waited: float = field(default=0.0, init=False)

    @property
    def shown(self) -> int:
        """How many images a training epoch shows, over all processes."""
        return int(shown(np.bincount(self.labels), self.training, epoch=0).sum())

    @property
    def steps(self) -> int:
        """How many batches a training epoch has."""
        return -(-self.shown // self.batch)

    @property
    def sizes(self) -> np.ndarray:
        """How many images each batch of a training epoch has, over all processes."""
        return np.array([len(part) for part in self._parts(self.shown)])

    def epoch(self, number: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (pixels, labels) of a training epoch from batch `first` on; order and views hang on (seed, epoch)."""
        require_shares(self.shown, self.batch, self.ranks)
        order = epoch_order(self.labels, self.training, seed=self.seed, epoch=number)
        numbers = occurrences(order, len(self.places))
        views = drawn(int(numbers.max(initial=-1)) + 1, self._size, self.views, seed=self.seed, epoch=number)
        return self._rendered(order, numbers, views, self._own(len(order))[first:])

    def evaluation(self, look: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (pixels, labels) in the order of the split, each image looked at straight."""
        order = np.arange(len(self.places))
        return self._rendered(order, order, still(len(order), self._size, self.views, look), self._own(len(order)))

    def own_rows(self) -> np.ndarray:
        """Return which rows of the split `evaluation` yields in this process, in its order."""
        return np.concatenate([*self._own(len(self.places)), np.empty(0, np.int64)]).astype(np.int64)

    def rows(self, epoch: int, step: int) -> np.ndarray:
        """Return which rows of the split a batch of an epoch shows."""
        order = epoch_order(self.labels, self.training, seed=self.seed, epoch=epoch)
        return order[self._parts(len(order))[step]]

    @property
    def _size(self) -> int:
        return self.pixels.shape[1]

    def _parts(self, count: int) -> list[np.ndarray]:
        """Part the numbers up to a count into batches, over all processes."""
        return np.array_split(np.arange(count), max(1, -(-count // self.batch)))

    def _own(self, count: int) -> list[np.ndarray]:
        """Return what this process renders of each batch."""
        own = [part[self.rank :: self.ranks] for part in self._parts(count)]
        return [part for part in own if len(part)]

    def _rendered(
        self, order: np.ndarray, numbers: np.ndarray, views: Views, own: list[np.ndarray]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Render each batch as one task; the order of tasks, not of threads, decides the order of batches."""
        self.waited = 0.0
        parts = deque(own)
        if self.resident is not None and views.last is None:
            for part in parts:
                yield self._rendered_there(order[part], numbers[part], views)
            return
        with ThreadPoolExecutor(self.threads, thread_name_prefix="views") as pool:
            waiting: deque[Future[Tensor]] = deque()
            chosen: deque[np.ndarray] = deque()
            while parts or waiting:
                while parts and len(waiting) <= self.threads:
                    chosen.append(parts.popleft())
                    waiting.append(pool.submit(self._render, order[chosen[-1]], numbers[chosen[-1]], views))
                started = time.perf_counter()
                pixels = waiting.popleft().result()
                self.waited += time.perf_counter() - started
                yield pixels, torch.from_numpy(self.labels[order[chosen.popleft()]])

    @cached_property
    def _there(self) -> Tensor:
        """All pixels of the split, copied to the device once."""
        return torch.from_numpy(np.asarray(self.pixels[self.places])).to(self.resident)

    def _rendered_there(self, rows: np.ndarray, numbers: np.ndarray, views: Views) -> tuple[Tensor, Tensor]:
        places = torch.from_numpy(rows).to(self.resident, non_blocking=True)
        return render_batch(self._there[places], views, numbers), torch.from_numpy(self.labels[rows])

    def _render(self, rows: np.ndarray, numbers: np.ndarray, views: Views) -> Tensor:
        out = np.empty((len(rows), views.side, views.side, 3), np.uint8)
        for place, (row, number) in enumerate(zip(rows, numbers, strict=True)):
            render(self.pixels[self.places[row]], views[number], out[place])
        return torch.from_numpy(out)
