"""The bit depth of 16-bit files is found once over the training images, and used for every other image."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from parfocal.data.bit_depth import resolve_bit_depth
from parfocal.data.decode import read_image
from parfocal.data.split import read_and_split
from parfocal.data.table import Table
from parfocal.recipe import load_recipe
from parfocal.recipe_schema import ImagesConfig
from parfocal.training.train import prepare_data, train
from tests.cells import SMALL_RECIPE


def _write_images(folder: Path, maximum: int, suffix: str = ".png") -> Path:
    """Write 16-bit images up to a maximum in train, and a brighter one in valid."""
    rows: list[tuple[str, int, str]] = []
    for number in range(6):
        split = "train" if number < 4 else "valid"
        image = np.full((8, 8), maximum // (number + 1) if split == "train" else 60_000, np.uint16)
        image[0, : number + 1] = 0
        cv2.imwrite(str(folder / f"{number}{suffix}"), image)
        rows.append((f"{number}{suffix}", number % 2, split))
    pd.DataFrame(rows, columns=["path", "label", "split"]).to_csv(folder / "labels.csv", index=False)
    return folder


def _resolve(folder: Path) -> tuple[Table, ImagesConfig]:
    return resolve_bit_depth(read_and_split(folder, load_recipe()), ImagesConfig(size=8))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("maximum", "bit_depth"), [(255, 8), (1023, 10), (4012, 12), (4096, 14), (65535, 16)])
def test_the_bit_depth_is_that_of_the_largest_training_value(
    tmp_path: Path, maximum: int, bit_depth: int, suffix: str
) -> None:
    table, config = _resolve(_write_images(tmp_path, maximum, suffix))
    assert config.bit_depth == bit_depth
    assert f"is {maximum:,}, so 16-bit images are read as {bit_depth}-bit" in table.findings[-1].message


def test_images_of_12_bits_are_as_bright_as_they_are(tmp_path: Path) -> None:
    folder = _write_images(tmp_path, 4095)
    images = ImagesConfig(size=8, bit_depth=12)
    assert read_image(folder / "1.png", images)[0].max() == 127
    assert read_image(folder / "5.png", images)[0].max() == 255
    assert read_image(folder / "1.png")[0].max() == 8


def test_data_without_16_bit_images_keeps_its_recipe(cells: Path) -> None:
    table = read_and_split(cells, load_recipe())
    config = ImagesConfig(size=8)
    assert resolve_bit_depth(table, config) == (table, config)


def test_training_says_and_keeps_the_bit_depth(tmp_path: Path) -> None:
    lines: list[str] = []
    recipe = load_recipe(size=8, crop_size=8, by="image")
    prepared = prepare_data(_write_images(tmp_path, 4012), recipe, lines.append)
    assert prepared.store.config.bit_depth == 12
    assert "bit_depth=12" in lines[-1]
    assert "bit_depth" in {finding.code for finding in prepared.findings}


@pytest.mark.usefixtures("blank_figures")
def test_a_run_keeps_the_bit_depth_and_is_resumed_with_it(tmp_path: Path) -> None:
    folder = _write_images(tmp_path, 4012)
    changes: dict[str, Any] = {**SMALL_RECIPE, "epochs": 1, "by": "image"}
    (run,) = train(folder, out=tmp_path / "runs", **changes)
    assert run.recipe.images.bit_depth == 12
    train(folder, out=tmp_path / "runs", resume=True, **changes)
