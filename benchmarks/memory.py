"""How a training process's own memory grows with the size of the Store: over an epoch of batches, nothing else.

Its own is what is anonymous; mapped pixels belong to the system, which takes them back when it needs to.
"""

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.machine import save_results
from parfocal.data.loader import BatchLoader
from parfocal.schema import TrainingConfig, ViewsConfig


def anonymous_memory() -> float:
    """Return the process's own memory, in megabytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def measure_epoch_memory(gigabytes: float) -> float:
    """Return by how many megabytes the process's own memory grows over an epoch of a Store of that size."""
    count = round(gigabytes * 1e9 / (256 * 256 * 3))
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.lib.format.open_memmap(Path(folder) / "pixels.npy", "w+", np.uint8, (count, 256, 256, 3))
        pixels = np.load(Path(folder) / "pixels.npy", mmap_mode="r")
        views = ViewsConfig(crop_size=224, rotate=20, flip_horizontal=0.5, brightness=0.2)
        places = np.arange(count)
        batches = BatchLoader(pixels, places, places % 5, views, TrainingConfig(), 32)
        before, most = anonymous_memory(), 0.0
        for number, _ in enumerate(batches.train_batches(0)):
            if number % 50 == 0:
                most = max(most, anonymous_memory())
    return round(most - before, 1)


def main() -> None:
    """Measure each size in a fresh process, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.5, 2, 8])
    given = parser.parse_args()
    grown: dict[str, float] = {}
    for size in given.gigabytes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            grown[f"{size:g} GB"] = fresh.submit(measure_epoch_memory, size).result()
    save_results("memory", {"own_megabytes_by_size_of_store": grown})


if __name__ == "__main__":
    main()
