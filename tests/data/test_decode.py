"""Decoding: every mode of every format is read as Pillow reads it, or as its values are computed by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parfocal.data.decode import NOTES, prepare_image, read_image
from parfocal.errors import UnreadableImageError
from parfocal.recipe_schema import ImagesConfig
from tests.data.example_files import (
    HEIGHT,
    WIDTH,
    build_example_files,
    build_exif,
    build_tiff,
    decode_with_pillow,
    draw_scene,
    encode_with_pillow,
)

EXAMPLES = build_example_files()
ZEROS = np.zeros((HEIGHT, WIDTH), np.float32)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_mode_is_read_correctly(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name]
    (tmp_path / name).write_bytes(example.data)
    pixels, info = read_image(tmp_path / name)
    assert pixels.dtype == np.uint8
    assert pixels.shape == example.expected.shape
    assert np.abs(pixels.astype(int) - example.expected).mean() <= example.tolerance
    assert (info.height, info.width) == example.expected.shape[:2]
    assert info.bytes == len(example.data)
    assert set(info.notes.split()) == set(example.notes)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("factor", [2, 5, 8])
def test_the_orientation_is_applied_to_a_reduced_jpeg(orientation: int, factor: int) -> None:
    scene = Image.fromarray(draw_scene(64 * factor, 96 * factor))
    data = encode_with_pillow(scene, "JPEG", quality=95, exif=build_exif(orientation))
    pixels, info = prepare_image(data, ImagesConfig(resize_mode="squash", size=64))
    with Image.fromarray(decode_with_pillow(data)) as upright:
        expected = np.array(upright.resize((64, 64), Image.Resampling.BOX))
    assert np.abs(pixels.astype(int) - expected).mean() < 2
    assert (info.width, info.height) == (96 * factor, 64 * factor)[:: 1 if orientation < 5 else -1]


def test_a_jpeg_is_reduced_only_with_a_config() -> None:
    data = encode_with_pillow(Image.fromarray(draw_scene(400, 601)), "JPEG", quality=95)
    assert read_image(data)[0].shape == (400, 601, 3)
    assert read_image(data, ImagesConfig(size=64))[0].shape == (100, 151, 3)


def test_bytes_and_files_give_the_same_pixels(tmp_path: Path) -> None:
    data = EXAMPLES["rgb.jpg"].data
    (tmp_path / "image.jpeg").write_bytes(data)
    config = ImagesConfig(resize_mode="pad", size=50)
    from_file = prepare_image(tmp_path / "image.jpeg", config)
    from_bytes = prepare_image(data, config)
    np.testing.assert_array_equal(from_file[0], from_bytes[0])
    assert from_file[1] == from_bytes[1]


def test_equal_pixels_have_the_same_digest_in_every_format() -> None:
    names = ("rgb.png", "rgb.bmp", "rgb.webp", "rgb raw.tif", "rgb 16.tif", "big-endian.tif")
    assert len({read_image(EXAMPLES[name].data)[1].digest for name in names}) == 1
    assert read_image(EXAMPLES["gray.png"].data)[1].digest != read_image(EXAMPLES["rgb.png"].data)[1].digest


@pytest.mark.parametrize(("name", "is_wrong"), [("a.JPG", True), ("a.png", False), ("a", False), ("a.scan", False)])
def test_a_wrong_suffix_is_noted(name: str, is_wrong: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(EXAMPLES["rgb.png"].data)
    pixels, info = read_image(tmp_path / name)
    np.testing.assert_array_equal(pixels, draw_scene())
    assert info.notes == ("wrong-suffix" if is_wrong else "")


def test_every_note_of_the_examples_is_a_known_note() -> None:
    assert {note for example in EXAMPLES.values() for note in example.notes} <= set(NOTES)


def test_16_bits_are_rounded_to_the_nearest_8_bit_value() -> None:
    values = np.arange(65536, dtype="<u2").reshape(256, 256)
    pixels, _ = read_image(build_tiff(values))
    np.testing.assert_array_equal(pixels[..., 0], (values.astype(int) * 2 + 257) // 514)


@pytest.mark.parametrize(
    ("pixels", "options", "reason"),
    [
        (ZEROS + 256, {}, "values from 256 to 256; only 0 to 1 and 0 to 255 are supported"),
        (ZEROS - 1, {}, "values from -1 to -1"),
        (ZEROS + np.nan, {}, "values from nan to nan"),
        (ZEROS.astype("<i2"), {}, "a TIFF with signed values"),
        (np.zeros((9, 9, 5), np.uint8), {}, "a TIFF with 5 channels"),
        (np.zeros((9, 9, 3), "<u2"), {"planar_config": 2}, "a TIFF with more than 8 bits in separate color planes"),
        (np.zeros((9, 9, 3), np.uint8), {"photometric": 8}, "a TIFF in color space 8"),
    ],
)
def test_values_without_a_known_meaning_are_rejected(pixels: np.ndarray, options: dict[str, int], reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=f"^{reason}"):
        read_image(build_tiff(pixels, **options))  # type: ignore[arg-type]
