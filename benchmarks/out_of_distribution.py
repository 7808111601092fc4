"""How often the out-of-distribution monitor flags images: others of the same data set, corrupted ones, and other sets.

Each folder holds `labels.csv` with the columns path and split. The monitor is fitted on `valid` and tested on `train`.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from benchmarks.machine import save_results
from parfocal.data.decode import Pixels, prepare_image
from parfocal.evaluation.out_of_distribution import OodMonitor, compute_features
from parfocal.recipe_schema import ImagesConfig

CORRUPTIONS: dict[str, Callable[[Pixels], Pixels]] = {
    "as they are": lambda pixels: pixels,
    "blurred by 4 pixels": lambda pixels: cv2.GaussianBlur(pixels, (0, 0), 4),
    "darkened to 40 %": lambda pixels: (pixels * 0.4).astype(np.uint8),
    "red and blue swapped": lambda pixels: np.ascontiguousarray(pixels[..., ::-1]),
}
_CONFIG = ImagesConfig(size=224)
_MAX_IMAGES = 600


def load_images(folder: Path, split: str) -> list[Pixels]:
    rows = pd.read_csv(folder / "labels.csv")
    chosen = rows[rows["split"] == split] if split in set(rows["split"]) else rows
    return [prepare_image(folder / path, _CONFIG)[0] for path in chosen["path"].iloc[: 2 * _MAX_IMAGES : 2]]


def compute_flagged_share(monitor: OodMonitor, images: list[Pixels], corruption: Callable[[Pixels], Pixels]) -> float:
    """Return the share of images that are flagged after a corruption."""
    return round(float(np.mean([bool(monitor.inspect(corruption(pixels))) for pixels in images])), 3)


def main() -> None:
    """Measure each data set and save the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args()
    results: dict[str, object] = {}
    unseen = {folder.name: load_images(folder, "train") for folder in arguments.folders}
    for folder in arguments.folders:
        monitor = OodMonitor.fit_features([compute_features(pixels) for pixels in load_images(folder, "valid")])
        assert monitor is not None
        shares: dict[str, float] = {"images_of_valid": monitor.n_images}
        for name, corruption in CORRUPTIONS.items():
            shares[name] = compute_flagged_share(monitor, unseen[folder.name], corruption)
        for name, images in unseen.items():
            if name != folder.name:
                shares[f"of {name}"] = compute_flagged_share(monitor, images, CORRUPTIONS["as they are"])
        results[folder.name] = shares
    save_results("out_of_distribution", results)


if __name__ == "__main__":
    main()
