"""TIFF tags: the first image file directory (IFD) of a TIFF file, and EXIF blocks, which have the same structure."""

import struct

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, ORIENTATION, CHANNELS, STRIP_ROWS, STRIP_BYTES, PLANES = 273, 274, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, EXTRA_CHANNELS, SAMPLE_FORMAT = 322, 323, 324, 325, 338, 339

_INTEGER_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""The tag types that hold integers, and their `struct` format; no other type is needed here."""
_PER_STRIP_TAGS = {STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES}
"""The tags with a value for each strip or tile; for the others, the first value is enough."""
_KNOWN_TAGS = _PER_STRIP_TAGS | {
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, CHANNELS, STRIP_ROWS, PLANES, TILE_WIDTH, TILE_HEIGHT,
    EXTRA_CHANNELS, SAMPLE_FORMAT,
}  # fmt: skip
_MAX_TAGS = 4096
_MAX_VALUES = 1 << 18
"""Many tags can point at the same bytes, so without a limit a small file could demand any amount of memory."""

Tags = dict[int, tuple[int, ...]]


def read_directory(data: bytes) -> tuple[Tags, bool]:
    """Return the tags of the first directory that are known here, and whether another directory follows.

    Raises struct.error or OverflowError if the data is truncated, ValueError if it is not a directory.
    """
    byte_order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if byte_order is None:
        raise ValueError("no byte order")
    (version,) = struct.unpack_from(f"{byte_order}H", data, 2)
    if version == 42:
        count_format, entry_format, offset_size = "H", "HHI", 4
    elif version == 43:
        count_format, entry_format, offset_size = "Q", "HHQ", 8
    else:
        raise ValueError("no TIFF version")
    # The offset of the first directory is at byte 4 in TIFF, at byte 8 in BigTIFF.
    position = _read_offset(data, byte_order, offset_size, offset_size)
    (n_entries,) = struct.unpack_from(byte_order + count_format, data, position)
    if n_entries > _MAX_TAGS:
        raise ValueError("too many tags")
    position += struct.calcsize(byte_order + count_format)
    tags: Tags = {}
    for _ in range(n_entries):
        tag, tag_type, n_values = struct.unpack_from(byte_order + entry_format, data, position)
        position += struct.calcsize(byte_order + entry_format)
        # If a tag occurs twice, the first counts.
        if tag in _KNOWN_TAGS and tag not in tags and tag_type in _INTEGER_TYPES and n_values:
            if n_values > _MAX_VALUES:
                raise ValueError("too many strips or tiles")
            value_format = _INTEGER_TYPES[tag_type]
            start = position
            if n_values * struct.calcsize(byte_order + value_format) > offset_size:
                start = _read_offset(data, byte_order, offset_size, position)
            n_needed = n_values if tag in _PER_STRIP_TAGS else 1
            tags[tag] = struct.unpack_from(f"{byte_order}{n_needed}{value_format}", data, start)
        position += offset_size
    return tags, _read_offset(data, byte_order, offset_size, position) != 0


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
    # In YCbCr, chroma subsampling can leave little more than a byte per pixel.
    channels = 1 if get_value(tags, PHOTOMETRIC, 1) == 6 else get_value(tags, CHANNELS, 1)
    row_bytes = (width * channels * get_value(tags, BITS, 1) + 7) // 8
    available = sum(lengths) if lengths else file_size - min(offsets)
    return available >= row_bytes * height


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


def _read_offset(data: bytes, byte_order: str, offset_size: int, position: int) -> int:
    return struct.unpack_from(byte_order + ("I" if offset_size == 4 else "Q"), data, position)[0]
