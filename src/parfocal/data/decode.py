"""The one way from a file to a prepared image; every verb takes it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from parfocal.recipe import ImagesPart

# Many images are decoded side by side in threads, so OpenCV's own threads would only get in each other's way.
cv2.setNumThreads(1)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

Pixels = np.ndarray


class Unreadable(Exception):  # noqa: N818
    """The file is not a whole image; the text says why."""


@dataclass(frozen=True)
class Facts:
    """What was learnt about a file while it was decoded: its size, and a digest that equal pixels share."""

    width: int
    height: int
    digest: str


def prepare_image(source: Path | bytes, images: ImagesPart) -> tuple[Pixels, Facts]:
    """Return the framed RGB pixels (size, size, 3) of an image file, or of its bytes, and the facts about it."""
    data = source if isinstance(source, bytes) else _bytes(source)
    picture = _decode(data, images)
    content = hashlib.blake2b(repr(picture.shape).encode(), digest_size=16)
    content.update(np.ascontiguousarray(picture).data)
    width, height = _jpeg_size(data) or (picture.shape[1], picture.shape[0])
    return frame(picture, images), Facts(width, height, content.hexdigest())


def frame(picture: Pixels, images: ImagesPart) -> Pixels:
    """Bring pixels of any shape to the recipe's square."""
    height, width = picture.shape[:2]
    side = min(height, width)
    if images.fit == "crop":
        top, left = (height - side) // 2, (width - side) // 2
        picture = picture[top : top + side, left : left + side]
    elif images.fit == "pad" and height != width:
        down, across = max(height, width) - height, max(height, width) - width
        edges = (down // 2, down - down // 2, across // 2, across - across // 2)
        picture = cv2.copyMakeBorder(picture, *edges, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    if picture.shape[:2] == (images.size, images.size):
        return np.ascontiguousarray(picture)
    method = cv2.INTER_AREA if side > images.size else cv2.INTER_LINEAR
    return cv2.resize(picture, (images.size, images.size), interpolation=method)


def _bytes(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise Unreadable("the file is missing") from None
    except OSError as error:
        raise Unreadable((error.strerror or str(error)).lower()) from None


def _decode(data: bytes, images: ImagesPart) -> Pixels:
    if not data:
        raise Unreadable("the file is empty")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), _reading(data, images))
    except cv2.error as error:
        raise Unreadable(f"not decodable: {' '.join(error.err.split())}") from None
    if picture is None:
        raise Unreadable("truncated, damaged or not an image")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _reading(data: bytes, images: ImagesPart) -> int:
    """Let the JPEG decoder itself drop resolution that the framing would throw away: two to four times faster."""
    size = _jpeg_size(data)
    if size:
        spare = min(size) / images.size
        for factor, flag in ((8, cv2.IMREAD_REDUCED_COLOR_8), (4, cv2.IMREAD_REDUCED_COLOR_4)):
            if spare >= factor:
                return flag
        if spare >= 2:
            return cv2.IMREAD_REDUCED_COLOR_2
    return cv2.IMREAD_COLOR


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Read width and height from a JPEG's frame header; None for any other file."""
    if data[:2] != b"\xff\xd8":
        return None
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(data[position + at : position + at + 2]) for at in (5, 7))
            return width, height
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return None
