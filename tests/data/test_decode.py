"""From a file to a prepared image: framing, reduced decoding, and reasons for what cannot be read."""

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from parfocal.data.decode import Unreadable, frame, prepare_image
from parfocal.recipe import ImagesPart


def _coloured(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)[None, :]
    image[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    return image


def _encoded(image: np.ndarray, suffix: str, *settings: int) -> bytes:
    done, data = cv2.imencode(suffix, image[..., ::-1] if image.ndim == 3 else image, settings)
    assert done
    return data.tobytes()


@pytest.mark.parametrize("suffix", [".bmp", ".png", ".tif", ".webp", ".jpeg"])
def test_formats_give_the_same_rgb_pixels(suffix: str) -> None:
    image = _coloured(64, 64)
    pixels, facts = prepare_image(_encoded(image, suffix), ImagesPart(size=64))
    assert np.abs(pixels.astype(int) - image).mean() < (0 if suffix in (".bmp", ".png", ".tif") else 3) + 1e-9
    assert (facts.width, facts.height) == (64, 64)


def test_a_grey_image_becomes_three_equal_channels() -> None:
    grey = _coloured(40, 40)[..., 0]
    pixels, _ = prepare_image(_encoded(grey, ".png"), ImagesPart(size=40))
    assert (pixels == grey[..., None]).all()


def test_squash_keeps_all_crop_the_middle_pad_the_shape() -> None:
    image = _coloured(100, 200)
    squashed, cropped, padded = (frame(image, ImagesPart(fit=fit, size=100)) for fit in ("squash", "crop", "pad"))
    assert {one.shape for one in (squashed, cropped, padded)} == {(100, 100, 3)}
    assert squashed[50, 0, 0] < 3
    assert squashed[50, -1, 0] > 252
    np.testing.assert_array_equal(cropped, image[:, 50:150])
    assert padded[:24].max() == 0
    assert padded[50, -1, 0] > 250


@pytest.mark.parametrize("factor", [2, 3, 4, 9])
def test_reduced_jpeg_decoding_stays_near_the_full_one(factor: int) -> None:
    dice = np.random.default_rng(0)
    rough = cv2.GaussianBlur(dice.integers(0, 256, (64 * factor, 80 * factor, 3)).astype(np.uint8), (0, 0), 3 * factor)
    rough = cv2.normalize(rough, np.empty_like(rough), 0, 255, cv2.NORM_MINMAX)
    data = _encoded(rough, ".jpeg", cv2.IMWRITE_JPEG_QUALITY, 95)
    images = ImagesPart(fit="crop", size=64)
    quick, facts = prepare_image(data, images)
    with Image.open(BytesIO(data)) as image:
        full = frame(np.array(image), images)
    assert np.abs(quick.astype(int) - full).mean() < 2
    assert (facts.width, facts.height) == (80 * factor, 64 * factor)


def test_bytes_and_files_are_prepared_alike(tmp_path: Path) -> None:
    data = _encoded(_coloured(90, 120), ".jpeg")
    (tmp_path / "one.jpeg").write_bytes(data)
    images = ImagesPart(fit="pad", size=50)
    from_file, from_bytes = prepare_image(tmp_path / "one.jpeg", images), prepare_image(data, images)
    np.testing.assert_array_equal(from_file[0], from_bytes[0])
    assert from_file[1] == from_bytes[1]


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "the file is empty"), (b"GIF89a", "truncated, damaged"), (b"\xff\xd8\xff", "damaged")]
)
def test_what_is_no_image_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        prepare_image(data, ImagesPart())


def test_a_missing_file_and_a_folder_say_so(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="the file is missing"):
        prepare_image(tmp_path / "gone.png", ImagesPart())
    with pytest.raises(Unreadable, match="is a directory"):
        prepare_image(tmp_path, ImagesPart())
