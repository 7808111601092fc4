"""Encode RGB or gray pixels as the bytes of an image file."""

from pathlib import Path

import cv2

from parfocal.data.decode import Pixels
from parfocal.io import atomic_write


def encode_jpeg(pixels: Pixels, quality: int = 85) -> bytes:
    """Return RGB pixels as a JPEG file."""
    return cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[
        1
    ].tobytes()


def encode_png(pixels: Pixels) -> bytes:
    """Return RGB or gray pixels as a PNG file."""
    bgr = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", bgr)[1].tobytes()


def write_image(path: Path, pixels: Pixels) -> None:
    """Write RGB or gray pixels as a PNG or JPEG file, by its suffix, whole or not at all."""
    encoded = encode_png(pixels) if path.suffix == ".png" else encode_jpeg(pixels)
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded)
