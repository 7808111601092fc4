"""How often images are called out of the ordinary: others of the same set, the same ones spoilt, and other sets.

Each folder holds `labels.csv` with the columns path and split; `valid` says what is ordinary, `train` is asked.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from benchmarks.machine import report
from parfocal.data.decode import Pixels, prepare_image
from parfocal.evaluation.ordinary import Ordinary, fitted_ordinary, measures
from parfocal.parts import ImagesPart

SPOILT: dict[str, Callable[[Pixels], Pixels]] = {
    "as they are": lambda pixels: pixels,
    "blurred by 4 pixels": lambda pixels: cv2.GaussianBlur(pixels, (0, 0), 4),
    "darkened to 40 %": lambda pixels: (pixels * 0.4).astype(np.uint8),
    "red and blue swapped": lambda pixels: np.ascontiguousarray(pixels[..., ::-1]),
}
_IMAGES = ImagesPart(size=224)
_MOST = 600


def images_of(folder: Path, split: str) -> list[Pixels]:
    rows = pd.read_csv(folder / "labels.csv")
    chosen = rows[rows["split"] == split] if split in set(rows["split"]) else rows
    return [prepare_image(folder / path, _IMAGES)[0] for path in chosen["path"].iloc[: 2 * _MOST : 2]]


def flagged(ordinary: Ordinary, images: list[Pixels], change: Callable[[Pixels], Pixels]) -> float:
    """Return the share of images that are out of the ordinary once they are changed."""
    return round(float(np.mean([bool(ordinary.unusual(measures(change(one)))) for one in images])), 3)


def main() -> None:
    """Measure each set and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    given = parser.parse_args()
    found: dict[str, object] = {}
    others = {folder.name: images_of(folder, "train") for folder in given.folders}
    for folder in given.folders:
        ordinary = fitted_ordinary([measures(one) for one in images_of(folder, "valid")])
        assert ordinary is not None
        found[folder.name] = {
            "images_of_valid": ordinary.images,
            **{name: flagged(ordinary, others[folder.name], change) for name, change in SPOILT.items()},
            **{f"of {name}": flagged(ordinary, images, SPOILT["as they are"])
               for name, images in others.items() if name != folder.name},
        }  # fmt: skip
    report("ordinary", found)


if __name__ == "__main__":
    main()
