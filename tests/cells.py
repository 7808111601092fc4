"""A small data set of drawn cells in the format of the leukemia lab, quick to learn, and a recipe that suits it."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from parfocal.data.encode import encode_image

SMALL_RECIPE: dict[str, Any] = {
    "size": 40,
    "crop_size": 32,
    "model": "resnet20",
    "epochs": 3,
    "batch_size": 8,
    "precision": "float32",
    "flip_horizontal": 0.5,
    "rotate": 20,
}


def draw_cells(folder: Path, train: int = 48, valid: int = 16, test: int = 12, side: int = 48) -> Path:
    """Draw cells in the format of the leukemia lab, two of each patient, and return the folder."""
    rng = np.random.default_rng(7)
    patients: list[tuple[str, str]] = []
    for split, count in (("train", train), ("valid", valid), ("test", test)):
        names = [f"./new_dataset/{split}/{number}.bmp" for number in range(count)]
        labels = [number % 2 for number in range(count)]
        (folder / "new_dataset" / split).mkdir(parents=True)
        for name, label in zip(names, labels, strict=True):
            write_image(folder / name, draw_cell(rng, label, side))
        patients += [(name, f"{split}-{number // 4}-{number % 2}") for number, name in enumerate(names)]
        if split == "test":
            for network in (18, 50, 152):
                pd.DataFrame({"Path": names}).to_csv(folder / f"resnet_{network}_test.csv", index=False)
            pd.DataFrame({"Path": names, "label": labels}).to_csv(folder / "test_truth.csv", index=False)
        else:
            pd.DataFrame({"Path": names, "label": labels}).to_csv(folder / f"{split}.csv", index=False)
    pd.DataFrame(patients, columns=["Path", "patient"]).to_csv(folder / "patients.csv", index=False)
    return folder


def draw_cell(rng: np.random.Generator, label: int, side: int) -> np.ndarray:
    """Draw an RGB cell on black; label 1, a blast, has the larger nucleus."""
    image = np.zeros((side, side, 3), np.uint8)
    center = (side // 2 + int(rng.integers(-2, 3)), side // 2 + int(rng.integers(-2, 3)))
    cv2.circle(image, center, side // 3, (200, 170, 220), -1)
    cv2.circle(image, center, side // (4 if label else 8), (110, 40, 140), -1)
    noise = rng.normal(0, 6, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def write_image(path: Path, image: np.ndarray) -> None:
    """Write RGB or gray pixels in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(image, path.suffix))
