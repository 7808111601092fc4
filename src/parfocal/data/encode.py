"""Encoding images: RGB or gray pixels to PNG, JPEG or BMP bytes."""

from collections.abc import Sequence

import cv2

from parfocal.data.decode import Pixels
from parfocal.errors import ParfocalError


def encode_image(pixels: Pixels, suffix: str, parameters: Sequence[int] = ()) -> bytes:
    """Encode RGB (height, width, 3) or gray (height, width) pixels in the format of a suffix such as `.png`.

    `parameters` are OpenCV's, for example `(cv2.IMWRITE_JPEG_QUALITY, 85)`.
    """
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    succeeded, data = cv2.imencode(suffix, pixels, parameters)
    if not succeeded:
        raise ParfocalError(f"An image of shape {pixels.shape} and type {pixels.dtype} cannot be encoded as {suffix}.")
    return data.tobytes()
