"""TIFF directories, the tagged lists of numbers that head a TIFF file and that EXIF keeps inside other files."""

import struct

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, ORIENTATION, CHANNELS, STRIP_ROWS, STRIP_BYTES, PLANES = 273, 274, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, EXTRA_CHANNELS, SAMPLE_FORMAT = 322, 323, 324, 325, 338, 339

_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""The types of tag that hold whole numbers, and how `struct` names them; no other type is needed here."""
_MOST_TAGS = 4096

Tags = dict[int, tuple[int, ...]]


def read_directory(data: bytes) -> tuple[Tags, bool]:
    """Return the first directory's whole-number tags, and whether another directory follows.

    Raises struct.error or OverflowError where the data end too early, ValueError where they are no directory.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise ValueError("no byte order")
    (version,) = struct.unpack_from(f"{order}H", data, 2)
    if version == 42:
        (place,) = struct.unpack_from(f"{order}I", data, 4)
        count, entry, room = "H", "HHI", 4
    elif version == 43:
        (place,) = struct.unpack_from(f"{order}Q", data, 8)
        count, entry, room = "Q", "HHQ", 8
    else:
        raise ValueError("no TIFF version")
    (entries,) = struct.unpack_from(order + count, data, place)
    if entries > _MOST_TAGS:
        raise ValueError("too many tags")
    place += struct.calcsize(order + count)
    tags: Tags = {}
    for _ in range(entries):
        tag, kind, amount = struct.unpack_from(order + entry, data, place)
        place += struct.calcsize(order + entry)
        if kind in _WHOLE_NUMBERS:
            tags[tag] = _values(data, f"{order}{amount}{_WHOLE_NUMBERS[kind]}", place, order, room)
        place += room
    (following,) = struct.unpack_from(order + ("I" if room == 4 else "Q"), data, place)
    return tags, following != 0


def exif_orientation(data: bytes) -> int:
    """Return how a picture is to be turned, 1 to 8, by EXIF; 1, as it is, where that cannot be read."""
    try:
        tags, _ = read_directory(data.removeprefix(b"Exif\0\0"))
    except (struct.error, ValueError, OverflowError):
        return 1
    return orientation(tags)


def orientation(tags: Tags) -> int:
    """Return how a picture is to be turned, 1 to 8."""
    turn = one(tags, ORIENTATION, 1)
    return turn if 1 <= turn <= 8 else 1


def one(tags: Tags, tag: int, otherwise: int) -> int:
    """Return the first number of a tag."""
    return (tags.get(tag) or (otherwise,))[0]


def whole(tags: Tags, size: int) -> bool:
    """Say whether all pixels lie within a file of this size; ValueError where their places are not all told."""
    offsets = tags.get(STRIP_OFFSETS) or tags.get(TILE_OFFSETS)
    lengths = tags.get(STRIP_BYTES) or tags.get(TILE_BYTES) or ()
    if not offsets or len(offsets) < _places(tags) or len(lengths) not in (0, len(offsets)):
        raise ValueError("it does not say where all its pixels are")
    if max(map(sum, zip(offsets, lengths, strict=True)) if lengths else offsets) > size:
        return False
    if one(tags, COMPRESSION, 1) != 1:
        return True
    # Luminance and chroma may share bytes, down to little more than one a pixel.
    channels = 1 if one(tags, PHOTOMETRIC, 1) == 6 else one(tags, CHANNELS, 1)
    row = (one(tags, WIDTH, 0) * channels * one(tags, BITS, 1) + 7) // 8
    return (sum(lengths) if lengths else size - min(offsets)) >= row * one(tags, HEIGHT, 0)


def _places(tags: Tags) -> int:
    """Return in how many strips or tiles the pixels must lie."""
    width, height = one(tags, WIDTH, 0), one(tags, HEIGHT, 0)
    planes = one(tags, CHANNELS, 1) if one(tags, PLANES, 1) == 2 else 1
    if STRIP_OFFSETS in tags:
        return planes * -(-height // max(1, one(tags, STRIP_ROWS, height)))
    across = -(-width // max(1, one(tags, TILE_WIDTH, width)))
    return planes * across * -(-height // max(1, one(tags, TILE_HEIGHT, height)))


def unusual(tags: Tags) -> str:
    """Say what about a TIFF the decoder would get wrong without a word; nothing for most."""
    bits, channels, colour = one(tags, BITS, 1), one(tags, CHANNELS, 1), one(tags, PHOTOMETRIC, 1)
    if colour not in (0, 1, 2, 3, 5, 6):
        return f"of colour space {colour}, which is not read; save it as PNG"
    if channels > (1 if colour <= 1 or colour == 3 else 4):
        return f"of {channels} channels, which are not told apart; save it as PNG"
    if bits > 8 and channels > 1 and one(tags, PLANES, 1) != 1:
        return "that keeps its channels apart; save it as PNG"
    if one(tags, SAMPLE_FORMAT, 1) == 2:
        return "of signed numbers, whose black and white are unknown; save it as 16-bit grey"
    return ""


def _values(data: bytes, layout: str, place: int, order: str, room: int) -> tuple[int, ...]:
    if struct.calcsize(layout) > room:
        (place,) = struct.unpack_from(order + ("I" if room == 4 else "Q"), data, place)
    return struct.unpack_from(layout, data, place)
