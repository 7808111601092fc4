"""Prepare photographs of 3888×2592 pixels at 512: Parfocal against the source documents, and two cores against one.

The source documents read with `cv2.imread`, resize the shorter side to 512 (INTER_AREA), and crop the center.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np

from benchmarks.machine import measure_rate, median_ratio, save_results
from parfocal.data.decode import prepare_image
from parfocal.data.store import get_stores_folder, prepare
from parfocal.data.table import Table, build_rows
from parfocal.recipe_schema import ImagesConfig
from parfocal.synthetic.dataset import synthesize_fundus

IMAGES = ImagesConfig(resize_mode="crop", size=512)


def draw_photographs(folder: Path, n_images: int) -> list[Path]:
    """Synthesize fundus photographs with the size and JPEG quality of those of the competition."""
    synthetic = sorted((synthesize_fundus(folder / "synthetic", 25, size=1600)).rglob("*.jpeg"))[:n_images]
    paths: list[Path] = []
    for number in range(n_images):
        image = cv2.imread(str(synthetic[number % len(synthetic)]))
        assert image is not None
        large = cv2.resize(image, (3888, 2592), interpolation=cv2.INTER_CUBIC)
        noise = np.random.default_rng(number).normal(0, 2, (2592, 3888, 1))
        path = folder / f"{number}.jpeg"
        cv2.imwrite(str(path), np.clip(large + noise, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])
        paths.append(path)
    return paths


def prepare_plain(path: Path) -> np.ndarray:
    """Prepare a photograph as the source documents do."""
    image = cv2.imread(str(path))
    assert image is not None
    height, width = image.shape[:2]
    scale = 512 / min(height, width)
    image = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    top, left = (image.shape[0] - 512) // 2, (image.shape[1] - 512) // 2
    return cv2.cvtColor(image[top : top + 512, left : left + 512], cv2.COLOR_BGR2RGB)


def compare(n_images: int, n_rounds: int) -> dict[str, object]:
    """Measure in turns, and return all results and the ratios of medians."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        paths = draw_photographs(Path(name), n_images)
        names = [path.stem for path in paths]
        table = Table(
            build_rows(names, paths, [0] * n_images, ["train"] * n_images, names), ("a", "b"), ("0", "1"), "synthetic"
        )
        pairs = [(prepare_image(path, IMAGES)[0].astype(int), prepare_plain(path)) for path in paths]
        differences = [np.abs(ours - documents).mean() for ours, documents in pairs]

        def run_prepare(workers: int) -> float:
            shutil.rmtree(get_stores_folder(), ignore_errors=True)
            return measure_rate(lambda: len(prepare(table, IMAGES, workers=workers).index))

        rates: dict[str, list[float]] = {"ours, one core": [], "ours, two cores": [], "documents, one core": []}
        for _ in range(n_rounds):
            rates["documents, one core"].append(measure_rate(lambda: len([prepare_plain(path) for path in paths])))
            rates["ours, one core"].append(run_prepare(1))
            rates["ours, two cores"].append(run_prepare(2))
    return {
        "images_per_second": {name: [round(value, 2) for value in values] for name, values in rates.items()},
        "ours_over_documents_per_core": round(median_ratio(rates["ours, one core"], rates["documents, one core"]), 2),
        "two_cores_over_one": round(median_ratio(rates["ours, two cores"], rates["ours, one core"]), 2),
        "mean_difference_in_gray_levels": round(float(np.mean(differences)), 3),
    }


def main() -> None:
    """Measure and save the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as stores:
        os.environ["PARFOCAL_STORES"] = str(Path(stores) / "stores")
        save_results("preparing", compare(arguments.images, arguments.rounds))


if __name__ == "__main__":
    main()
