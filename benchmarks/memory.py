"""How the anonymous memory of a training process grows with the size of the Store, over one epoch of batches.

Mapped pixels do not count: the system can take them back at any time.
"""

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.machine import save_results
from parfocal.data.loader import BatchLoader
from parfocal.recipe_schema import TrainingConfig, ViewsConfig


def anonymous_memory() -> float:
    """Return the anonymous memory of the process, in megabytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def measure_epoch_memory(gigabytes: float) -> float:
    """Return how many megabytes the anonymous memory grows during an epoch with a Store of that size."""
    n_images = round(gigabytes * 1e9 / (256 * 256 * 3))
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.lib.format.open_memmap(Path(folder) / "pixels.npy", "w+", np.uint8, (n_images, 256, 256, 3))
        pixels = np.load(Path(folder) / "pixels.npy", mmap_mode="r")
        views = ViewsConfig(crop_size=224, rotate=20, flip_horizontal=0.5, brightness=0.2)
        indices = np.arange(n_images)
        batches = BatchLoader(pixels, indices, indices % 5, views, TrainingConfig(), 32)
        before = anonymous_memory()
        largest = 0.0
        for step, _ in enumerate(batches.train_batches(0)):
            if step % 50 == 0:
                largest = max(largest, anonymous_memory())
    return round(largest - before, 1)


def main() -> None:
    """Measure each size in a new process, and save the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.5, 2, 8])
    arguments = parser.parse_args()
    growth: dict[str, float] = {}
    for size in arguments.gigabytes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            growth[f"{size:g} GB"] = process.submit(measure_epoch_memory, size).result()
    save_results("memory", {"own_megabytes_by_size_of_store": growth})


if __name__ == "__main__":
    main()
