"""Images that lie in an array of an `.npz` file; their path is `file.npz#member/row`."""
# MERGED: """The one way from a file to a prepared image; every verb takes it."""

import hashlib
import stat
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from parfocal.data.dicom import is_dicom, read_dicom
from parfocal.data.headers import SUFFIXES, Header, read_header
from parfocal.data.preprocess import choose_jpeg_reduction, preprocess
from parfocal.errors import UnreadableImageError
from parfocal.schema import ImagesConfig


def get_container_file(path: str | Path) -> Path:
    """Return the file on disk that a path means, for an image that is a file or lies in one."""
    return Path(str(path).partition("#")[0]) if ".npz#" in str(path) else Path(path)


def read_array_image(path: Path) -> np.ndarray | None:
    """Return the RGB pixels of a path into an `.npz` file; None for any other path, ValueError with the reason."""
    file, hash_sign, place = str(path).partition("#")
    if not hash_sign or not file.endswith(".npz"):
        return None
    member, _, row = place.partition("/")
    images = _load_member(file, Path(file).stat().st_mtime_ns, member)
    number = int(row)
    if number >= len(images):
        raise ValueError(f"{member} has {len(images)} images, there is no number {number}")
    image = images[number]
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"images of {member} are {image.dtype} of shape {image.shape}; read are uint8, grey or RGB")
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


