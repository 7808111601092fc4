"""Image headers: format, size and orientation of a file before it is decoded, and whether the file is complete.

Decoders return half an image from a truncated file and trust any size that a header declares; both are caught here.
Pillow's `Image.open` does not notice truncation and limits images to 179 million pixels, so it cannot replace this.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from parfocal.data import tiff
from parfocal.data.jpeg import JpegStructure, read_jpeg_structure
from parfocal.errors import ImageTooLargeError, UnreadableImageError

MAX_PIXELS = 500_000_000
MAX_BYTES = 1 << 30
"""An image that needs more memory than this once decoded is rejected."""

_MAX_EXTRA_BYTES = 1 << 16
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

# The file suffixes of each supported format.
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff", ".btf"),
    "WebP": (".webp",),
    "DICOM": (".dcm", ".dicom"),
}

_OTHER_SIGNATURES = {
    b"%PDF": "a PDF document, not an image",
    b"PK\x03\x04": "a ZIP archive, not an image",
    b"\x1f\x8b": "a gzip archive, not an image",
    b"version https://git-lfs": "a Git LFS pointer, not the image itself",
    b"\0\0\0\x0cjP": "a JPEG 2000 file, which is not supported; save it as PNG",
    b"\xff\x4f\xff\x51": "a JPEG 2000 file, which is not supported; save it as PNG",
    b"\xff\x0a": "a JPEG XL file, which is not supported; save it as PNG",
}

_LIMITS: ContextVar[tuple[int, int]] = ContextVar("image size limits", default=(MAX_PIXELS, MAX_BYTES))


@contextmanager
def limit_image_size(max_pixels: int) -> Iterator[None]:
    """Reject images of more than `max_pixels` pixels, or of more than 4 bytes for each of them, inside the block."""
    token = _LIMITS.set((max_pixels, 4 * max_pixels))
    try:
        yield
    finally:
        _LIMITS.reset(token)


def get_max_bytes() -> int:
    """Return how many bytes an image may take once decoded."""
    return _LIMITS.get()[1]


def check_image_size(width: int, height: int, bytes_per_pixel: int) -> None:
    """Raise UnreadableImageError for an image without pixels, ImageTooLargeError for an image over the limits."""
    max_pixels, max_bytes = _LIMITS.get()
    size = f"declares {width} × {height} pixels"
    if width <= 0 or height <= 0:
        raise UnreadableImageError(f"{size}, so there is no image")
    if width * height > max_pixels:
        raise ImageTooLargeError(f"{size}, more than {max_pixels / 1_000_000:g} million")
    if width * height * bytes_per_pixel > max_bytes:
        raise ImageTooLargeError(f"{size}, more than {max_bytes / (1 << 30):.2g} GiB once decoded")


@dataclass(frozen=True)
class Header:
    """What an image file declares. Width and height are as stored, before the EXIF orientation is applied.

    `bits` is the number of bits of a sample. `notes` are the words of decode.NOTES that apply. `premultiplied`: the
    colors are already multiplied by alpha. `white_is_zero`: the values are inverted. `transparent_gray`: pixels of this
    value are transparent. `structure`: the scans of a JPEG. `tags`: the first
    directory of a TIFF.
    """

    format: str
    width: int
    height: int
    bits: int = 8
    channels: int = 3
    orientation: int = 1
    notes: set[str] = field(default_factory=set[str])
    premultiplied: bool = False
    white_is_zero: bool = False
    transparent_gray: int | None = None
    structure: JpegStructure | None = None
    tags: tiff.Tags = field(default_factory=dict[int, tuple[int, ...]])


def count_decoding_bytes(header: Header, reduction: int) -> int:
    """Return about how much memory decoding takes: for the samples as stored and for an RGB copy of them."""
    n_pixels = header.width * header.height
    n_bytes = n_pixels * (header.channels * max(1, header.bits // 8) + 3) // reduction**2
    if header.structure and not header.structure.has_single_scan:
        # All coefficients of a progressive JPEG, 2 bytes each, and two more images to compare.
        n_bytes += n_pixels * 12
    return n_bytes


def read_header(data: bytes) -> Header:
    """Return the header of an image file, or raise UnreadableImageError if it is truncated, damaged or too large."""
    if not data:
        raise UnreadableImageError("the file is empty")
    read = next((read for signature, read in _HEADER_READERS.items() if data.startswith(signature)), None)
    if read is None or (read is _read_webp_header and data[8:12] != b"WEBP"):
        raise UnreadableImageError(_describe_other_file(data))
    try:
        header = read(data)
    except (struct.error, IndexError, OverflowError):
        raise UnreadableImageError("truncated") from None
    except ValueError as error:
        raise UnreadableImageError(f"damaged: {error}") from None
    check_image_size(header.width, header.height, header.channels * max(1, header.bits // 8))
    if header.orientation != 1:
        header.notes.add("rotated")
    return header


def _describe_other_file(data: bytes) -> str:
    """Say what a file without an image signature is."""
    for signature, description in _OTHER_SIGNATURES.items():
        if data.startswith(signature):
            return description
    if data[4:8] == b"ftyp":
        return "an AVIF, HEIC or video file, which is not supported; save it as PNG"
    start = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, not an image"
    return "text, not an image" if start.isascii() and b"\0" not in start else "not an image of a known format"


def _read_jpeg_header(data: bytes) -> Header:
    structure = read_jpeg_structure(data)
    # Each block of 64 pixels takes at least a bit.
    if structure.scan_ends[-1] * 8 < structure.width * structure.height // 64:
        raise UnreadableImageError("truncated")
    notes = {1: {"gray"}, 4: {"cmyk"}}.get(len(structure.sampling), set())
    return Header(
        "JPEG",
        structure.width,
        structure.height,
        structure.bits,
        3,
        structure.orientation or 1,
        notes,
        structure=structure,
    )


def _read_png_header(data: bytes) -> Header:
    view = memoryview(data)
    width, height, bits, color_type = struct.unpack_from(">IIBB", data, 16)
    notes = {0: {"gray"}, 4: {"gray", "alpha"}, 6: {"alpha"}}.get(color_type, set())
    orientation = 0
    transparent_gray = None
    n_data_bytes = 0
    position = 8
    chunk = b""
    while chunk != b"IEND":
        length, chunk = struct.unpack_from(">I4s", data, position)
        body = position + 8
        position += 12 + length
        (checksum,) = struct.unpack_from(">I", data, position - 4)
        # The decoder checks the checksums of the pixels; checking them twice would take longer.
        if chunk != b"IDAT" and zlib.crc32(view[body - 4 : position - 4]) != checksum:
            raise ValueError("a checksum does not match")
        if chunk == b"IDAT":
            n_data_bytes += length
        elif chunk == b"PLTE" and color_type == 3:
            notes |= _note_palette(data[body : body + length], 3)
        elif chunk == b"tRNS":
            notes.add("alpha")
            if color_type == 0:
                transparent_gray = int.from_bytes(data[body : body + 2]) * (255 // ((1 << min(8, bits)) - 1))
        elif chunk == b"acTL":
            notes.add("animated")
        elif chunk == b"eXIf" and not orientation:
            orientation = tiff.read_exif_orientation(data[body : body + length])
    # Data that does not shrink grows by less than a thousandth, and rows are a byte longer than their pixels.
    row_bytes = width * bits * _PNG_CHANNELS.get(color_type, 4) // 8 + 2
    if n_data_bytes > 2 * row_bytes * height + _MAX_EXTRA_BYTES:
        raise ValueError(f"more image data than {width} × {height} pixels have")
    if bits == 16:
        notes.add("16-bit")
    channels = 4 if "alpha" in notes else 3
    return Header(
        "PNG", width, height, max(8, bits), channels, orientation or 1, notes, transparent_gray=transparent_gray
    )


def _read_bmp_header(data: bytes) -> Header:
    pixel_offset, header_size = struct.unpack_from("<II", data, 10)
    if header_size < 36:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
        n_colors = 0
        color_bytes = 3
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        (n_colors,) = struct.unpack_from("<I", data, 46)
        color_bytes = 4
    masks = struct.unpack_from("<III", data, 54) if compression == 3 else ()
    if bits == 32 and masks and masks != (0xFF0000, 0xFF00, 0xFF):
        raise UnreadableImageError("a BMP with an unusual channel order; save it as PNG")
    if compression in (0, 3) and pixel_offset + (width * bits + 31) // 32 * 4 * abs(height) > len(data):
        raise UnreadableImageError("truncated")
    notes = set[str]()
    if bits <= 8:
        palette = 14 + header_size
        notes = _note_palette(data[palette : palette + color_bytes * (n_colors or 1 << bits)], color_bytes)
    elif bits == 32 and masks and header_size >= 56 and struct.unpack_from("<I", data, 66) != (0,):
        notes = {"alpha"}
    return Header("BMP", width, abs(height), 8, 4 if bits == 32 else 3, 1, notes)


def _read_gif_header(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13
    n_frames = 0
    notes = set[str]()
    if flags & 0x80:
        position += 3 << (flags & 7) + 1
        notes = _note_palette(data[13:position], 3)
    while (block := data[position]) != 0x3B:
        if block == 0x21:
            if data[position + 1] == 0xF9 and data[position + 3] & 1 and not n_frames:
                notes.add("alpha")
            position += 2
        elif block == 0x2C:
            frame_flags = data[position + 9]
            palette_bytes = 3 << (frame_flags & 7) + 1 if frame_flags & 0x80 else 0
            if palette_bytes and not n_frames:
                palette = data[position + 10 : position + 10 + palette_bytes]
                notes = notes - {"gray", "palette"} | _note_palette(palette, 3)
            n_frames += 1
            position += 11 + palette_bytes
        else:
            raise ValueError("an unknown block")
        while data[position]:
            position += 1 + data[position]
        position += 1
    if not n_frames:
        raise ValueError("no frame")
    if n_frames > 1:
        notes.add("animated")
    return Header("GIF", width, height, 8, 4, 1, notes)


def _read_webp_header(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise UnreadableImageError("truncated")
    chunk, _, flags = struct.unpack_from("<4sIB", data, 12)
    orientation = 1
    notes = set[str]()
    if chunk == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    elif chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width = (bits & 0x3FFF) + 1
        height = (bits >> 14 & 0x3FFF) + 1
        if bits >> 28 & 1:
            notes.add("alpha")
    elif chunk == b"VP8X":
        width, height = (1 + int.from_bytes(data[start : start + 3], "little") for start in (24, 27))
        if flags & 0x10:
            notes.add("alpha")
        if flags & 0x02:
            notes.add("animated")
        position = 12
        while flags & 0x08 and position <= size:
            chunk, length = struct.unpack_from("<4sI", data, position)
            if chunk == b"EXIF":
                orientation = tiff.read_exif_orientation(data[position + 8 : position + 8 + length])
                break
            position += 8 + length + length % 2
    else:
        raise ValueError("the first chunk is not an image")
    return Header("WebP", width, height, 8, 4, orientation, notes)


def _read_tiff_header(data: bytes) -> Header:
    tags, has_more_pages = tiff.read_directory(data)
    if reason := tiff.describe_unsupported(tags):
        raise UnreadableImageError(f"a TIFF {reason}")
    if not tiff.is_complete(tags, len(data)):
        raise UnreadableImageError("truncated")
    bits = tiff.get_value(tags, tiff.BITS, 1)
    channels = tiff.get_value(tags, tiff.CHANNELS, 1)
    photometric = tiff.get_value(tags, tiff.PHOTOMETRIC, 1)
    extra = tags.get(tiff.EXTRA_CHANNELS)
    notes = {0: {"gray"}, 1: {"gray"}, 3: {"palette"}, 5: {"cmyk"}}.get(photometric, set())
    if has_more_pages:
        notes.add("animated")
    if 8 < bits <= 16:
        notes.add("16-bit")
    if photometric == 2 and channels == 4 and (extra is None or extra[0] in (1, 2)):
        notes.add("alpha")
    return Header(
        "TIFF",
        tiff.get_value(tags, tiff.WIDTH, 0),
        tiff.get_value(tags, tiff.HEIGHT, 0),
        max(8, bits),
        4,
        tiff.get_orientation(tags),
        notes,
        # The decoder itself multiplies 8-bit colors by a declared alpha channel.
        premultiplied=extra is not None and (extra[0] == 1 or bits <= 8),
        # The decoder inverts the values only up to 8 bits.
        white_is_zero=photometric == 0 and bits > 8,
        tags=tags,
    )


def _note_palette(palette: bytes, color_bytes: int) -> set[str]:
    is_gray = palette[0::color_bytes] == palette[1::color_bytes] == palette[2::color_bytes]
    return {"gray"} if is_gray else {"palette"}


_HEADER_READERS: dict[bytes, Callable[[bytes], Header]] = {
    b"\xff\xd8": _read_jpeg_header,
    b"\x89PNG\r\n\x1a\n": _read_png_header,
    b"BM": _read_bmp_header,
    b"GIF87a": _read_gif_header,
    b"GIF89a": _read_gif_header,
    b"RIFF": _read_webp_header,
    b"II*\0": _read_tiff_header,
    b"MM\0*": _read_tiff_header,
    b"II+\0": _read_tiff_header,
    b"MM\0+": _read_tiff_header,
}
