"""How the cost of check, prepare and an epoch of batches grows with the number of images, from 1,000 to 100,000.

The images are small, so that everything but the pixels is measured.
"""

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from benchmarks.machine import measure_rate, save_results
from parfocal.data.checks import check
from parfocal.data.loader import BatchLoader
from parfocal.data.store import get_stores_folder, prepare
from parfocal.data.table import Table, build_rows
from parfocal.recipe_schema import ImagesConfig, TrainingConfig, ViewsConfig

IMAGES = ImagesConfig(size=32)
VIEWS = ViewsConfig(crop_size=28, rotate=20, flip_horizontal=0.5, brightness=0.2)


def write_images(folder: Path, n_images: int) -> Table:
    """Write small, different images, and return their table."""

    def write(number: int) -> Path:
        rng = np.random.default_rng(number)
        small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        path = folder / f"{number // 1000}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", cv2.resize(small, (32, 32), interpolation=cv2.INTER_CUBIC))[1].tobytes())
        return path

    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(write, range(n_images)))
    names = [path.stem for path in paths]
    splits = np.where(np.arange(n_images) % 10 == 0, "valid", "train").tolist()
    rows = build_rows(
        names, paths, np.arange(n_images) % 5, splits, [str(number // 2 // 10) for number in range(n_images)]
    )
    rows["group"] = rows["group"] + "-" + rows["split"]
    return Table(rows, tuple("abcde"), tuple("01234"), "synthetic")


def measure(n_images: int) -> dict[str, float]:
    """Return the milliseconds per thousand images, as the median of at least three runs."""
    n_runs = max(3, 30_000 // n_images)

    def run_prepare() -> int:
        shutil.rmtree(get_stores_folder(), ignore_errors=True)
        return len(prepare(table, IMAGES).index)

    def run_check() -> int:
        check(table, IMAGES)
        return n_images

    with tempfile.TemporaryDirectory() as folder:
        table = write_images(Path(folder), n_images)
        # Run once beforehand, so that no measurement includes the first access to files and pages.
        store = prepare(table, IMAGES)
        batches = BatchLoader(
            store.pixels,
            table.find_positions_in(store.index),
            table.rows["label"].to_numpy(),
            VIEWS,
            TrainingConfig(),
            64,
        )
        functions: dict[str, Callable[[], int]] = {
            "epoch": lambda: sum(len(labels) for _, labels in batches.train_batches(0)),
            "check": run_check,
            "prepare": run_prepare,
        }
        milliseconds: dict[str, float] = {}
        for name, run in functions.items():
            run()
            milliseconds[name] = round(statistics.median(1e6 / measure_rate(run) for _ in range(n_runs)), 1)
    return milliseconds


def main() -> None:
    """Measure and save the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as stores:
        os.environ["PARFOCAL_STORES"] = str(Path(stores) / "stores")
        growth = {str(count): measure(count) for count in arguments.counts}
    save_results("growth", {"milliseconds_per_thousand_images": growth})


if __name__ == "__main__":
    main()
