"""Which images an epoch shows, and how often: as they come, or some classes more than others."""
# MERGED: """Batches of uint8 pixels, rendered in threads a few batches ahead of the step that uses them."""

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

from parfocal.data.augment import Views, draw_views, eval_views
from parfocal.data.render import render, render_batch
from parfocal.data.store import ImageArray
from parfocal.errors import UsageError
from parfocal.schema import TrainingConfig, ViewsConfig


def draw_epoch_order(labels: np.ndarray, config: TrainingConfig, *, seed: int, epoch: int) -> np.ndarray:
    """Return the rows of one epoch in the order they are shown, drawn from a generator keyed by (seed, epoch)."""
    dice = np.random.default_rng([seed, epoch, 0])
    if config.sampling == "natural":
        return dice.permutation(len(labels))
    counts = np.bincount(labels)
    chosen = [_repeat_rows(np.flatnonzero(labels == label), often, dice)
              for label, often in enumerate(compute_samples_per_class(counts, config, epoch))]  # fmt: skip
    return dice.permutation(np.concatenate(chosen))


def compute_samples_per_class(counts: np.ndarray, config: TrainingConfig, epoch: int) -> np.ndarray:
    """Return how many images of each class an epoch shows; their sum is the same in every epoch."""
    total, present = int(counts.sum()), counts > 0
    natural, balanced = counts / total, present / present.sum()
    if config.sampling == "factors":
        return np.round(counts * _check_factors(config.factors, counts)).astype(int)
    if config.sampling == "oversample":
        others = np.where(np.arange(len(counts)) == counts.argmax(), 0, counts)
        return counts + _apportion(others / max(1, others.sum()), round(config.oversample * total))
    if config.sampling == "balanced":
        return _apportion(balanced, total)
    if config.sampling == "square_root":
        return _apportion(np.sqrt(counts) / np.sqrt(counts).sum(), total)
    if config.sampling == "decay":
        gone = epoch / max(1, config.epochs - 1)
        return _apportion((1 - gone) * balanced + gone * natural, total)
    return counts


def assign_view_indices(order: np.ndarray, n_images: int) -> np.ndarray:
    """Return the number of the view each place of an order takes: a row's first one its own, any further a new one."""
    _, first = np.unique(order, return_index=True)
    views = np.empty(len(order), dtype=np.int64)
    again = np.ones(len(order), dtype=bool)
    again[first] = False
    views[first] = order[first]
    views[again] = n_images + np.arange(int(again.sum()))
    return views


