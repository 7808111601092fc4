"""TIFF strips and tiles: whether each decodes to all of its pixels. OpenCV ignores it if one does not."""

import hashlib
import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np

from parfocal.data import tiff
from parfocal.data.jpeg import decode_jpeg, read_jpeg_structure
from parfocal.errors import UnreadableImageError

_UNCOMPRESSED, _FAX3, _FAX4, _LZW, _JPEG, _DEFLATE = 1, 3, 4, 5, 7, (8, 32946)
_LZW_END, _LZW_LITERAL = 257, 85
_NOISE = hashlib.sha512(b"noise").digest() * 8
# After an error, a decoder of fax group 3 looks for the end of the line.
_FAX3_NOISE = b"\0\1".join(_NOISE[start:] for start in range(0, 64, 8))
# The same color as in the line above, which ends any other code; then 4 white and 4 black pixels, again and again.
_FAX4_NOISE = int("1" * 16 + "0011011011" * 400, 2).to_bytes(502)
# Codes of few bits are in every LZW table.
_LZW_NOISE = bytes(6) + sum(1 << 13 * n for n in range(40)).to_bytes(65)
_MAX_EXTRA_BYTES = 1 << 24


def has_complete_strips(data: bytes, tags: tiff.Tags, image: np.ndarray, flags: int) -> bool:
    """Return whether each strip or tile is complete. `image` is what OpenCV decodes from the file with these flags.

    Deflate has a length and a checksum, JPEG is decoded such that missing blocks are an error, and LZW has an end code.
    Any other strip is complete if more data at its end changes nothing in the image.
    """
    compression = tiff.get_value(tags, tiff.COMPRESSION, _UNCOMPRESSED)
    offsets = tags.get(tiff.STRIP_OFFSETS) or tags.get(tiff.TILE_OFFSETS) or ()
    lengths = tags.get(tiff.STRIP_BYTES) or tags.get(tiff.TILE_BYTES)
    if compression == _UNCOMPRESSED or not lengths:
        return True
    strips = [data[start : start + length] for start, length in zip(offsets, lengths, strict=True)]
    if compression in _DEFLATE:
        return all(_is_inflatable(*pair) for pair in zip(strips, _count_strip_bytes(tags), strict=False))
    if compression == _JPEG:
        tables = bytes(tags.get(tiff.JPEG_TABLES, ()))
        return all(_is_complete_jpeg(strip, tables) for strip in strips)
    if compression == _LZW:
        # Of the strips that end early, some have the end code by chance, but the rest of such a strip is black.
        if all(map(_has_lzw_end, strips)) and not _may_end_in_filler(tags, image):
            return True
        strips = [_remove_lzw_end(strip) if _has_lzw_end(strip) else strip for strip in strips]
    noise = {_FAX3: _FAX3_NOISE, _FAX4: _FAX4_NOISE, _LZW: _LZW_NOISE}.get(compression, _NOISE)
    longer = tiff.replace_strips(data, [strip + noise for strip in strips])
    return np.array_equal(image, cv2.imdecode(np.frombuffer(longer, np.uint8), flags))  # pyright: ignore


def _count_strip_bytes(tags: tiff.Tags) -> Iterator[int]:
    """Yield the number of bytes that each strip or tile has once decompressed."""
    width = tiff.get_value(tags, tiff.WIDTH, 0)
    height = tiff.get_value(tags, tiff.HEIGHT, 0)
    row_bytes = tiff.count_row_bytes(tags, width)
    n_planes = tiff.get_value(tags, tiff.CHANNELS, 1) if tiff.get_value(tags, tiff.PLANES, 1) == 2 else 1
    if tiff.STRIP_OFFSETS not in tags:
        tile_bytes = tiff.count_row_bytes(tags, tiff.get_value(tags, tiff.TILE_WIDTH, width))
        tile_bytes *= tiff.get_value(tags, tiff.TILE_HEIGHT, height)
        yield from (tile_bytes for _ in tags[tiff.TILE_OFFSETS])
        return
    n_rows = min(height, max(1, tiff.get_value(tags, tiff.STRIP_ROWS, height)))
    for _ in range(n_planes):
        yield from (row_bytes * min(n_rows, height - top) for top in range(0, height, n_rows))


def _is_inflatable(strip: bytes, n_bytes: int) -> bool:
    """Return whether a strip inflates to its pixels, and its checksum matches, which is at the end of the data."""
    decompressor = zlib.decompressobj()
    try:
        inflated = decompressor.decompress(strip, n_bytes)
        # The last strip can have more rows than the image.
        decompressor.decompress(decompressor.unconsumed_tail, _MAX_EXTRA_BYTES)
    except zlib.error:
        return False
    return len(inflated) == n_bytes and decompressor.eof


def _is_complete_jpeg(strip: bytes, tables: bytes) -> bool:
    encoded = (tables[:-2] + strip[2:] if tables else strip) + b"\xff\xd9"
    try:
        structure = read_jpeg_structure(encoded)
    except (UnreadableImageError, ValueError, IndexError, struct.error):
        return False
    return decode_jpeg(encoded, structure, cv2.IMREAD_REDUCED_GRAYSCALE_8) is not None


def _has_lzw_end(strip: bytes) -> bool:
    """Return whether the last code of an LZW strip, of 9 to 12 bits, is the end code, and only 0 bits follow."""
    tail = int.from_bytes(strip[-4:])
    n_unused = _count_unused_bits(tail)
    return n_unused < 8 and any((tail >> n_unused) % (1 << width) == _LZW_END for width in range(9, 13))


def _remove_lzw_end(strip: bytes) -> bytes:
    """Replace the end code by one that a complete strip does not need."""
    tail = int.from_bytes(strip[-4:])
    tail -= (_LZW_END - _LZW_LITERAL) << _count_unused_bits(tail)
    return strip[:-4] + tail.to_bytes(min(4, len(strip)))


def _count_unused_bits(tail: int) -> int:
    """Return the number of bits after the last 1; the end code ends with a 1."""
    return (tail & -tail).bit_length() - 1 if tail else 8


def _may_end_in_filler(tags: tiff.Tags, image: np.ndarray) -> bool:
    """Return whether the last pixel of a strip is black, as the rest of a strip is whose data ends early."""
    is_plain = tiff.get_value(tags, tiff.PHOTOMETRIC, 1) in (1, 2) and tiff.get_orientation(tags) == 1
    if not is_plain or tiff.STRIP_OFFSETS not in tags:
        return True
    n_rows = min(len(image), max(1, tiff.get_value(tags, tiff.STRIP_ROWS, len(image))))
    bottoms = [*range(n_rows - 1, len(image), n_rows), len(image) - 1]
    return not image[bottoms, -1].reshape(len(bottoms), -1).any(axis=1).all()
