"""Image data that ends early, or has flipped bytes, inside a file that looks whole is rejected; good files are read."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from parfocal.data.decode import read_image
from parfocal.errors import UnreadableImageError
from tests.data.example_files import draw_scene, encode_with_pillow

SCENE = np.clip(draw_scene(96, 128).astype(int) + np.random.default_rng(0).normal(0, 12, (96, 128, 1)), 0, 255).astype(
    np.uint8
)
DISC = SCENE * (np.hypot(*(np.mgrid[0:96, 0:128] - [[[48]], [[64]]])) < 40)[..., None].astype(np.uint8)
"""A disc on black, so that the last pixels look like those of a file that ends early."""
COLOR, GRAY, PAGE = Image.fromarray(SCENE), Image.fromarray(SCENE).convert("L"), Image.fromarray(SCENE).convert("1")


def cut_jpeg(data: bytes, share: float) -> bytes:
    """Keep a share of the image data, and add an end marker."""
    start = data.index(b"\xff\xda") + 14
    return data[: start + int((len(data) - 2 - start) * share)] + b"\xff\xd9"


def cut_png(data: bytes, share: float) -> bytes:
    """Keep a share of the compressed pixels, with a new checksum."""
    start = data.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", data, start)
    body = data[start + 4 : start + 8 + int(length * share)]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:start] + chunk + data[data.rindex(b"IEND") - 4 :]


def cut_webp(data: bytes, share: float) -> bytes:
    """Keep a share of the only chunk, with new lengths."""
    length = int(struct.unpack_from("<I", data, 16)[0] * share) & ~1
    size = struct.pack("<I", 12 + length)
    return data[:4] + size + data[8:16] + struct.pack("<I", length) + data[20 : 20 + length]


def cut_tiff(data: bytes, share: float) -> bytes:
    """Keep a share of the last strip, with a new length."""
    cut = bytearray(data)
    (directory,) = struct.unpack_from("<I", data, 4)
    for entry in range(directory + 2, len(data) - 12, 12):
        tag, value_type, n_strips, position = struct.unpack_from("<HHII", data, entry)
        if tag == 279:
            layout = "<H" if value_type == 3 else "<I"
            position = entry + 8 if n_strips == 1 else position + (n_strips - 1) * struct.calcsize(layout)
            struct.pack_into(layout, cut, position, int(struct.unpack_from(layout, data, position)[0] * share))
            return bytes(cut)
    raise AssertionError("no strip lengths")


TIFF_COMPRESSIONS = {
    "tiff_lzw": COLOR,
    "tiff_adobe_deflate": COLOR,
    "packbits": COLOR,
    "jpeg": COLOR,
    "group3": PAGE,
    "group4": PAGE,
}
GOOD: dict[str, tuple[bytes, Callable[[bytes, float], bytes]]] = {
    "color.jpg": (encode_with_pillow(COLOR, "JPEG"), cut_jpeg),
    "full chroma.jpg": (encode_with_pillow(COLOR, "JPEG", subsampling=0, quality=95), cut_jpeg),
    "gray.jpg": (encode_with_pillow(GRAY, "JPEG"), cut_jpeg),
    "disc.jpg": (encode_with_pillow(Image.fromarray(DISC), "JPEG"), cut_jpeg),
    "mid-gray corner.jpg": (encode_with_pillow(Image.fromarray(np.where(DISC, DISC, 128)), "JPEG"), cut_jpeg),
    "restart.jpg": (encode_with_pillow(COLOR, "JPEG", restart_marker_rows=1), cut_jpeg),
    "restart blocks.jpg": (encode_with_pillow(GRAY, "JPEG", restart_marker_blocks=3), cut_jpeg),
    "cmyk.jpg": (encode_with_pillow(COLOR.convert("CMYK"), "JPEG"), cut_jpeg),
    "progressive.jpg": (encode_with_pillow(COLOR, "JPEG", progressive=True), cut_jpeg),
    "progressive gray.jpg": (encode_with_pillow(GRAY, "JPEG", progressive=True), cut_jpeg),
    "progressive restart.jpg": (
        encode_with_pillow(COLOR, "JPEG", progressive=True, restart_marker_rows=1),
        cut_jpeg,
    ),
    "color.png": (encode_with_pillow(COLOR, "PNG"), cut_png),
    "disc.png": (encode_with_pillow(Image.fromarray(DISC), "PNG"), cut_png),
    "palette.png": (encode_with_pillow(COLOR.quantize(50), "PNG"), cut_png),
    "color.webp": (encode_with_pillow(COLOR, "WEBP"), cut_webp),
    "lossless.webp": (encode_with_pillow(COLOR, "WEBP", lossless=True), cut_webp),
    "disc.tif": (encode_with_pillow(Image.fromarray(DISC), "TIFF", compression="tiff_lzw"), cut_tiff),
    "disc predicted.tif": (
        encode_with_pillow(Image.fromarray(DISC), "TIFF", compression="tiff_lzw", tiffinfo={317: 2}),
        cut_tiff,
    ),
    "big-endian 16.tif": (
        encode_with_pillow(Image.fromarray(SCENE[..., 0].astype(np.uint16)), "TIFF", compression="tiff_lzw"),
        cut_tiff,
    ),
    **{
        f"{compression} {rows}.tif": (
            encode_with_pillow(image, "TIFF", compression=compression, tiffinfo={278: rows}),
            cut_tiff,
        )
        for compression, image in TIFF_COMPRESSIONS.items()
        for rows in (16, 96)
    },
}


@pytest.mark.parametrize("name", GOOD)
def test_data_that_ends_early_before_an_end_marker_is_rejected(name: str) -> None:
    data, cut = GOOD[name]
    expected, _ = read_image(data)
    n_rejected = 0
    for share in np.arange(0.05, 0.97, 0.03):
        try:
            pixels, _ = read_image(cut(data, share))
        except UnreadableImageError:
            n_rejected += 1
        else:
            # Only the end code or the checksum was cut.
            np.testing.assert_array_equal(pixels, expected)
    assert n_rejected >= 29


@pytest.mark.parametrize("name", GOOD)
def test_bytes_after_a_good_image_do_not_matter(name: str) -> None:
    data, _ = GOOD[name]
    expected, _ = read_image(data)
    for trailing in (b"\0", bytes(999), b"\xff\xd9", np.random.default_rng(1).bytes(5000), GOOD["gray.jpg"][0]):
        np.testing.assert_array_equal(read_image(data + trailing)[0], expected)


def test_a_jpeg_that_lacks_a_part_between_two_restart_markers_is_rejected() -> None:
    data, _ = GOOD["restart.jpg"]
    first, second = data.index(b"\xff\xd1"), data.index(b"\xff\xd3")
    for damaged in (data[:first] + data[second:], data[:first] + data[first + 2 :]):
        with pytest.raises(UnreadableImageError, match=r"^damaged: a part of the image is missing$"):
            read_image(damaged)


def test_a_jpeg_with_a_marker_inside_its_image_data_is_rejected() -> None:
    data, _ = GOOD["color.jpg"]
    middle = len(data) // 2
    for marker in (b"\xff\xd3", b"\xff\xfe\0\x02", b"\xff\xd9"):
        with pytest.raises(UnreadableImageError, match=r"^a damaged JPEG"):
            read_image(data[:middle] + marker + data[middle:])


@pytest.mark.parametrize("n_scans", [1, 2, 5, 9])
def test_a_progressive_jpeg_without_its_last_scans_is_rejected(n_scans: int) -> None:
    data, _ = GOOD["progressive.jpg"]
    end = -1
    for _ in range(n_scans + 1):
        end = data.index(b"\xff\xda", end + 1)
    end = data.rindex(b"\xff\xc4", 0, end) if data.rfind(b"\xff\xc4", 0, end) > data.rfind(b"\xff\xda", 0, end) else end
    with pytest.raises(UnreadableImageError, match=r"^truncated$"):
        read_image(data[:end] + b"\xff\xd9")


@pytest.mark.parametrize(
    ("name", "least_share"),
    [
        ("color.png", 1),
        ("palette.png", 1),
        ("tiff_adobe_deflate 16.tif", 1),
        ("lossless.webp", 0.1),
        ("color.webp", 0.1),
        ("progressive.jpg", 0.01),
    ],
)
def test_flipped_bytes_in_the_image_data_are_rejected_where_they_can_be_detected(name: str, least_share: float) -> None:
    data, _ = GOOD[name]
    generator = np.random.default_rng(2)
    start, end = len(data) // 2, len(data) - 16
    n_rejected = 0
    for position in generator.integers(start, end, 60):
        flipped = bytearray(data)
        flipped[position] ^= generator.integers(1, 256)
        try:
            read_image(bytes(flipped))
        except UnreadableImageError:
            n_rejected += 1
    assert n_rejected >= 60 * least_share
