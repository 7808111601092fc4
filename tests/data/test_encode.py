"""Encoding keeps the order of the channels: red first in memory, as in the file."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parfocal.data.encode import encode_image, encode_jpeg, write_image


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4)], ids=["gray", "RGB", "RGBA"])
def test_a_png_holds_exactly_the_pixels(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(BytesIO(encode_image(pixels, ".png"))) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_the_suffix_decides_the_format_of_a_file(tmp_path: Path) -> None:
    red = np.full((16, 16, 3), (255, 0, 0), np.uint8)
    for name, expected in (("a.png", "PNG"), ("a.jpg", "JPEG")):
        write_image(tmp_path / name, red)
        with Image.open(tmp_path / name) as image:
            assert image.format == expected
            assert np.abs(np.asarray(image).astype(int) - red).max() <= 2


def test_a_lower_jpeg_quality_makes_a_smaller_file() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert len(encode_jpeg(pixels, 30)) < len(encode_jpeg(pixels, 90))
