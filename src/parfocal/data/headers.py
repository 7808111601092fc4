"""What an image file says of itself before a pixel is decoded, and whether all of it is there.

Decoders return half a picture from half a file, and believe any size that a header claims; both are caught here.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from parfocal.data import tiff
from parfocal.errors import ImageTooLargeError, UnreadableImageError

MAX_PIXELS = 500_000_000
MAX_BYTES = 1 << 30
"""A picture that would need more than this once decoded is refused."""
MAX_SCANS = 100
"""A JPEG comes in ten or so; each further one costs a pass over the whole picture."""

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff", ".btf"),
    "WebP": (".webp",),
    "DICOM": (".dcm", ".dicom"),
}
"""How files of each format that is read are named."""

_OTHER_SIGNATURES = {
    b"%PDF": "a PDF document, not an image",
    b"PK\x03\x04": "a ZIP archive, not an image",
    b"\x1f\x8b": "a gzip archive, not an image",
    b"version https://git-lfs": "a Git LFS pointer, not the image itself",
    b"\0\0\0\x0cjP": "a JPEG 2000 file, which is not read; save it as PNG",
    b"\xff\x4f\xff\x51": "a JPEG 2000 file, which is not read; save it as PNG",
    b"\xff\x0a": "a JPEG XL file, which is not read; save it as PNG",
}


_LIMITS: ContextVar[tuple[int, int]] = ContextVar("most", default=(MAX_PIXELS, MAX_BYTES))


@contextmanager
def limit_image_size(max_pixels: int) -> Iterator[None]:
    """Refuse pictures of more pixels, or of more than 4 bytes for each of so many, while the block runs."""
    token = _LIMITS.set((max_pixels, 4 * max_pixels))
    try:
        yield
    finally:
        _LIMITS.reset(token)


@dataclass(frozen=True)
class Header:
    """What a file declares: its kind, its size as stored, bits of a sample, channels, how to turn it, what is odd.

    `premultiplied` colours lie over black already; `inverted` ones are white at 0; `clear` is a transparent grey.
    """

    format: str
    width: int
    height: int
    bits: int = 8
    channels: int = 3
    orientation: int = 1
    notes: frozenset[str] = frozenset()
    premultiplied: bool = False
    white_is_zero: bool = False
    transparent_gray: int | None = None


def read_header(data: bytes) -> Header:
    """Return what an image file declares, or say why it cannot be a whole picture of a sane size."""
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
    return header


def get_max_bytes() -> int:
    """Return how many bytes a picture may take once decoded."""
    return _LIMITS.get()[1]


def check_image_size(width: int, height: int, bytes_per_pixel: int) -> None:
    """Raise Unreadable for a picture without pixels, TooLarge for more of them than memory should be given for."""
    most_pixels, most_bytes = _LIMITS.get()
    size = f"declares {width} × {height} pixels"
    if width <= 0 or height <= 0:
        raise UnreadableImageError(f"{size}: nothing to see")
    if width * height > most_pixels:
        raise ImageTooLargeError(f"{size}, more than {most_pixels / 1_000_000:g} million")
    if width * height * bytes_per_pixel > most_bytes:
        raise ImageTooLargeError(f"{size}, more than {most_bytes / (1 << 30):.2g} GiB once decoded")


def _read_jpeg_header(data: bytes) -> Header:
    place, frame, orientation = 2, None, 0
    while (marker := data[place + 1]) != 0xDA:
        if data[place] != 0xFF or marker in (0x00, 0xD9):
            raise ValueError("no picture follows its header")
        if marker == 0xFF:
            place += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            place += 2
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = (marker, *struct.unpack_from(">BHHB", data, place + 4))
        elif marker == 0xE1 and not orientation and data.startswith(b"Exif\0\0", place + 4):
            orientation = tiff.read_exif_orientation(data[place + 4 : place + 2 + length])
        place += 2 + length
    if frame is None:
        raise ValueError("no size before the picture")
    process, bits, height, width, channels = frame
    # In the picture itself 0xFF is always followed by 0 or a restart, so the mark of the end cannot be part of it.
    end = data.rfind(b"\xff\xd9", place)
    # Each block of 64 pixels takes a bit at the very least.
    if end < 0 or (end - place) * 8 < width * height // 64:
        raise UnreadableImageError("truncated")
    several = process == 0xC2 or data[place + 4] < channels
    if several and data.count(b"\xff\xda", place, end) > MAX_SCANS:
        raise UnreadableImageError(f"a JPEG in more than {MAX_SCANS} scans, made to take for ever")
    notes = {1: {"gray"}, 4: {"cmyk"}}.get(channels, set())
    orientation = orientation or 1
    return Header("JPEG", width, height, bits, 3, orientation, frozenset(notes | _note_rotation(orientation)))


def _read_png_header(data: bytes) -> Header:
    view, place, orientation, notes, clear = memoryview(data), 8, 0, set[str](), None
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, place)
        body, place = place + 8, place + 12 + length
        (checksum,) = struct.unpack_from(">I", data, place - 4)
        # Those of the pixels are checked by the decoder as well, and twice would take longer.
        if kind != b"IDAT" and zlib.crc32(view[body - 4 : place - 4]) != checksum:
            raise ValueError("a checksum does not match")
        if kind == b"PLTE" and colour == 3:
            notes |= _note_palette(data[body : body + length], 3)
        elif kind == b"tRNS":
            notes.add("alpha")
            if colour == 0:
                clear = int.from_bytes(data[body : body + 2]) * (255 // ((1 << min(8, bits)) - 1))
        elif kind == b"acTL":
            notes.add("animated")
        elif kind == b"eXIf" and not orientation:
            orientation = tiff.read_exif_orientation(data[body : body + length])
    orientation = orientation or 1
    notes |= {0: {"gray"}, 4: {"gray", "alpha"}, 6: {"alpha"}}.get(colour, set()) | _note_rotation(orientation)
    notes |= {"16-bit"} if bits == 16 else set()
    channels = 4 if "alpha" in notes else 3
    return Header("PNG", width, height, max(8, bits), channels, orientation, frozenset(notes), transparent_gray=clear)


def _read_bmp_header(data: bytes) -> Header:
    start, size = struct.unpack_from("<II", data, 10)
    if size < 36:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        packing, used, step = 0, 0, 3
    else:
        width, height, _, bits, packing = struct.unpack_from("<iiHHI", data, 18)
        (used,) = struct.unpack_from("<I", data, 46)
        step = 4
    masks = struct.unpack_from("<III", data, 54) if packing == 3 else ()
    if bits == 32 and masks and masks != (0xFF0000, 0xFF00, 0xFF):
        raise UnreadableImageError("a BMP whose colours lie in an unusual order; save it as PNG")
    if packing in (0, 3) and start + (width * bits + 31) // 32 * 4 * abs(height) > len(data):
        raise UnreadableImageError("truncated")
    notes = set[str]()
    if bits <= 8:
        notes = _note_palette(data[14 + size : 14 + size + step * (used or 1 << bits)], step)
    elif bits == 32 and masks and size >= 56 and struct.unpack_from("<I", data, 66) != (0,):
        notes.add("alpha")
    return Header("BMP", width, abs(height), 8, 4 if bits == 32 else 3, 1, frozenset(notes))


def _read_gif_header(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    place, frames, notes = 13, 0, set[str]()
    if flags & 0x80:
        place += 3 << (flags & 7) + 1
        notes |= _note_palette(data[13:place], 3)
    while (kind := data[place]) != 0x3B:
        if kind == 0x21:
            if data[place + 1] == 0xF9 and data[place + 3] & 1 and not frames:
                notes.add("alpha")
            place += 2
        elif kind == 0x2C:
            table = data[place + 9]
            if table & 0x80 and not frames:
                notes = notes - {"gray", "palette"} | _note_palette(
                    data[place + 10 : place + 10 + (3 << (table & 7) + 1)], 3
                )
            frames += 1
            place += 11 + (3 << (table & 7) + 1 if table & 0x80 else 0)
        else:
            raise ValueError("what follows a block is none")
        while data[place]:
            place += 1 + data[place]
        place += 1
    if not frames:
        raise ValueError("it holds no frame")
    return Header("GIF", width, height, 8, 4, 1, frozenset(notes | ({"animated"} if frames > 1 else set())))


def _read_webp_header(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise UnreadableImageError("truncated")
    kind, _, flags = struct.unpack_from("<4sIB", data, 12)
    orientation, notes = 1, set[str]()
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
        notes |= {"alpha"} if packed >> 28 & 1 else set()
    elif kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        notes |= ({"alpha"} if flags & 0x10 else set()) | ({"animated"} if flags & 0x02 else set())
        orientation = _read_webp_orientation(data, size + 8) if flags & 0x08 else 1
    else:
        raise ValueError("it does not begin with a picture")
    return Header("WebP", width, height, 8, 4, orientation, frozenset(notes | _note_rotation(orientation)))


def _read_webp_orientation(data: bytes, end: int) -> int:
    place = 12
    while place + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, place)
        if kind == b"EXIF":
            return tiff.read_exif_orientation(data[place + 8 : place + 8 + length])
        place += 8 + length + length % 2
    return 1


def _read_tiff_header(data: bytes) -> Header:
    tags, more = tiff.read_directory(data)
    if reason := tiff.describe_unsupported(tags):
        raise UnreadableImageError(f"a TIFF {reason}")
    if not tiff.is_complete(tags, len(data)):
        raise UnreadableImageError("truncated")
    bits, channels = tiff.get_value(tags, tiff.BITS, 1), tiff.get_value(tags, tiff.CHANNELS, 1)
    colour, extra = tiff.get_value(tags, tiff.PHOTOMETRIC, 1), tags.get(tiff.EXTRA_CHANNELS)
    orientation = tiff.get_orientation(tags)
    notes = {0: {"gray"}, 1: {"gray"}, 3: {"palette"}, 5: {"cmyk"}}.get(colour, set()) | _note_rotation(orientation)
    notes |= ({"animated"} if more else set()) | ({"16-bit"} if 8 < bits <= 16 else set())
    notes |= {"alpha"} if colour == 2 and channels == 4 and (extra is None or extra[0] in (1, 2)) else set()
    return Header(
        "TIFF",
        tiff.get_value(tags, tiff.WIDTH, 0),
        tiff.get_value(tags, tiff.HEIGHT, 0),
        max(8, bits),
        4,
        orientation,
        frozenset(notes),
        # The decoder itself multiplies 8-bit colours by an alpha that is declared as such.
        premultiplied=extra is not None and (extra[0] == 1 or bits <= 8),
        # It turns white and black round for up to 8 bits only.
        white_is_zero=colour == 0 and bits > 8,
    )


def _note_rotation(orientation: int) -> set[str]:
    return set() if orientation == 1 else {"rotated"}


def _note_palette(entries: bytes, step: int) -> set[str]:
    """Tell a palette of greys from one of colours."""
    return {"gray"} if entries[0::step] == entries[1::step] == entries[2::step] else {"palette"}


def _describe_other_file(data: bytes) -> str:
    """Say what a file without an image's signature is."""
    for signature, name in _OTHER_SIGNATURES.items():
        if data.startswith(signature):
            return name
    if data[4:8] == b"ftyp":
        return "an AVIF, HEIC or video file, which is not read; save it as PNG"
    start = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, not an image"
    return "text, not an image" if start.isascii() and b"\0" not in start else "not an image of a known kind"


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
