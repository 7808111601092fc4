"""TIFF directories, the tagged lists of numbers that head a TIFF file and that EXIF keeps inside other files."""

import struct

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, ORIENTATION, CHANNELS, STRIP_ROWS, STRIP_BYTES, PLANES = 273, 274, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, EXTRA_CHANNELS, SAMPLE_FORMAT = 322, 323, 324, 325, 338, 339

_INTEGER_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""The types of tag that hold whole numbers, and how `struct` names them; no other type is needed here."""
_PER_STRIP_TAGS = {STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES}
"""The tags with a number for each strip or tile; of the others the first number is all that is wanted."""
_KNOWN_TAGS = _PER_STRIP_TAGS | {
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, CHANNELS, STRIP_ROWS, PLANES, TILE_WIDTH, TILE_HEIGHT,
    EXTRA_CHANNELS, SAMPLE_FORMAT,
}  # fmt: skip
_MAX_TAGS = 4096
_MAX_VALUES = 1 << 18
"""Many tags may point at the same bytes, so that a small file could ask for any amount of memory."""

Tags = dict[int, tuple[int, ...]]


def read_directory(data: bytes) -> tuple[Tags, bool]:
    """Return those of the first directory's tags that are known here, and whether another directory follows.

    Raises struct.error or OverflowError where the data end too early, ValueError where they are no directory.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise ValueError("no byte order")
    (version,) = struct.unpack_from(f"{order}H", data, 2)
    if version == 42:
        count, entry, room = "H", "HHI", 4
    elif version == 43:
        count, entry, room = "Q", "HHQ", 8
    else:
        raise ValueError("no TIFF version")
    # What is told of 4 bytes begins at the 4th, what of 8 at the 8th.
    place = _read_offset(data, order, room, room)
    (entries,) = struct.unpack_from(order + count, data, place)
    if entries > _MAX_TAGS:
        raise ValueError("too many tags")
    place += struct.calcsize(order + count)
    tags: Tags = {}
    for _ in range(entries):
        tag, kind, amount = struct.unpack_from(order + entry, data, place)
        place += struct.calcsize(order + entry)
        # Where a tag is there twice, the first counts.
        if tag in _KNOWN_TAGS and tag not in tags and kind in _INTEGER_TYPES and amount:
            if amount > _MAX_VALUES:
                raise ValueError("it is in too many parts")
            letter = _INTEGER_TYPES[kind]
            start = (
                place if amount * struct.calcsize(order + letter) <= room else _read_offset(data, order, room, place)
            )
            tags[tag] = struct.unpack_from(f"{order}{amount if tag in _PER_STRIP_TAGS else 1}{letter}", data, start)
        place += room
    return tags, _read_offset(data, order, room, place) != 0


def read_exif_orientation(data: bytes) -> int:
    """Return how a picture is to be turned, 1 to 8, by EXIF; 1, as it is, where that cannot be read."""
    try:
        tags, _ = read_directory(data.removeprefix(b"Exif\0\0"))
    except (struct.error, ValueError, OverflowError):
        return 1
    return get_orientation(tags)


def get_orientation(tags: Tags) -> int:
    """Return how a picture is to be turned, 1 to 8."""
    turn = get_value(tags, ORIENTATION, 1)
    return turn if 1 <= turn <= 8 else 1


def get_value(tags: Tags, tag: int, default: int) -> int:
    """Return the first number of a tag."""
    return (tags.get(tag) or (default,))[0]


def is_complete(tags: Tags, file_size: int) -> bool:
    """Say whether all pixels lie within a file of this size; ValueError where their places are not all told."""
    offsets = tags.get(STRIP_OFFSETS) or tags.get(TILE_OFFSETS)
    lengths = tags.get(STRIP_BYTES) or tags.get(TILE_BYTES) or ()
    if not offsets or len(offsets) < _count_strips_or_tiles(tags) or len(lengths) not in (0, len(offsets)):
        raise ValueError("it does not say where all its pixels are")
    if max(map(sum, zip(offsets, lengths, strict=True)) if lengths else offsets) > file_size:
        return False
    if get_value(tags, COMPRESSION, 1) != 1:
        return True
    # Luminance and chroma may share bytes, down to little more than one a pixel.
    channels = 1 if get_value(tags, PHOTOMETRIC, 1) == 6 else get_value(tags, CHANNELS, 1)
    row = (get_value(tags, WIDTH, 0) * channels * get_value(tags, BITS, 1) + 7) // 8
    return (sum(lengths) if lengths else file_size - min(offsets)) >= row * get_value(tags, HEIGHT, 0)


def _count_strips_or_tiles(tags: Tags) -> int:
    """Return in how many strips or tiles the pixels must lie."""
    width, height = get_value(tags, WIDTH, 0), get_value(tags, HEIGHT, 0)
    planes = get_value(tags, CHANNELS, 1) if get_value(tags, PLANES, 1) == 2 else 1
    if STRIP_OFFSETS in tags:
        return planes * -(-height // max(1, get_value(tags, STRIP_ROWS, height)))
    across = -(-width // max(1, get_value(tags, TILE_WIDTH, width)))
    return planes * across * -(-height // max(1, get_value(tags, TILE_HEIGHT, height)))


def describe_unsupported(tags: Tags) -> str:
    """Say what about a TIFF the decoder would get wrong without a word; nothing for most."""
    bits, channels, colour = get_value(tags, BITS, 1), get_value(tags, CHANNELS, 1), get_value(tags, PHOTOMETRIC, 1)
    if colour not in (0, 1, 2, 3, 5, 6):
        return f"of colour space {colour}, which is not read; save it as PNG"
    if channels > (1 if colour <= 1 or colour == 3 else 4):
        return f"of {channels} channels, which are not told apart; save it as PNG"
    if bits > 8 and channels > 1 and get_value(tags, PLANES, 1) != 1:
        return "that keeps its channels apart; save it as PNG"
    if get_value(tags, SAMPLE_FORMAT, 1) == 2:
        return "of signed numbers, whose black and white are unknown; save it as 16-bit grey"
    return ""


def _read_offset(data: bytes, byte_order: str, offset_size: int, position: int) -> int:
    return struct.unpack_from(byte_order + ("I" if offset_size == 4 else "Q"), data, position)[0]
