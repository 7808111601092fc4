"""Every mode of every format is read as Pillow reads it, or as its numbers are worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parfocal.data.decode import NOTES, prepare_image, read_image
from parfocal.errors import UnreadableImageError
from parfocal.schema import ImagesConfig
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


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_mode_is_read_rightly(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(EXAMPLES[name].data)
    pixels, facts = read_image(tmp_path / name)
    golden = EXAMPLES[name].expected
    assert pixels.dtype == np.uint8
    assert pixels.shape == golden.shape
    assert np.abs(pixels.astype(int) - golden).mean() <= EXAMPLES[name].tolerance
    assert (facts.height, facts.width) == golden.shape[:2]
    assert facts.bytes == len(EXAMPLES[name].data)
    assert set(facts.notes.split()) == set(EXAMPLES[name].notes)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("factor", [2, 5, 8])
def test_a_jpeg_is_turned_at_reduced_scale_too(turn: int, factor: int) -> None:
    data = encode_with_pillow(
        Image.fromarray(draw_scene(64 * factor, 96 * factor)), "JPEG", quality=95, exif=build_exif(turn)
    )
    quick, facts = prepare_image(data, ImagesConfig(resize_mode="squash", size=64))
    with Image.fromarray(decode_with_pillow(data)) as upright:
        golden = np.array(upright.resize((64, 64), Image.Resampling.BOX))
    assert np.abs(quick.astype(int) - golden).mean() < 2
    assert (facts.width, facts.height) == (96 * factor, 64 * factor)[:: 1 if turn < 5 else -1]


def test_a_reduced_jpeg_is_smaller_and_a_full_one_is_not() -> None:
    data = encode_with_pillow(Image.fromarray(draw_scene(400, 601)), "JPEG", quality=95)
    assert read_image(data)[0].shape == (400, 601, 3)
    assert read_image(data, ImagesConfig(size=64))[0].shape == (100, 151, 3)


def test_bytes_and_files_are_prepared_alike(tmp_path: Path) -> None:
    (tmp_path / "one.jpeg").write_bytes(EXAMPLES["rgb.jpg"].data)
    images = ImagesConfig(resize_mode="pad", size=50)
    from_file, from_bytes = (
        prepare_image(tmp_path / "one.jpeg", images),
        prepare_image(EXAMPLES["rgb.jpg"].data, images),
    )
    np.testing.assert_array_equal(from_file[0], from_bytes[0])
    assert from_file[1] == from_bytes[1]


def test_equal_pixels_share_a_digest_in_any_format() -> None:
    names = ("rgb.png", "rgb.bmp", "rgb.webp", "rgb raw.tif", "rgb 16.tif", "backward.tif")
    assert len({read_image(EXAMPLES[name].data)[1].digest for name in names}) == 1
    assert read_image(EXAMPLES["grey.png"].data)[1].digest != read_image(EXAMPLES["rgb.png"].data)[1].digest


@pytest.mark.parametrize(("name", "noted"), [("a.JPG", True), ("a.png", False), ("a", False), ("a.scan", False)])
def test_a_suffix_that_disagrees_is_noted(name: str, noted: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(EXAMPLES["rgb.png"].data)
    pixels, facts = read_image(tmp_path / name)
    np.testing.assert_array_equal(pixels, draw_scene())
    assert facts.notes == ("wrong-suffix" if noted else "")


def test_no_note_is_outside_the_vocabulary() -> None:
    assert {note for one in EXAMPLES.values() for note in one.notes} <= set(NOTES)


def test_rounding_of_16_bits_is_to_the_nearest() -> None:
    wide = np.arange(65536, dtype="<u2").reshape(256, 256)
    pixels, _ = read_image(build_tiff(wide))
    np.testing.assert_array_equal(pixels[..., 0], (wide.astype(int) * 2 + 257) // 514)


ZEROS = np.zeros((HEIGHT, WIDTH), np.float32)


@pytest.mark.parametrize(
    ("pixels", "more", "reason"),
    [
        (ZEROS + 256, {}, "numbers from 256 to 256; only 0 to 1 and 0 to 255 have a known white"),
        (ZEROS - 1, {}, "numbers from -1 to -1"),
        (ZEROS + np.nan, {}, "numbers from nan to nan"),
        (ZEROS.astype("<i2"), {}, "a TIFF of signed numbers"),
        (np.zeros((9, 9, 5), np.uint8), {}, "a TIFF of 5 channels"),
        (np.zeros((9, 9, 3), "<u2"), {"planes": 2}, "a TIFF that keeps its channels apart"),
        (np.zeros((9, 9, 3), np.uint8), {"colour": 8}, "a TIFF of colour space 8"),
    ],
)
def test_what_has_no_known_meaning_is_refused(pixels: np.ndarray, more: dict[str, int], reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=f"^{reason}"):
        read_image(build_tiff(pixels, photometric=more.get("colour"), planar_config=more.get("planes", 1)))