def _repeat_rows(rows: np.ndarray, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return `often` of the rows, none a second time before each had its turn."""
    if not len(rows):
        return rows
    return np.concatenate([rng.permutation(rows) for _ in range(-(-n_samples // len(rows)))] or [rows[:0]])[:n_samples]


def _apportion(shares: np.ndarray, total: int) -> np.ndarray:
    """Split a total by shares into whole numbers that sum to it."""
    wanted = shares * total
    parts = np.floor(wanted).astype(int)
    parts[np.argsort(parts - wanted, kind="stable")[: total - parts.sum()]] += 1
    return parts


def _check_factors(factors: tuple[float, ...], counts: np.ndarray) -> np.ndarray:
    if len(factors) != len(counts):
        raise UsageError(f"factors has {len(factors)} numbers, train has {len(counts)} classes.")
    return np.array(factors)


# More threads than these would mostly hold batches that wait.
_MAX_THREADS = 8


def count_cpu_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def smallest_batch_size(n_images: int, batch_size: int) -> int:
    """Return how many images the smallest batch of an epoch has; the others have one more at most."""
    return n_images // max(1, -(-n_images // batch_size))


def check_batch_size(n_images: int, batch_size: int, min_images: int, reason: str, remedy: str) -> None:
    """Refuse a `batch` that parts an epoch's images so that some batch has fewer than the `least`.

    The error names the smallest batch that works; `why` says who needs so many, `otherwise` what else would help.
    """
    smallest = smallest_batch_size(n_images, batch_size)
    if smallest >= min_images:
        return
    works = next(
        (one for one in range(min_images, n_images + 1) if smallest_batch_size(n_images, one) >= min_images), None
    )
    advice = f"The smallest batch that works is batch_size={works}; or {remedy}." if works else f"Instead, {remedy}."
    raise UsageError(
        f"batch_size={batch_size} parts {n_images:,} images into batches of {smallest} and more; {reason}. {advice}"
    )


def check_batch_covers_processes(n_images: int, batch_size: int, n_processes: int) -> None:
    """Refuse a `batch` of which some process would at times have no image, and take fewer steps than the others."""
    why = f"each of {n_processes} processes needs an image of every batch"
    check_batch_size(n_images, batch_size, n_processes, why, "use fewer devices")


@dataclass
class BatchLoader:
    """The batches of one split: `places` in the Store's `pixels`, and their `labels`.

    Batch sizes differ by at most one, so none is left too small for batch norm. Of several processes, each renders its
    share of every batch, in as many threads as there are cores, at most 8. On a `resident` device all pixels lie in its
    memory and batches are rendered there. `waited` is the time, in seconds, for which the last pass was held up by
    rendering.
    """

    pixels: ImageArray
    indices: np.ndarray
    labels: np.ndarray
    views_config: ViewsConfig
    training_config: TrainingConfig
    batch_size: int
    seed: int = 0
    n_threads: int = field(default_factory=lambda: min(count_cpu_cores(), _MAX_THREADS))
    rank: int = 0
    world_size: int = 1
    device: torch.device | None = None
    ids: tuple[str, ...] = ()
    wait_seconds: float = field(default=0.0, init=False)

    @property
    def epoch_size(self) -> int:
        """How many images a training epoch shows, over all processes."""
        return int(compute_samples_per_class(np.bincount(self.labels), self.training_config, epoch=0).sum())

    @property
    def steps_per_epoch(self) -> int:
        """How many batches a training epoch has."""
        return -(-self.epoch_size // self.batch_size)

    @property
    def batch_sizes(self) -> np.ndarray:
        """How many images each batch of a training epoch has, over all processes."""
        return np.array([len(part) for part in self._split_batches(self.epoch_size)])

    def train_batches(self, epoch: int, first_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (pixels, labels) of a training epoch from batch `first` on; order and views hang on (seed, epoch)."""
        check_batch_covers_processes(self.epoch_size, self.batch_size, self.world_size)
        order = draw_epoch_order(self.labels, self.training_config, seed=self.seed, epoch=epoch)
        numbers = assign_view_indices(order, len(self.indices))
        views = draw_views(
            int(numbers.max(initial=-1)) + 1, self._image_size, self.views_config, seed=self.seed, epoch=epoch
        )
        return self._render_batches(order, numbers, views, self._split_rank_batches(len(order))[first_batch:])

    def eval_batches(self, tta_view: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (pixels, labels) in the order of the split, each image looked at straight."""
        order = np.arange(len(self.indices))
        return self._render_batches(
            order,
            order,
            eval_views(len(order), self._image_size, self.views_config, tta_view),
            self._split_rank_batches(len(order)),
        )

    def rank_rows(self) -> np.ndarray:
        """Return which rows of the split `evaluation` yields in this process, in its order."""
        return np.concatenate([*self._split_rank_batches(len(self.indices)), np.empty(0, np.int64)]).astype(np.int64)

    def batch_rows(self, epoch: int, step: int) -> np.ndarray:
        """Return which rows of the split a batch of an epoch shows."""
        order = draw_epoch_order(self.labels, self.training_config, seed=self.seed, epoch=epoch)
        return order[self._split_batches(len(order))[step]]

    @property
    def _image_size(self) -> int:
        return self.pixels.shape[1]

    def _split_batches(self, n_images: int) -> list[np.ndarray]:
        """Part the numbers up to a count into batches, over all processes."""
        return np.array_split(np.arange(n_images), max(1, -(-n_images // self.batch_size)))

    def _split_rank_batches(self, n_images: int) -> list[np.ndarray]:
        """Return what this process renders of each batch."""
        own = [part[self.rank :: self.world_size] for part in self._split_batches(n_images)]
        return [part for part in own if len(part)]

    def _render_batches(
        self, order: np.ndarray, view_indices: np.ndarray, views: Views, batches: list[np.ndarray]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Render each batch as one task; the order of tasks, not of threads, decides the order of batches."""
        self.wait_seconds = 0.0
        parts = deque(batches)
        if self.device is not None and views.custom_transform is None:
            for part in parts:
                yield self._render_on_device(order[part], view_indices[part], views)
            return
        with ThreadPoolExecutor(self.n_threads, thread_name_prefix="views") as pool:
            waiting: deque[Future[Tensor]] = deque()
            chosen: deque[np.ndarray] = deque()
            while parts or waiting:
                while parts and len(waiting) <= self.n_threads:
                    chosen.append(parts.popleft())
                    waiting.append(pool.submit(self._render_on_cpu, order[chosen[-1]], view_indices[chosen[-1]], views))
                started = time.perf_counter()
                pixels = waiting.popleft().result()
                self.wait_seconds += time.perf_counter() - started
                yield pixels, torch.from_numpy(self.labels[order[chosen.popleft()]])

    @cached_property
    def _device_pixels(self) -> Tensor:
        """All pixels of the split, copied to the device once."""
        return torch.from_numpy(np.asarray(self.pixels[self.indices])).to(self.device)

    def _render_on_device(self, rows: np.ndarray, view_indices: np.ndarray, views: Views) -> tuple[Tensor, Tensor]:
        places = torch.from_numpy(rows).to(self.device, non_blocking=True)
        return render_batch(self._device_pixels[places], views, view_indices), torch.from_numpy(self.labels[rows])

    def _render_on_cpu(self, rows: np.ndarray, view_indices: np.ndarray, views: Views) -> Tensor:
        out = np.empty((len(rows), views.crop_size, views.crop_size, 3), np.uint8)
        for place, (row, number) in enumerate(zip(rows, view_indices, strict=True)):
            render(self.pixels[self.indices[row]], views[number], out[place])
        return torch.from_numpy(out)
