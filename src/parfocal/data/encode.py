"""Encode RGB or gray pixels as the bytes of an image file: PNG, JPEG or BMP."""

from collections.abc import Sequence
from pathlib import Path

import cv2

from parfocal.data.decode import Pixels
from parfocal.errors import ParfocalError
from parfocal.io import atomic_write


def encode_image(pixels: Pixels, suffix: str, parameters: Sequence[int] = ()) -> bytes:
    """Encode gray (height, width), RGB (height, width, 3) or RGBA pixels in the format of a suffix such as `.png`.

    `parameters` are those of OpenCV, for example `(cv2.IMWRITE_JPEG_QUALITY, 85)`.
    """
    if pixels.ndim == 3:
        # OpenCV has blue first.
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    succeeded, data = cv2.imencode(suffix, pixels, parameters)
    if not succeeded:
        raise ParfocalError(f"An image of shape {pixels.shape} and type {pixels.dtype} cannot be encoded as {suffix}.")
    return data.tobytes()


def encode_jpeg(pixels: Pixels, quality: int = 85) -> bytes:
    """Encode RGB or gray pixels as JPEG."""
    return encode_image(pixels, ".jpg", (cv2.IMWRITE_JPEG_QUALITY, quality))


def write_image(path: Path, pixels: Pixels) -> None:
    """Write RGB or gray pixels as a PNG or JPEG file, by its suffix, whole or not at all."""
    encoded = encode_image(pixels, ".png") if path.suffix == ".png" else encode_jpeg(pixels)
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded)
