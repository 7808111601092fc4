"""Decode image files to RGB pixels: JPEG, PNG, BMP, GIF, TIFF, WebP, DICOM and arrays in an `.npz` file."""

import hashlib
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from parfocal.data.dicom import is_dicom, read_dicom
from parfocal.data.image_header import SUFFIXES, Header, count_decoding_bytes, read_header
from parfocal.data.jpeg import decode_jpeg
from parfocal.data.memory_budget import DECODING_MEMORY, MemoryReservation
from parfocal.data.npz import read_npz_array
from parfocal.data.preprocess import choose_jpeg_reduction, preprocess
from parfocal.data.tiff_strips import has_complete_strips
from parfocal.errors import UnreadableImageError
from parfocal.recipe_schema import ImagesConfig

# Images are decoded in many threads at once; OpenCV's threads would only compete with them.
cv2.setNumThreads(1)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

Pixels = np.ndarray

NOTES = ("gray", "16-bit", "alpha", "cmyk", "palette", "rotated", "animated", "dicom", "wrong-suffix")
"""Every word that ImageInfo.notes can contain, in this order."""

MAX_FILE_BYTES = 2 << 30

_PNG_BITS_POSITION = 24
_ARRAY_LOCK = threading.Lock()
_FORMAT_OF_SUFFIX = {suffix: image_format for image_format, suffixes in SUFFIXES.items() for suffix in suffixes}
_REDUCED_FLAGS = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
_ROTATIONS = {3: cv2.ROTATE_180, 6: cv2.ROTATE_90_CLOCKWISE, 7: cv2.ROTATE_180, 8: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True)
class ImageInfo:
    """What is known about an image file after decoding.

    Width and height are those of the full image, with the EXIF orientation applied. `bytes` is the size of the file.
    Images with equal pixels have the same digest. `notes` lists, separated by spaces, the words of NOTES that apply.
    """

    width: int
    height: int
    bytes: int = 0
    digest: str = ""
    notes: str = ""


def build_index_row(path: str, result: ImageInfo | str) -> dict[str, object]:
    """Return the row of an index for a file: its info, or the reason why it cannot be read."""
    if isinstance(result, str):
        return {"path": path, "width": 0, "height": 0, "bytes": 0, "digest": "", "notes": "", "error": result}
    return {"path": path, **asdict(result), "error": ""}


def get_container_file(path: str | Path) -> Path:
    """Return the file on disk of an image: the path itself, or the `.npz` file of `file.npz#member/row`."""
    return Path(str(path).partition("#")[0]) if ".npz#" in str(path) else Path(path)


def prepare_image(source: Path | bytes, config: ImagesConfig) -> tuple[Pixels, ImageInfo]:
    """Return the preprocessed RGB pixels (size, size, 3) of an image file, or of its bytes, and its info."""
    with open_image(source, config) as (image, info):
        return preprocess(image, config), info


def read_image(source: Path | bytes, config: ImagesConfig | None = None) -> tuple[Pixels, ImageInfo]:
    """Return the RGB uint8 pixels of an image file, or of its bytes, and its info, as `open_image` decodes it."""
    with open_image(source, config) as result:
        return result


def read_max_value(path: Path) -> int:
    """Return the largest color value of a 16-bit PNG or TIFF; 0 for other files, whose bit depth is known."""
    if get_container_file(path) != path or not _may_have_16_bits(path):
        return 0
    data = _read_bytes(path)
    header = read_header(data)
    if header.bits != 16:
        return 0
    with MemoryReservation(DECODING_MEMORY) as memory:
        memory.reserve(count_decoding_bytes(header, 1))
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None or image.dtype != np.uint16:
            return 0
        return int(image[..., :3].max() if image.ndim == 3 else image.max())


def _may_have_16_bits(path: Path) -> bool:
    """Return whether the first bytes of a file are those of a 16-bit PNG, or of a TIFF."""
    try:
        with path.open("rb") as file:
            start = file.read(_PNG_BITS_POSITION + 1)
    except OSError:
        return False
    return start[:2] in (b"II", b"MM") or (start.startswith(b"\x89PNG") and start[_PNG_BITS_POSITION:] == b"\x10")


@contextmanager
def open_image(source: Path | bytes, config: ImagesConfig | None = None) -> Iterator[tuple[Pixels, ImageInfo]]:
    """Decode an image file, or its bytes, to RGB uint8 pixels and its info; or raise UnreadableImageError.

    All threads share a memory budget. The image has its share of it until the block ends, so that large images wait
    for each other.

    With a config, a JPEG is decoded at reduced scale if preprocessing does not need the full resolution. Transparent
    images are blended over black. Integers of more than 8 bits are scaled by the full range of their type (65535 is
    white, whatever the brightest pixel is), so that the images of a data set stay comparable; `config.bit_depth` says
    how many bits of 16-bit files are used. Floats are taken as 0 to
    1, or as 0 to 255 if any is above 1; images with other values are rejected, because their white is unknown.
    """
    if isinstance(source, Path) and (array := _read_array_image(source)) is not None:
        yield array, _build_image_info(array, (array.shape[1], array.shape[0]), array.nbytes, set())
        return
    data = source if isinstance(source, bytes) else _read_bytes(source)
    suffix = "" if isinstance(source, bytes) else source.suffix.lower()
    with MemoryReservation(DECODING_MEMORY) as memory:
        if is_dicom(data, suffix):
            image, notes = read_dicom(data, memory)
            image_format = "DICOM"
            size = (image.shape[1], image.shape[0])
        else:
            header = read_header(data)
            reduction = 1
            if config and header.format == "JPEG":
                reduction = choose_jpeg_reduction(header.width, header.height, config)
            memory.reserve(count_decoding_bytes(header, reduction))
            image = _decode(data, header, reduction, config.bit_depth if config else None)
            notes = header.notes
            image_format = header.format
            size = (header.height, header.width) if header.orientation > 4 else (header.width, header.height)
        if _FORMAT_OF_SUFFIX.get(suffix, image_format) != image_format:
            notes.add("wrong-suffix")
        yield image, _build_image_info(image, size, len(data), notes)


