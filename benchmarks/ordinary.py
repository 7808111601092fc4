"""How often images are called out of the ordinary: others of the same set, the same ones spoilt, and other sets.

Each folder holds `labels.csv` with the columns path and split; `valid` says what is ordinary, `train` is asked.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from benchmarks.machine import save_results
from parfocal.data.decode import Pixels, prepare_image
from parfocal.evaluation.out_of_distribution import OodMonitor, compute_features, fit_ood_monitor
from parfocal.schema import ImagesConfig

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
    """Return the share of images that are out of the ordinary once they are changed."""
    return round(
        float(np.mean([bool(monitor.find_unusual_features(compute_features(corruption(one)))) for one in images])), 3
    )


def main() -> None:
    """Measure each set and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    given = parser.parse_args()
    found: dict[str, object] = {}
    others = {folder.name: load_images(folder, "train") for folder in given.folders}
    for folder in given.folders:
        ordinary = fit_ood_monitor([compute_features(one) for one in load_images(folder, "valid")])
        assert ordinary is not None
        found[folder.name] = {
            "images_of_valid": ordinary.n_images,
            **{name: compute_flagged_share(ordinary, others[folder.name], change) for name, change in CORRUPTIONS.items()},
            **{f"of {name}": compute_flagged_share(ordinary, images, CORRUPTIONS["as they are"])
               for name, images in others.items() if name != folder.name},
        }  # fmt: skip
    save_results("ordinary", found)


if __name__ == "__main__":
    main()
