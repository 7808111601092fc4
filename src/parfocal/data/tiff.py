"""TIFF tags: the first image file directory (IFD) of a TIFF file, and EXIF blocks, which have the same structure."""

import struct
from dataclasses import dataclass

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, ORIENTATION, CHANNELS, STRIP_ROWS, STRIP_BYTES, PLANES = 273, 274, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, EXTRA_CHANNELS, SAMPLE_FORMAT = 322, 323, 324, 325, 338, 339
JPEG_TABLES = 347

_INTEGER_TYPES = {1: "B", 3: "H", 4: "I", 7: "B", 13: "I", 16: "Q", 18: "Q"}
"""The tag types that hold integers or bytes, and their `struct` format; no other type is needed here."""
_LONG_TAGS = {STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES, JPEG_TABLES}
"""The tags whose values are all needed, such as one for each strip; for the others, the first value is enough."""
_KNOWN_TAGS = _LONG_TAGS | {
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, CHANNELS, STRIP_ROWS, PLANES, TILE_WIDTH, TILE_HEIGHT,
    EXTRA_CHANNELS, SAMPLE_FORMAT,
}  # fmt: skip
_MAX_TAGS = 4096
_MAX_VALUES = 1 << 18
"""Many tags can point at the same bytes, so without a limit a small file could demand any amount of memory."""

Tags = dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class _Directory:
    """Where the first directory is: the position of its first entry, and how TIFF or BigTIFF writes it."""

    byte_order: str
    count_format: str
    entry_format: str
    offset_format: str
    n_entries: int
    position: int

    @property
    def offset_size(self) -> int:
        return struct.calcsize(self.offset_format)

    @property
    def entry_size(self) -> int:
        """Return the size of an entry: tag, type, number of values, and a value or its offset."""
        return struct.calcsize(self.entry_format) + self.offset_size


def _find_directory(data: bytes) -> _Directory:
    byte_order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if byte_order is None:
        raise ValueError("no byte order")
    (version,) = struct.unpack_from(f"{byte_order}H", data, 2)
    formats = {42: ("H", "HHI", "I"), 43: ("Q", "HHQ", "Q")}.get(version)
    if formats is None:
        raise ValueError("no TIFF version")
    count_format, entry_format, offset_format = (byte_order + layout for layout in formats)
    # The offset of the first directory is at byte 4 in TIFF, at byte 8 in BigTIFF.
    (position,) = struct.unpack_from(offset_format, data, struct.calcsize(offset_format))
    (n_entries,) = struct.unpack_from(count_format, data, position)
    if n_entries > _MAX_TAGS:
        raise ValueError("too many tags")
    position += struct.calcsize(count_format)
    return _Directory(byte_order, count_format, entry_format, offset_format, n_entries, position)


def read_directory(data: bytes) -> tuple[Tags, bool]:
    """Return the tags of the first directory that are known here, and whether another directory follows.

    Raises struct.error or OverflowError if the data is truncated, ValueError if it is not a directory.
    """
    directory = _find_directory(data)
    position = directory.position
    tags: Tags = {}
    for _ in range(directory.n_entries):
        tag, tag_type, n_values = struct.unpack_from(directory.entry_format, data, position)
        position += directory.entry_size
        # If a tag occurs twice, the first counts.
        if tag in _KNOWN_TAGS and tag not in tags and tag_type in _INTEGER_TYPES and n_values:
            if n_values > _MAX_VALUES:
                raise ValueError("too many strips or tiles")
            value_format = directory.byte_order + _INTEGER_TYPES[tag_type]
            start = position - directory.offset_size
            if n_values * struct.calcsize(value_format) > directory.offset_size:
                (start,) = struct.unpack_from(directory.offset_format, data, start)
            n_needed = n_values if tag in _LONG_TAGS else 1
            tags[tag] = struct.unpack_from(f"{value_format[0]}{n_needed}{value_format[1]}", data, start)
    return tags, struct.unpack_from(directory.offset_format, data, position) != (0,)


