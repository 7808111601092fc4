"""The one way from a file to a prepared image; every verb takes it."""

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from parfocal.data.arrays import array_picture
from parfocal.data.dicom import dicom_picture, is_dicom
from parfocal.data.framing import frame, reduction
from parfocal.data.headers import Header, read_header
from parfocal.recipe import ImagesPart

# Many images are decoded side by side in threads, so OpenCV's own threads would only get in each other's way.
cv2.setNumThreads(1)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

Pixels = np.ndarray

MOST_PIXELS = 250_000_000
"""A file that declares more than this is taken for a bomb and not decoded."""
_MOST_BYTES = 2 * 2**30

_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


class Unreadable(Exception):  # noqa: N818
    """The file is not a whole image; the text says why."""


@dataclass(frozen=True)
class Facts:
    """What was learnt about a file while it was decoded.

    Width and height are those of the upright picture, `digest` is shared by equal pixels, and `notes` names, with
    spaces between, what is not plain 8-bit RGB: grey, palette, cmyk, 16-bit, alpha, rotated, animated, dicom,
    wrong-suffix.
    """

    width: int
    height: int
    bytes: int
    digest: str
    notes: str


def prepare_image(source: Path | bytes, images: ImagesPart) -> tuple[Pixels, Facts]:
    """Return the framed RGB pixels (size, size, 3) of an image file, or of its bytes, and the facts about it."""
    picture, facts = read_picture(source, images)
    return frame(picture, images), facts


def read_picture(source: Path | bytes, images: ImagesPart | None = None) -> tuple[Pixels, Facts]:
    """Return an image's upright RGB pixels, reduced where `images` would throw the rest away, and its facts."""
    try:
        stored = None if isinstance(source, bytes) else array_picture(source)
    except (OSError, ValueError) as error:
        raise Unreadable(str(error)) from None
    if stored is not None:
        return stored, _facts(stored, (stored.shape[1], stored.shape[0]), stored.nbytes, ())
    data = source if isinstance(source, bytes) else _bytes(source)
    if is_dicom(data):
        try:
            picture, notes = dicom_picture(data)
        except ValueError as error:
            raise Unreadable(str(error)) from None
        return picture, _facts(picture, (picture.shape[1], picture.shape[0]), len(data), notes)
    header = read_header(data)
    picture = _decoded(data, header, images)
    if header is None:
        return picture, _facts(picture, (picture.shape[1], picture.shape[0]), len(data), ())
    upright = (header.height, header.width) if header.orientation > 4 else (header.width, header.height)
    wrong = isinstance(source, Path) and source.suffix.lower() not in header.suffixes
    return picture, _facts(picture, upright, len(data), (*header.notes, *(["wrong-suffix"] if wrong else [])))


def _facts(picture: Pixels, size: tuple[int, int], count: int, notes: tuple[str, ...]) -> Facts:
    content = hashlib.sha256(repr(picture.shape).encode())
    content.update(np.ascontiguousarray(picture).data)
    return Facts(*size, count, content.hexdigest()[:32], " ".join(notes))


def _bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("a folder, not a file" if stat.S_ISDIR(status.st_mode) else "not a regular file")
        if status.st_size > _MOST_BYTES:
            raise Unreadable(f"the file has {status.st_size:,} bytes, more than {_MOST_BYTES:,}")
        return path.read_bytes()
    except FileNotFoundError:
        raise Unreadable("the file is missing") from None
    except (OSError, ValueError) as error:
        raise Unreadable((getattr(error, "strerror", None) or str(error)).lower()) from None


def _decoded(data: bytes, header: Header | None, images: ImagesPart | None) -> Pixels:
    if not data:
        raise Unreadable("the file is empty")
    if header is None:
        raise Unreadable("not an image of a kind that is known, or its header is damaged")
    if header.width * header.height > MOST_PIXELS:
        raise Unreadable(f"declares {header.width:,} × {header.height:,} pixels, more than {MOST_PIXELS:,} in all")
    by = reduction(header.width, header.height, images) if images and header.kind == "JPEG" else 1
    picture = _open(data, _REDUCED.get(by, cv2.IMREAD_COLOR))
    if picture is None and header.kind == "TIFF":
        picture = _from_floats(_open(data, cv2.IMREAD_UNCHANGED))
    if picture is None:
        raise Unreadable("truncated or damaged")
    if header.alpha and header.kind in ("PNG", "WebP"):
        picture = _on_black(picture, _open(data, cv2.IMREAD_UNCHANGED), header.orientation)
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _open(data: bytes, flags: int) -> Pixels | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _from_floats(values: Pixels | None) -> Pixels | None:
    """Bring floating-point values in 0–1 or 0–255 to 8 bits; other ranges mean something that is not known here."""
    if values is None or values.dtype.kind != "f":
        return None
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if not np.isfinite(values).all() or low < 0 or high > 255:
        raise Unreadable(f"floating-point values from {low:g} to {high:g}; known are 0 to 1 and 0 to 255")
    scaled = np.round(values * (255 if high <= 1 else 1)).astype(np.uint8)
    return cv2.cvtColor(scaled, cv2.COLOR_GRAY2BGR) if scaled.ndim == 2 else scaled[..., :3]


def _on_black(picture: Pixels, whole: Pixels | None, orientation: int) -> Pixels:
    """Let black through where a picture is transparent, so that hidden pixels stay hidden."""
    if whole is None or whole.ndim != 3 or whole.shape[2] != 4:
        return picture
    alpha = whole[..., 3] if whole.dtype == np.uint8 else (whole[..., 3] >> 8).astype(np.uint8)
    weights = _upright(alpha, orientation).astype(np.uint16)[..., None]
    return ((picture * weights + 127) // 255).astype(np.uint8)


def _upright(plane: Pixels, orientation: int) -> Pixels:
    """Turn and mirror a plane as EXIF's orientation says."""
    if orientation in (5, 6, 7, 8):
        plane = plane.T
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    return plane[:, ::-1] if orientation in (2, 3, 6, 7) else plane
