"""Batches of uint8 pixels, rendered in threads a few batches ahead of the step that uses them."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from parfocal.data.store import Stack
from parfocal.data.views import Views, drawn, render, still
from parfocal.recipe import ViewsPart


@dataclass
class Batches:
    """The batches of one split: `places` in the Store's `pixels`, and their `labels`.

    Batch sizes differ by at most one, so none is left too small for batch norm. `waited` is the time, in seconds, for
    which the last pass was held up by rendering.
    """

    pixels: Stack
    places: np.ndarray
    labels: np.ndarray
    views: ViewsPart
    batch: int
    seed: int = 0
    threads: int = 2
    ahead: int = 3
    waited: float = field(default=0.0, init=False)

    def __len__(self) -> int:
        return -(-len(self.places) // self.batch)

    def training(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (pixels, labels) of one epoch, shuffled, with views drawn for (seed, epoch)."""
        order = np.random.default_rng([self.seed, epoch, 0]).permutation(len(self.places))
        views = drawn(len(self.places), self._size, self.views, seed=self.seed, epoch=epoch)
        return self._rendered(order, views)

    def evaluation(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (pixels, labels) in the order of the split, each image looked at straight."""
        return self._rendered(np.arange(len(self.places)), still(len(self.places), self._size, self.views))

    @property
    def _size(self) -> int:
        return self.pixels.shape[1]

    def _rendered(self, order: np.ndarray, views: Views) -> Iterator[tuple[Tensor, Tensor]]:
        """Render each batch as one task; the order of tasks, not of threads, decides the order of batches."""
        self.waited = 0.0
        parts = deque(np.array_split(order, len(self))) if len(order) else deque()
        with ThreadPoolExecutor(self.threads, thread_name_prefix="views") as pool:
            waiting: deque[Future[Tensor]] = deque()
            chosen: deque[np.ndarray] = deque()
            while parts or waiting:
                while parts and len(waiting) < self.ahead:
                    chosen.append(parts.popleft())
                    waiting.append(pool.submit(self._render, chosen[-1], views))
                started = time.perf_counter()
                pixels = waiting.popleft().result()
                self.waited += time.perf_counter() - started
                yield pixels, torch.from_numpy(self.labels[chosen.popleft()])

    def _render(self, rows: np.ndarray, views: Views) -> Tensor:
        out = np.empty((len(rows), views.side, views.side, 3), np.uint8)
        for number, row in enumerate(rows):
            render(self.pixels[self.places[row]], views[row], out[number])
        return torch.from_numpy(out)