@lru_cache(maxsize=4)
def _load_member(file: str, modified: int, member: str) -> np.ndarray:
    """Load one array; `changed` makes a file that was written anew another one."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return arrays[member]
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{member} cannot be read: {error}") from None


# Many images are decoded side by side in threads, so OpenCV's own threads would only get in each other's way.
cv2.setNumThreads(1)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

Pixels = np.ndarray

NOTES = ("gray", "16-bit", "alpha", "cmyk", "palette", "rotated", "animated", "dicom", "wrong-suffix")
"""Every word that Facts.notes may hold, in the order in which it holds them."""

MAX_FILE_BYTES = 2 << 30

_FORMAT_OF_SUFFIX = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes}
_REDUCED_FLAGS = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
_ROTATIONS = {3: cv2.ROTATE_180, 6: cv2.ROTATE_90_CLOCKWISE, 7: cv2.ROTATE_180, 8: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True)
class ImageInfo:
    """What was learnt about a file while it was decoded.

    Width and height are those of the picture as it is looked at, turned as EXIF says. `bytes` is the size of the file.
    Equal pixels share a digest. `notes` names, with spaces between, what of NOTES holds.
    """

    width: int
    height: int
    bytes: int = 0
    digest: str = ""
    notes: str = ""


def build_index_row(path: str, result: ImageInfo | str) -> dict[str, object]:
    """Return what an index says of a file: its facts, or why there are none."""
    if isinstance(result, str):
        return {"path": path, "width": 0, "height": 0, "bytes": 0, "digest": "", "notes": "", "error": result}
    return {"path": path, **asdict(result), "error": ""}


def prepare_image(source: Path | bytes, config: ImagesConfig) -> tuple[Pixels, ImageInfo]:
    """Return the framed RGB pixels (size, size, 3) of an image file, or of its bytes, and the facts about it."""
    picture, facts = read_image(source, config)
    return preprocess(picture, config), facts


def read_image(source: Path | bytes, config: ImagesConfig | None = None) -> tuple[Pixels, ImageInfo]:
    """Return the RGB uint8 pixels of an image file, or of its bytes, and the facts about it; or raise Unreadable.

    A JPEG is decoded at reduced scale where `images` would throw the rest away. Alpha is laid over black. Numbers of
    more than 8 bits are scaled by the full range of their type: 65535 of a 16-bit image is white whatever its
    brightest pixel is, so the images of a set stay comparable. Floats are taken as 0 to 1, or as 0 to 255 where one is
    above 1; anything beyond has no known white and is refused.
    """
    if isinstance(source, Path) and (stored := _read_from_array(source)) is not None:
        return stored, _build_image_info(stored, (stored.shape[1], stored.shape[0]), stored.nbytes, ())
    data = source if isinstance(source, bytes) else _read_bytes(source)
    suffix = "" if isinstance(source, bytes) else source.suffix.lower()
    if is_dicom(data, suffix):
        picture, notes = read_dicom(data)
        kind, upright = "DICOM", (picture.shape[1], picture.shape[0])
    else:
        header = read_header(data)
        picture, notes, kind = _decode(data, header, config), header.notes, header.format
        upright = (header.height, header.width) if header.orientation > 4 else (header.width, header.height)
    if _FORMAT_OF_SUFFIX.get(suffix, kind) != kind:
        notes |= {"wrong-suffix"}
    return picture, _build_image_info(picture, upright, len(data), notes)


def _read_from_array(path: Path) -> Pixels | None:
    """Return an image that lies in an array; None for the path of a file."""
    try:
        return read_array_image(path)
    except FileNotFoundError:
        raise UnreadableImageError("the file is missing") from None
    except (OSError, ValueError) as error:
        raise UnreadableImageError(str(error)) from None


def _build_image_info(image: Pixels, size: tuple[int, int], n_bytes: int, notes: Iterable[str]) -> ImageInfo:
    content = hashlib.sha256(repr(image.shape).encode())
    content.update(np.ascontiguousarray(image).data)
    return ImageInfo(*size, n_bytes, content.hexdigest()[:32], " ".join(note for note in NOTES if note in notes))


def _read_bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UnreadableImageError("is a directory")
        # A pipe or a device would be waited for, or read, without end.
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImageError("not a file but a pipe, socket or device")
        if status.st_size > MAX_FILE_BYTES:
            raise UnreadableImageError(f"a file of more than {MAX_FILE_BYTES >> 30} GiB")
        return path.read_bytes()
    except FileNotFoundError:
        raise UnreadableImageError("the file is missing") from None
    except (OSError, ValueError) as error:
        raise UnreadableImageError((getattr(error, "strerror", None) or str(error)).lower()) from None


def _decode(data: bytes, header: Header, config: ImagesConfig | None) -> Pixels:
    by = choose_jpeg_reduction(header.width, header.height, config) if config and header.format == "JPEG" else 1
    whole = header.bits > 8 or "alpha" in header.notes
    flags = cv2.IMREAD_UNCHANGED if whole else _REDUCED_FLAGS.get(by, cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except MemoryError:
        raise UnreadableImageError("too large for the memory there is") from None
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise UnreadableImageError("too large for the memory there is") from None
        picture = None
    shape = -(-header.height // by), -(-header.width // by)
    # OpenCV turns a TIFF by itself, whatever it is told.
    turned = header.format == "TIFF"
    if picture is None or picture.shape[:2] != (shape[::-1] if turned and header.orientation > 4 else shape):
        raise UnreadableImageError(f"a damaged {header.format}, or of a kind that is not read")
    picture = _to_rgb(picture, header)
    return picture if turned else _apply_orientation(picture, header.orientation)


def _to_rgb(image: Pixels, header: Header) -> Pixels:
    """Bring what the decoder returned to three channels of 8 bits, red first."""
    if header.transparent_gray is not None and image.ndim == 2:
        # OpenCV makes an alpha of a transparent colour, but not of a transparent grey.
        image[image == header.transparent_gray] = 0
    if image.dtype != np.uint8:
        image = _to_uint8(image, header.bits)
    if header.white_is_zero:
        image = 255 - image
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    colours = cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGB)
    if image.shape[2] == 4 and "alpha" in header.notes and not header.premultiplied:
        alpha = np.ascontiguousarray(image[..., 3])
        return cv2.multiply(colours, cv2.merge([alpha, alpha, alpha]), scale=1 / 255)
    return colours


def _to_uint8(image: Pixels, bits: int) -> Pixels:
    """Scale by the full range of the type; 10, 12 and 14 bits come in numbers of 16."""
    if image.dtype == np.uint16:
        return cv2.convertScaleAbs(image, alpha=255 / ((1 << bits) - 1))
    if image.dtype.kind == "u":
        return np.rint(image * (255 / np.iinfo(image.dtype).max)).astype(np.uint8)
    low, high = float(image.min()), float(image.max())
    if image.dtype.kind != "f" or not 0 <= low <= high <= 255:
        raise UnreadableImageError(f"numbers from {low:g} to {high:g}; only 0 to 1 and 0 to 255 have a known white")
    return np.rint(image * (255 if high <= 1 else 1)).astype(np.uint8)


def _apply_orientation(image: Pixels, orientation: int) -> Pixels:
    """Turn and mirror as an EXIF orientation of 1 to 8 says."""
    if orientation in (5, 7):
        image = cv2.transpose(image)
    if orientation in (2, 4):
        return cv2.flip(image, 1 if orientation == 2 else 0)
    return cv2.rotate(image, _ROTATIONS[orientation]) if orientation in _ROTATIONS else image