def _build_image_info(image: Pixels, size: tuple[int, int], n_bytes: int, notes: set[str]) -> ImageInfo:
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return ImageInfo(*size, n_bytes, digest.hexdigest()[:32], " ".join(note for note in NOTES if note in notes))


def _read_array_image(path: Path) -> Pixels | None:
    """Return the RGB pixels of a path `file.npz#member/row`; None for the path of a file."""
    file, hash_sign, location = str(path).partition("#")
    if not hash_sign or not file.endswith(".npz"):
        return None
    member, _, row = location.partition("/")
    try:
        position = int(row)
        # All threads ask for the same array at first.
        with _ARRAY_LOCK:
            images = _load_member(file, Path(file).stat().st_mtime_ns, member)
    except FileNotFoundError:
        raise UnreadableImageError("the file is missing") from None
    except (OSError, ValueError) as error:
        raise UnreadableImageError(str(error)) from None
    n_images = len(images) if images.ndim else 0
    if not 0 <= position < n_images:
        raise UnreadableImageError(f"{member} has {n_images} images, but row {position} was requested")
    image = images[position]
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise UnreadableImageError(
            f"images of {member} are {image.dtype} of shape {image.shape}; only uint8 gray or RGB is supported"
        )
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


@lru_cache(maxsize=4)
def _load_member(file: str, modified: int, member: str) -> np.ndarray:
    """Load an array of an `.npz` file; `modified` keeps a rewritten file from being served from the cache."""
    return read_npz_array(file, member)


def _read_bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UnreadableImageError("is a directory")
        # Reading a pipe or a device might never end.
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImageError("a pipe, socket or device, not a file")
        if status.st_size > MAX_FILE_BYTES:
            raise UnreadableImageError(f"a file of more than {MAX_FILE_BYTES >> 30} GiB")
        return path.read_bytes()
    except FileNotFoundError:
        raise UnreadableImageError("the file is missing") from None
    except (OSError, ValueError) as error:
        raise UnreadableImageError((getattr(error, "strerror", None) or str(error)).lower()) from None


def _decode(data: bytes, header: Header, reduction: int, bit_depth: int | None) -> Pixels:
    if header.bits > 8 or "alpha" in header.notes:
        flags = cv2.IMREAD_UNCHANGED
    else:
        flags = _REDUCED_FLAGS.get(reduction, cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        if header.structure:
            image = decode_jpeg(data, header.structure, flags)
        else:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except MemoryError:
        raise UnreadableImageError("too large for the available memory") from None
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise UnreadableImageError("too large for the available memory") from None
        image = None
    expected_shape = (-(-header.height // reduction), -(-header.width // reduction))
    # OpenCV applies the orientation of a TIFF itself, whatever the flags say.
    is_tiff = header.format == "TIFF"
    if is_tiff and header.orientation > 4:
        expected_shape = expected_shape[::-1]
    if (
        image is None
        or image.shape[:2] != expected_shape
        or (is_tiff and not has_complete_strips(data, header.tags, image, flags))
    ):
        raise UnreadableImageError(f"a damaged {header.format}, or of a kind that is not supported")
    image = _to_rgb(image, header, bit_depth)
    if is_tiff:
        return image
    if header.orientation in (5, 7):
        image = cv2.transpose(image)
    if header.orientation in (2, 4):
        return cv2.flip(image, 1 if header.orientation == 2 else 0)
    return cv2.rotate(image, _ROTATIONS[header.orientation]) if header.orientation in _ROTATIONS else image


def _to_rgb(image: Pixels, header: Header, bit_depth: int | None) -> Pixels:
    """Convert what OpenCV decoded to 8-bit RGB, with alpha blended over black."""
    if header.transparent_gray is not None and image.ndim == 2:
        # OpenCV adds an alpha channel for a transparent color, but not for a transparent gray.
        image[image == header.transparent_gray] = 0
    if image.dtype != np.uint8:
        image = _to_uint8(image, bit_depth if bit_depth and header.bits == 16 else header.bits)
    if header.white_is_zero:
        image = 255 - image
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGB)
    if image.shape[2] == 4 and "alpha" in header.notes and not header.premultiplied:
        alpha = np.ascontiguousarray(image[..., 3])
        return cv2.multiply(rgb, cv2.merge([alpha, alpha, alpha]), scale=1 / 255)
    return rgb


def _to_uint8(image: Pixels, bits: int) -> Pixels:
    """Scale by the full range of the type; samples of 10, 12 and 14 bits are stored as uint16."""
    if image.dtype == np.uint16:
        return cv2.convertScaleAbs(image, alpha=255 / ((1 << bits) - 1))
    if image.dtype.kind == "u":
        return np.rint(image * (255 / np.iinfo(image.dtype).max)).astype(np.uint8)
    low = float(image.min())
    high = float(image.max())
    if image.dtype.kind != "f" or not 0 <= low <= high <= 255:
        raise UnreadableImageError(f"values from {low:g} to {high:g}; only 0 to 1 and 0 to 255 are supported")
    return np.rint(image * (255 if high <= 1 else 1)).astype(np.uint8)
