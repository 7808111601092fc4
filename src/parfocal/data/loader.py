"""The batch loader, and class-weighted sampling: which images an epoch shows, in which order and in which batches.

Batches are uint8 pixels. Threads render them a few batches ahead of the training step (prefetching).
"""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from parfocal.data.augment import Views, draw_views, eval_views
from parfocal.data.custom_transform import CustomTransform
from parfocal.data.store import ImageArray
from parfocal.data.warp import render, render_batch, resize, resize_batch
from parfocal.errors import UsageError
from parfocal.recipe_schema import TrainingConfig, ViewsConfig

# With more threads, most of the rendered batches would only wait in memory.
_MAX_THREADS = 8


def count_cpu_cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class BatchLoader:
    """Iterate over the batches of a split: the images at `indices` of the Store's `pixels`, and their `labels`.

    Batch sizes differ by at most 1, so that no batch is too small for batch normalization. Each of `world_size`
    processes renders its share of every batch. It uses as many threads as there are cores, at most 8. With `device`,
    all pixels are copied to the memory of that device and batches are rendered there. `kept_class` is the class that
    oversampling leaves as it is. `wait_seconds` is how long the last pass waited for rendering.
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
    custom_transform: CustomTransform | None = None
    kept_class: int = 0
    wait_seconds: float = field(default=0.0, init=False)

    @property
    def epoch_size(self) -> int:
        """The number of images in a training epoch, over all processes."""
        counts = np.bincount(self.labels)
        return int(compute_samples_per_class(counts, self.training_config, 0, self.kept_class).sum())

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in a training epoch."""
        return -(-self.epoch_size // self.batch_size)

    @property
    def batch_sizes(self) -> np.ndarray:
        """The number of images in each batch of a training epoch, over all processes."""
        return np.array([len(batch) for batch in self._split_batches(self.epoch_size)])

    def train_batches(
        self, epoch: int, first_batch: int = 0, crop_size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (pixels, labels) of a training epoch, from batch `first_batch` on.

        (seed, epoch) decides the order and the augmented views. A `crop_size` below that of the recipe shows the same
        views with fewer pixels, which progressive resizing starts with.
        """
        config, image_size = scale_views(self.views_config, self._image_size, crop_size)
        check_batch_covers_processes(self.epoch_size, self.batch_size, self.world_size)
        order = self._draw_order(epoch)
        view_indices = assign_view_indices(order, len(self.indices))
        n_views = int(view_indices.max(initial=-1)) + 1
        views = draw_views(
            n_views,
            image_size,
            config,
            seed=self.seed,
            epoch=epoch,
            custom_transform=self.custom_transform,
        )
        batches = self._split_rank_batches(len(order))[first_batch:]
        return self._render_batches(order, view_indices, views, batches, image_size)

    def eval_batches(self, tta_view: int = 0, crop_size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (pixels, labels) in the order of the split, each image as evaluation shows it."""
        config, image_size = scale_views(self.views_config, self._image_size, crop_size)
        order = np.arange(len(self.indices))
        views = eval_views(len(order), image_size, config, tta_view)
        return self._render_batches(order, order, views, self._split_rank_batches(len(order)), image_size)

    def rank_rows(self) -> np.ndarray:
        """Return the rows of the split that `eval_batches` yields in this process, in its order."""
        return np.concatenate([*self._split_rank_batches(len(self.indices)), np.empty(0, np.int64)]).astype(np.int64)

    def batch_rows(self, epoch: int, step: int) -> np.ndarray:
        """Return the rows of the split in a batch of a training epoch."""
        order = self._draw_order(epoch)
        return order[self._split_batches(len(order))[step]]

    def _draw_order(self, epoch: int) -> np.ndarray:
        return draw_epoch_order(
            self.labels, self.training_config, seed=self.seed, epoch=epoch, kept_class=self.kept_class
        )

    @property
    def _image_size(self) -> int:
        return self.pixels.shape[1]

    def _split_batches(self, n_images: int) -> list[np.ndarray]:
        """Split the positions of an epoch's images into batches, over all processes."""
        return np.array_split(np.arange(n_images), max(1, -(-n_images // self.batch_size)))

    def _split_rank_batches(self, n_images: int) -> list[np.ndarray]:
        """Return the positions of each batch that this process renders."""
        batches = [batch[self.rank :: self.world_size] for batch in self._split_batches(n_images)]
        return [batch for batch in batches if len(batch)]

    def _render_batches(
        self, order: np.ndarray, view_indices: np.ndarray, views: Views, batches: list[np.ndarray], image_size: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Render each batch as a task; the order of the tasks, not of the threads, is the order of the batches."""
        self.wait_seconds = 0.0
        if self.device is not None and views.custom_transform is None:
            for batch in batches:
                rows = torch.from_numpy(order[batch]).to(self.device, non_blocking=True)
                images = resize_batch(self._device_pixels[rows], image_size)
                pixels = render_batch(images, views, view_indices[batch])
                yield pixels, torch.from_numpy(self.labels[order[batch]])
            return
        remaining = deque(batches)
        with ThreadPoolExecutor(self.n_threads, thread_name_prefix="views") as pool:
            pending: deque[tuple[np.ndarray, Future[Tensor]]] = deque()
            while remaining or pending:
                while remaining and len(pending) <= self.n_threads:
                    batch = remaining.popleft()
                    task = pool.submit(self._render_on_cpu, order[batch], view_indices[batch], views, image_size)
                    pending.append((order[batch], task))
                rows, task = pending.popleft()
                start = time.perf_counter()
                pixels = task.result()
                self.wait_seconds += time.perf_counter() - start
                yield pixels, torch.from_numpy(self.labels[rows])

    @cached_property
    def _device_pixels(self) -> Tensor:
        """All pixels of the split, copied to the device once."""
        return torch.from_numpy(np.asarray(self.pixels[self.indices])).to(self.device)

    def _render_on_cpu(self, rows: np.ndarray, view_indices: np.ndarray, views: Views, image_size: int) -> Tensor:
        out = np.empty((len(rows), views.crop_size, views.crop_size, 3), np.uint8)
        for position, (row, view_index) in enumerate(zip(rows, view_indices, strict=True)):
            image = resize(self.pixels[self.indices[row]], image_size)
            render(image, views[view_index], out[position])
        return torch.from_numpy(out)


def scale_views(config: ViewsConfig, image_size: int, crop_size: int | None) -> tuple[ViewsConfig, int]:
    """Return the views of another crop size, and the side of the Store images that then show the same field of view."""
    if crop_size in (None, config.crop_size):
        return config, image_size
    scale = crop_size / config.crop_size
    changes = {"crop_size": crop_size, "crop_padding": round(config.crop_padding * scale)}
    return config.model_copy(update=changes), max(crop_size, round(image_size * scale))


def draw_epoch_order(
    labels: np.ndarray, config: TrainingConfig, *, seed: int, epoch: int, kept_class: int = 0
) -> np.ndarray:
    """Draw the rows of an epoch in the order in which they are shown, from a generator keyed by (seed, epoch)."""
    rng = np.random.default_rng([seed, epoch, 0])
    if config.sampling == "natural":
        return rng.permutation(len(labels))
    samples_per_class = compute_samples_per_class(np.bincount(labels), config, epoch, kept_class)
    rows_per_class = [
        _repeat_rows(np.flatnonzero(labels == label), n_samples, rng)
        for label, n_samples in enumerate(samples_per_class)
    ]
    return rng.permutation(np.concatenate(rows_per_class))


def find_kept_class(config: TrainingConfig, codes: Sequence[str], classes: Sequence[str]) -> int:
    """Return the index of the class that oversampling leaves as it is, from its code or name in the recipe."""
    if config.sampling != "oversample":
        return 0
    for names in (codes, classes):
        if config.oversample_except in names:
            return names.index(config.oversample_except)
    raise UsageError(
        f"oversample_except={config.oversample_except} is not a class of the data. Name the class of which "
        f"sampling=oversample shows no extra images: {', '.join(classes)}."
    )


def compute_samples_per_class(
    counts: np.ndarray, config: TrainingConfig, epoch: int, kept_class: int = 0
) -> np.ndarray:
    """Return how many images of each class an epoch shows; `counts` says how many there are.

    Oversampling shows no extra images of the class `kept_class`. The sum is the same in every epoch.
    """
    total = int(counts.sum())
    present = counts > 0
    natural = counts / total
    balanced = present / present.sum()
    if config.sampling == "factors":
        if len(config.factors) != len(counts):
            raise UsageError(f"factors has {len(config.factors)} numbers, train has {len(counts)} classes.")
        return np.round(counts * np.array(config.factors)).astype(int)
    if config.sampling == "oversample":
        others = np.where(np.arange(len(counts)) == kept_class, 0, counts)
        return counts + _apportion(others / max(1, others.sum()), round(config.oversample * total))
    if config.sampling == "balanced":
        return _apportion(balanced, total)
    if config.sampling == "square_root":
        return _apportion(np.sqrt(counts) / np.sqrt(counts).sum(), total)
    if config.sampling == "decay":
        progress = epoch / max(1, config.epochs - 1)
        return _apportion((1 - progress) * balanced + progress * natural, total)
    return counts


def assign_view_indices(order: np.ndarray, n_images: int) -> np.ndarray:
    """Return which view each position of an order shows.

    The first occurrence of row i shows view i; every repetition shows a new view, numbered from `n_images` on.
    """
    repeated = np.ones(len(order), dtype=bool)
    repeated[np.unique(order, return_index=True)[1]] = False
    return np.where(repeated, n_images - 1 + np.cumsum(repeated), order)


def _repeat_rows(rows: np.ndarray, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `n_samples` of the rows; no row comes again before all the others have come as often."""
    if not len(rows):
        return rows
    n_rounds = -(-n_samples // len(rows))
    return np.concatenate([rows[:0], *(rng.permutation(rows) for _ in range(n_rounds))])[:n_samples]


def _apportion(shares: np.ndarray, total: int) -> np.ndarray:
    """Split a total into whole numbers in proportion to the shares (largest remainder)."""
    exact = shares * total
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts


def check_batch_size(n_images: int, batch_size: int, min_images: int, reason: str, remedy: str) -> None:
    """Reject a `batch_size` that leaves fewer than `min_images` images in some batch of an epoch.

    The error gives the `reason` why this many images are needed, the smallest batch size that works, and the `remedy`.
    """

    def smallest_batch(size: int) -> int:
        return n_images // max(1, -(-n_images // size))

    smallest = smallest_batch(batch_size)
    if smallest >= min_images:
        return
    works = next((size for size in range(min_images, n_images + 1) if smallest_batch(size) >= min_images), None)
    advice = f"The smallest batch that works is batch_size={works}; or {remedy}." if works else f"Instead, {remedy}."
    raise UsageError(
        f"batch_size={batch_size} splits {n_images:,} images into batches of {smallest} and more; {reason}. {advice}"
    )


def check_batch_covers_processes(n_images: int, batch_size: int, n_processes: int) -> None:
    """Reject a `batch_size` that leaves some process without an image of some batch, so that it takes fewer steps."""
    reason = f"each of {n_processes} processes needs an image of every batch"
    check_batch_size(n_images, batch_size, n_processes, reason, "use fewer devices")
