"""How cost grows with the number of images: check, prepare and an epoch of batches over 1,000 to 100,000 of them.

The images are small, so that what is measured is everything around the pixels. Memory is that which is the process's
own (anonymous): mapped pixels belong to the system, which takes them back when it needs to.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from benchmarks.machine import keep
from parfocal.data.batches import Batches
from parfocal.data.check import check
from parfocal.data.store import prepare, stores_folder
from parfocal.data.table import Table, assemble
from parfocal.recipe import ImagesPart, TrainingPart, ViewsPart

IMAGES = ImagesPart(size=32)
VIEWS = ViewsPart(crop=28, rotate=20, flip_horizontal=0.5, brightness=0.2)


def write_images(folder: Path, count: int) -> Table:
    """Write small images, no two alike, and return their table."""

    def write(number: int) -> Path:
        dice = np.random.default_rng(number)
        small = dice.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        path = folder / f"{number // 1000}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", cv2.resize(small, (32, 32), interpolation=cv2.INTER_CUBIC))[1].tobytes())
        return path

    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(write, range(count)))
    names = [path.stem for path in paths]
    splits = np.where(np.arange(count) % 10 == 0, "valid", "train").tolist()
    rows = assemble(names, paths, np.arange(count) % 5, splits, [str(number // 2 // 10) for number in range(count)])
    rows["group"] = rows["group"] + "-" + rows["split"]
    return Table(rows, tuple("abcde"), tuple("01234"), "drawn")


def per_thousand(run: Callable[[], object], count: int) -> float:
    """Return the milliseconds that a thousand images take."""
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) / count * 1e6


def own_memory() -> float:
    """Return the process's own memory, in megabytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def measure(count: int) -> dict[str, float]:
    """Measure one number of images: the median of several runs where they are short."""
    runs = max(3, 30_000 // count)

    def prepared() -> object:
        shutil.rmtree(stores_folder(), ignore_errors=True)
        return prepare(table, IMAGES)

    with tempfile.TemporaryDirectory() as folder:
        table = write_images(Path(folder), count)
        # Once ahead, so that nobody pays for first touching files and pages.
        store = prepare(table, IMAGES)
        batches = Batches(store.pixels, store.places(table), table.rows["label"].to_numpy(), VIEWS, TrainingPart(), 64)
        work: dict[str, Callable[[], object]] = {
            "epoch": lambda: sum(1 for _ in batches.epoch(0)),
            "check": lambda: check(table, IMAGES),
            "prepare": prepared,
        }
        figures: dict[str, float] = {}
        for name, run in work.items():
            run()
            figures[name] = round(float(np.median([per_thousand(run, count) for _ in range(runs)])), 1)
    return figures


def memory_of_an_epoch(gigabytes: float) -> float:
    """Return by how many megabytes the process's own memory grows over an epoch of a Store of that size."""
    count = round(gigabytes * 1e9 / (256 * 256 * 3))
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.lib.format.open_memmap(Path(folder) / "pixels.npy", "w+", np.uint8, (count, 256, 256, 3))
        pixels = np.load(Path(folder) / "pixels.npy", mmap_mode="r")
        views = ViewsPart(crop=224, rotate=20, flip_horizontal=0.5, brightness=0.2)
        places = np.arange(count)
        batches = Batches(pixels, places, places % 5, views, TrainingPart(), 32)
        before, most = own_memory(), 0.0
        for number, _ in enumerate(batches.epoch(0)):
            if number % 50 == 0:
                most = max(most, own_memory())
    return round(most - before, 1)


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.5, 2, 8])
    given = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as stores:
        os.environ["PARFOCAL_STORES"] = str(Path(stores) / "stores")
        growth = {str(count): measure(count) for count in given.counts}
    memory = {f"{size:g} GB": memory_of_an_epoch(size) for size in given.gigabytes}
    found = {"milliseconds_per_thousand_images": growth, "own_megabytes_of_an_epoch_by_size_of_store": memory}
    for key, value in found.items():
        print(f"{key}: {value}")
    print(f"Kept: {keep('growth', found)}")


if __name__ == "__main__":
    main()
