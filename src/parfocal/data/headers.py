"""What an image file says of itself before it is decoded: kind, size, depth, colours, orientation, frames."""

import struct
from dataclasses import dataclass, replace

_TIFF_TYPES = {1: "B", 2: "c", 3: "H", 4: "I"}
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _EXTRA = 256, 257, 258, 262, 274, 277, 338


@dataclass(frozen=True)
class Header:
    """The facts of a header. `colour` is grey, palette, rgb or cmyk; `width` and `height` are as stored, unrotated."""

    kind: str
    suffixes: tuple[str, ...]
    width: int
    height: int
    bits: int = 8
    colour: str = "rgb"
    alpha: bool = False
    orientation: int = 1
    animated: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """Name everything about the file that is not plain 8-bit RGB."""
        named = {
            self.colour: self.colour != "rgb",
            f"{self.bits}-bit": self.bits > 8,
            "alpha": self.alpha,
            "rotated": self.orientation != 1,
            "animated": self.animated,
        }
        return tuple(note for note, holds in named.items() if holds)


def read_header(data: bytes) -> Header | None:
    """Read a file's header; None where the kind is not known or the header is damaged."""
    for start, read in _READERS:
        if data.startswith(start):
            try:
                return read(data)
            except (struct.error, IndexError, KeyError, ZeroDivisionError):
                return None
    return None


def _jpeg(data: bytes) -> Header | None:
    position, orientation = 2, 1
    while data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker == 0xE1 and data[position + 4 : position + 10] == b"Exif\0\0":
            orientation = _orientation(data[position + 10 : position + 2 + length])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, components = struct.unpack_from(">BHHB", data, position + 4)
            colour = {1: "grey", 3: "rgb", 4: "cmyk"}[components]
            return Header("JPEG", (".jpg", ".jpeg"), width, height, bits, colour, orientation=orientation)
        position += 2 + length
    return None


def _png(data: bytes) -> Header:
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    names = {0: "grey", 2: "rgb", 3: "palette", 4: "grey", 6: "rgb"}
    header = Header("PNG", (".png", ".apng"), width, height, max(8, bits), names[colour], alpha=colour in (4, 6))
    position = 8
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"IDAT":
            break
        content = data[position + 8 : position + 8 + length]
        if name == b"tRNS":
            header = replace(header, alpha=True)
        elif name == b"acTL":
            header = replace(header, animated=True)
        elif name == b"eXIf":
            header = replace(header, orientation=_orientation(content))
        position += 12 + length
    return header


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height, _, bits = struct.unpack_from("<HHHH" if size == 12 else "<iiHH", data, 18)
    return Header("BMP", (".bmp", ".dib"), width, abs(height), colour="palette" if bits <= 8 else "rgb")


def _gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position, frames = 13 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0), 0
    while position < len(data) and data[position] in (0x21, 0x2C) and frames < 2:
        if data[position] == 0x2C:
            frames += 1
            local = data[position + 9]
            position += 11 + (3 * 2 ** ((local & 7) + 1) if local & 0x80 else 0)
        else:
            position += 2
        while data[position]:
            position += 1 + data[position]
        position += 1
    return Header("GIF", (".gif",), width, height, colour="palette", animated=frames > 1)


def _webp(data: bytes) -> Header | None:
    if data[8:12] != b"WEBP":
        return None
    kind, suffixes = data[12:16], (".webp",)
    if kind == b"VP8X":
        flags = data[20]
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        place = data.find(b"EXIF") if flags & 0x08 else -1
        orientation = _orientation(data[place + 8 :].removeprefix(b"Exif\0\0")) if place > 0 else 1
        alpha, animated = bool(flags & 0x10), bool(flags & 0x02)
        return Header("WebP", suffixes, width, height, alpha=alpha, orientation=orientation, animated=animated)
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
        return Header("WebP", suffixes, width, height, alpha=bool(packed >> 28 & 1))
    width, height = struct.unpack_from("<HH", data, 26)
    return Header("WebP", suffixes, width & 0x3FFF, height & 0x3FFF)


def _tiff(data: bytes) -> Header:
    tags, following = _directory(data)
    photometric, samples = tags.get(_PHOTOMETRIC, 1), tags.get(_SAMPLES, 1)
    colour = {0: "grey", 1: "grey", 3: "palette", 5: "cmyk"}.get(photometric, "rgb")
    orientation = tags.get(_ORIENTATION, 1)
    return Header(
        "TIFF",
        (".tif", ".tiff"),
        tags[_WIDTH],
        tags[_HEIGHT],
        max(8, tags.get(_BITS, 1)),
        colour,
        alpha=_EXTRA in tags and samples in (2, 4),
        orientation=orientation if 1 <= orientation <= 8 else 1,
        animated=following != 0,
    )


def _directory(data: bytes) -> tuple[dict[int, int], int]:
    """Return the first value of each tag of a TIFF's first directory, and where the next one begins."""
    order = "<" if data[:2] == b"II" else ">"
    (place,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, place)
    tags: dict[int, int] = {}
    for number in range(count):
        at = place + 2 + 12 * number
        tag, kind, length = struct.unpack_from(f"{order}HHI", data, at)
        letter = _TIFF_TYPES.get(kind)
        if letter in ("B", "H", "I"):
            inline = length * struct.calcsize(letter) <= 4
            value_at = at + 8 if inline else struct.unpack_from(f"{order}I", data, at + 8)[0]
            tags[tag] = struct.unpack_from(order + letter, data, value_at)[0]
    (following,) = struct.unpack_from(f"{order}I", data, place + 2 + 12 * count)
    return tags, following


def _orientation(exif: bytes) -> int:
    """Return the orientation in an EXIF block, 1 where there is none or it is damaged."""
    try:
        value = _directory(exif)[0].get(_ORIENTATION, 1)
    except struct.error:
        return 1
    return value if 1 <= value <= 8 else 1


_READERS = (
    (b"\xff\xd8", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"BM", _bmp),
    (b"GIF8", _gif),
    (b"RIFF", _webp),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
)
