"""Small cells in the leukemia lab's format, drawn and quick to learn, and the recipe changes that suit them."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

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
    """Draw cells in the leukemia lab's format, two to a patient, and return the folder."""
    dice = np.random.default_rng(7)
    patients: list[tuple[str, str]] = []
    for split, count in (("train", train), ("valid", valid), ("test", test)):
        names = [f"./new_dataset/{split}/{number}.bmp" for number in range(count)]
        labels = [number % 2 for number in range(count)]
        (folder / "new_dataset" / split).mkdir(parents=True)
        for name, label in zip(names, labels, strict=True):
            write_image(folder / name, draw_cell(dice, label, side))
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
    """Draw one RGB cell on black."""
    image = np.zeros((side, side, 3), np.uint8)
    centre = (side // 2 + int(rng.integers(-2, 3)), side // 2 + int(rng.integers(-2, 3)))
    cv2.circle(image, centre, side // 3, (200, 170, 220), -1)
    cv2.circle(image, centre, side // (4 if label else 8), (110, 40, 140), -1)
    noise = rng.normal(0, 6, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def write_image(path: Path, image: np.ndarray) -> None:
    """Write RGB pixels in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, image[..., ::-1] if image.ndim == 3 else image)
    assert done
    path.write_bytes(data.tobytes())
