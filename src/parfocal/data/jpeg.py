"""JPEG: the frame, where the data of each scan ends, and decoding that fails where blocks are missing.

If the data of a JPEG ends early but an end marker follows, libjpeg fills the rest of the image with gray. A JPEG with a
single scan, as most are, is therefore decoded without its end marker: OpenCV then fails when it runs out of data, and
complete files cost nothing. A progressive JPEG cannot be decoded that way; see `_has_complete_scans`.
"""

import re
import struct
import warnings
from dataclasses import dataclass, field
from io import BytesIO

import cv2
import numpy as np
from PIL import JpegImagePlugin

from parfocal.data import tiff
from parfocal.errors import UnreadableImageError

MAX_SCANS = 100
"""A progressive JPEG has about ten scans; each further scan costs another pass over the whole image."""

_END = b"\xff\xd9"
# In the data of a scan, 0xFF is followed by 0, by another 0xFF, or by the number of a restart marker.
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_MARKER_EXCEPT_RESTART = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_RESTART_MARKER = re.compile(rb"\xff([\xd0-\xd7])")
_PROGRESSIVE = (0xC2, 0xCA)
_LOSSLESS = 0xC3
_PADDING = b"\xff\0" * 8
"""libjpeg reads up to 8 bytes ahead. No code consists of 1 bits only, so these bits stand for less than two blocks."""
_NOISE = bytes(range(1, 250)) * 4

# Pillow warns of damaged EXIF blocks, which are ignored here.
warnings.filterwarnings("ignore", module=r"PIL\.(JpegImagePlugin|TiffImagePlugin)")


@dataclass
class JpegStructure:
    """The frame and the scans of a JPEG.

    `sampling` has the horizontal and vertical sampling factors of each component, `scan_ends` the position after the
    data of each scan, and `missing` the coefficients of each component that no scan has completed.
    """

    process: int = 0
    bits: int = 0
    height: int = 0
    width: int = 0
    orientation: int = 0
    restart_interval: int = 0
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    scan_ends: list[int] = field(default_factory=list[int])
    missing: dict[int, set[int]] = field(default_factory=dict[int, set[int]])

    @property
    def has_single_scan(self) -> bool:
        """Whether the first scan holds the whole image."""
        is_complete = not any(self.missing.values())
        return self.process not in _PROGRESSIVE and len(self.scan_ends) == 1 and is_complete


def read_jpeg_structure(data: bytes) -> JpegStructure:
    """Return the structure of a JPEG; raise UnreadableImageError, ValueError, IndexError or struct.error if damaged."""
    structure = JpegStructure()
    position = 2
    while not structure.has_single_scan:
        marker = data[position + 1]
        if data[position] != 0xFF or marker == 0x00 or (marker == 0xD9 and not structure.scan_ends):
            raise ValueError("no image follows the header")
        if marker == 0xD9:
            break
        if marker == 0xFF:
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            position += 2
        else:
            (length,) = struct.unpack_from(">H", data, position + 2)
            segment = data[position + 4 : position + 2 + length]
            position += 2 + length
            if marker == 0xDA:
                position = _read_scan(structure, segment, data, position)
            else:
                _read_segment(structure, marker, segment)
    if any(structure.missing.values()) or data.find(_END, position) < 0:
        raise UnreadableImageError("truncated")
    return structure


def _read_segment(structure: JpegStructure, marker: int, segment: bytes) -> None:
    if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
        structure.process = marker
        structure.bits, structure.height, structure.width, n_components = struct.unpack_from(">BHHB", segment)
        for start in range(6, 6 + 3 * n_components, 3):
            structure.sampling[segment[start]] = (segment[start + 1] >> 4 or 1, segment[start + 1] & 15 or 1)
        structure.missing = {component: set(range(64)) for component in structure.sampling}
    elif marker == 0xE1 and not structure.orientation and segment.startswith(b"Exif\0\0"):
        structure.orientation = tiff.read_exif_orientation(segment)
    elif marker == 0xDD:
        (structure.restart_interval,) = struct.unpack_from(">H", segment)


def _read_scan(structure: JpegStructure, segment: bytes, data: bytes, start: int) -> int:
    """Add a scan to the structure, and return where its data ends."""
    if not structure.process:
        raise ValueError("no image size before the image")
    if len(structure.scan_ends) == MAX_SCANS:
        raise UnreadableImageError(f"a JPEG with more than {MAX_SCANS} scans, which would take too long to decode")
    components = segment[1 : 1 + 2 * segment[0] : 2]
    first, last, bit_positions = segment[1 + 2 * segment[0] :][:3]
    if structure.process not in _PROGRESSIVE:
        first, last, bit_positions = 0, 63, 0
    # The lowest bits of the coefficients can follow in a later scan.
    if not bit_positions & 15:
        for component in components:
            structure.missing.get(component, set()).difference_update(range(first, last + 1))
    marker = (_MARKER_EXCEPT_RESTART if structure.restart_interval else _MARKER).search(data, start)
    if marker is None:
        raise UnreadableImageError("truncated")
    structure.scan_ends.append(marker.start())
    if structure.restart_interval and structure.process != _LOSSLESS:
        numbers = [marker & 7 for marker in b"".join(_RESTART_MARKER.findall(data, start, structure.scan_ends[-1]))]
        n_intervals = -(-_count_units(structure, components) // structure.restart_interval)
        if numbers[: n_intervals - 1] != [number % 8 for number in range(n_intervals - 1)]:
            raise ValueError("a part of the image is missing")
    return structure.scan_ends[-1]


def _count_units(structure: JpegStructure, components: bytes) -> int:
    """Return how many units (MCUs) of a scan the restart interval counts: blocks if it has a single component."""
    widest = max(horizontal for horizontal, _ in structure.sampling.values())
    tallest = max(vertical for _, vertical in structure.sampling.values())
    horizontal, vertical = structure.sampling.get(components[0], (1, 1)) if len(components) == 1 else (1, 1)
    return -(-structure.width * horizontal // (8 * widest)) * -(-structure.height * vertical // (8 * tallest))


def decode_jpeg(data: bytes, structure: JpegStructure, flags: int) -> np.ndarray | None:
    """Decode with OpenCV; return None if the JPEG is damaged, incomplete or not supported."""
    if structure.has_single_scan:
        return cv2.imdecode(np.frombuffer(data[: structure.scan_ends[0]] + _PADDING, np.uint8), flags)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return image if image is not None and _has_complete_scans(data, structure) else None


def _has_complete_scans(data: bytes, structure: JpegStructure) -> bool:
    """Return whether each scan holds all its blocks: whether more data at the end of each scan changes nothing.

    libjpeg ignores data after the last block. OpenCV would print a warning about it, so Pillow decodes here.
    """
    starts = [0, *structure.scan_ends]
    ends = [*structure.scan_ends, len(data)]
    longer = _NOISE.join(data[start:end] for start, end in zip(starts, ends, strict=True))
    images: list[np.ndarray] = []
    for encoded in (data, longer):
        try:
            # Unlike Image.open, this has no limit on the number of pixels, which the header reader has checked.
            with JpegImagePlugin.JpegImageFile(BytesIO(encoded)) as image:
                images.append(np.asarray(image))
        except (OSError, SyntaxError, ValueError):
            return False
    return np.array_equal(images[0], images[1])