def replace_strips(data: bytes, strips: list[bytes]) -> bytes:
    """Return a TIFF with other strips or tiles: they and a new first directory are appended."""
    directory = _find_directory(data)
    longer = bytearray(data)
    offsets: list[int] = []
    for strip in strips:
        offsets.append(len(longer))
        longer += strip
    integers = f"{directory.byte_order}{len(strips)}{directory.offset_format[1]}"
    integer_type = 4 if directory.offset_size == 4 else 16
    start = directory.position - struct.calcsize(directory.count_format)
    end = directory.position + directory.n_entries * directory.entry_size + directory.offset_size
    entries = bytearray(data[start:end])
    for position in range(directory.position - start, end - start - directory.offset_size, directory.entry_size):
        (tag,) = struct.unpack_from(directory.byte_order + "H", entries, position)
        values = {STRIP_OFFSETS: offsets, TILE_OFFSETS: offsets}.get(tag)
        if tag in (STRIP_BYTES, TILE_BYTES):
            values = [len(strip) for strip in strips]
        if values is None:
            continue
        struct.pack_into(directory.entry_format, entries, position, tag, integer_type, len(values))
        position += directory.entry_size - directory.offset_size
        # A single value stands in the entry itself.
        struct.pack_into(directory.offset_format, entries, position, values[0] if len(values) == 1 else len(longer))
        longer += struct.pack(integers, *values)
    longer += bytes(len(longer) % 2)
    struct.pack_into(directory.offset_format, longer, directory.offset_size, len(longer))
    return bytes(longer + entries)


def read_exif_orientation(data: bytes) -> int:
    """Return the orientation, 1 to 8, of an EXIF block; 1 (upright) if it cannot be read."""
    try:
        tags, _ = read_directory(data.removeprefix(b"Exif\0\0"))
    except (struct.error, ValueError, OverflowError):
        return 1
    return get_orientation(tags)


def get_orientation(tags: Tags) -> int:
    """Return the orientation, 1 to 8; 1 (upright) if the tag is missing or invalid."""
    orientation = get_value(tags, ORIENTATION, 1)
    return orientation if 1 <= orientation <= 8 else 1


def get_value(tags: Tags, tag: int, default: int) -> int:
    """Return the first value of a tag."""
    return (tags.get(tag) or (default,))[0]


def is_complete(tags: Tags, file_size: int) -> bool:
    """Return whether all pixels lie within a file of this size; ValueError if their offsets are missing."""
    width = get_value(tags, WIDTH, 0)
    height = get_value(tags, HEIGHT, 0)
    if STRIP_OFFSETS in tags:
        n_pieces = -(-height // max(1, get_value(tags, STRIP_ROWS, height)))
    else:
        tiles_per_row = -(-width // max(1, get_value(tags, TILE_WIDTH, width)))
        n_pieces = tiles_per_row * -(-height // max(1, get_value(tags, TILE_HEIGHT, height)))
    if get_value(tags, PLANES, 1) == 2:
        n_pieces *= get_value(tags, CHANNELS, 1)
    offsets = tags.get(STRIP_OFFSETS) or tags.get(TILE_OFFSETS)
    lengths = tags.get(STRIP_BYTES) or tags.get(TILE_BYTES) or ()
    if not offsets or len(offsets) < n_pieces or len(lengths) not in (0, len(offsets)):
        raise ValueError("strip or tile offsets are missing")
    ends = map(sum, zip(offsets, lengths, strict=True)) if lengths else offsets
    if max(ends) > file_size:
        return False
    if get_value(tags, COMPRESSION, 1) != 1:
        return True
    n_planes = get_value(tags, CHANNELS, 1) if get_value(tags, PLANES, 1) == 2 else 1
    available = sum(lengths) if lengths else file_size - min(offsets)
    return available >= count_row_bytes(tags, width) * height * n_planes


def count_row_bytes(tags: Tags, width: int) -> int:
    """Return the least number of bytes of a row of pixels, in a plane if each channel has a plane of its own."""
    # In YCbCr, chroma subsampling can leave little more than a byte per pixel.
    is_single = get_value(tags, PHOTOMETRIC, 1) == 6 or get_value(tags, PLANES, 1) == 2
    channels = 1 if is_single else get_value(tags, CHANNELS, 1)
    return (width * channels * get_value(tags, BITS, 1) + 7) // 8


def describe_unsupported(tags: Tags) -> str:
    """Describe what the decoder would silently get wrong in this TIFF; empty for most files."""
    bits = get_value(tags, BITS, 1)
    channels = get_value(tags, CHANNELS, 1)
    photometric = get_value(tags, PHOTOMETRIC, 1)
    if photometric not in (0, 1, 2, 3, 5, 6):
        return f"in color space {photometric}, which is not supported; save it as PNG"
    if channels > (1 if photometric in (0, 1, 3) else 4):
        return f"with {channels} channels, which is not supported; save it as PNG"
    if bits > 8 and channels > 1 and get_value(tags, PLANES, 1) != 1:
        return "with more than 8 bits in separate color planes; save it as PNG"
    if get_value(tags, SAMPLE_FORMAT, 1) == 2:
        return "with signed values, whose black and white are undefined; save it as 16-bit grayscale"
    return ""
