"""Hostile files: each is read correctly or rejected with a reason; no crash, no hang, no wrong image."""

import os
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from parfocal.data.decode import prepare_image, read_image
from parfocal.errors import UnreadableImageError
from parfocal.recipe_schema import ImagesConfig
from tests.data.example_files import build_example_files, build_exif, build_tiff, draw_scene, encode_with_pillow

EXAMPLES = build_example_files()
FORMATS = (
    "rgb.jpg",
    "progressive.jpeg",
    "gray.jpg",
    "cmyk.jpg",
    "orientation 6.jpg",
    "rgb.png",
    "gray 16.png",
    "keyed palette.png",
    "orientation 5.png",
    "rgb.bmp",
    "palette.bmp",
    "rgba.bmp",
    "rgb.webp",
    "lossy.webp",
    "rgba.webp",
    "orientation 8.webp",
    "small palette.gif",
    "keyed.gif",
    "rgb raw.tif",
    "rgb tiff_lzw.tif",
    "palette.tif",
    "gray 16.tif",
    "big.tif",
)


def _build_png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _build_png(width: int, height: int, rows: bytes = b"") -> bytes:
    header = _build_png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + _build_png_chunk(b"IDAT", zlib.compress(rows)) + _build_png_chunk(b"IEND", b"")
    )


def _build_long_png() -> bytes:
    """Return a small PNG whose data, 200 KB, unpacks to 200 MB."""
    return _build_png(16, 16, bytes(200_000_000))


def _build_tile_bomb(side: int, n_bytes: int = 256) -> bytes:
    """Return a TIFF of 16×16 pixels in a tile that is larger, or that unpacks to more bytes than it has."""
    body = zlib.compress(bytes(n_bytes))
    tags = [(256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1), (322, side), (323, side), (324, 8)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (325, len(body))])
    return struct.pack("<2sHI", b"II", 42, 8 + len(body)) + body + struct.pack("<H", 10) + entries + bytes(4)


def _patch(name: str, position: int, layout: str, *values: int) -> bytes:
    """Return an example file with other values at a position."""
    data = bytearray(EXAMPLES[name].data)
    struct.pack_into(layout, data, position, *values)
    return bytes(data)


def _patch_tiff(tag: int, value: int) -> bytes:
    """Return a TIFF with another value of a 32-bit tag."""
    data = bytearray(build_tiff(draw_scene()))
    struct.pack_into("<I", data, data.rindex(struct.pack("<HHI", tag, 4, 1)) + 8, value)
    return bytes(data)


def _build_jpeg_of_size(width: int, height: int) -> bytes:
    return _patch("rgb.jpg", EXAMPLES["rgb.jpg"].data.index(b"\xff\xc0") + 5, ">HH", height, width)


def _build_jpeg_with_thumbnail() -> bytes:
    """Return a JPEG whose EXIF block contains another complete JPEG, with its end marker."""
    small, data = EXAMPLES["gray.jpg"].data, EXAMPLES["orientation 6.jpg"].data
    start = data.index(b"\xff\xe1") + 2
    (length,) = struct.unpack_from(">H", data, start)
    block = struct.pack(">H", length + len(small)) + data[start + 2 : start + length] + small
    return data[:start] + block + data[start + length :]


def _build_hollow_jpeg() -> bytes:
    """Return a large JPEG with its header and its end marker, and almost nothing between them."""
    data = _build_jpeg_of_size(6000, 6000)
    return data[: data.index(b"\xff\xda") + 34] + b"\xff\xd9"


def _build_jpeg_of_many_scans() -> bytes:
    data = EXAMPLES["progressive.jpeg"].data
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * 200 + data[-2:]


NOT_IMAGES: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "the file is empty"),
    "zeros.png": (bytes(5000), "not an image of a known format"),
    "noise.bmp": (np.random.default_rng(0).bytes(5000), "not an image of a known format"),
    "page.jpg": (b"\n<!DOCTYPE html><html><body>404 Not Found</body></html>", "a web page, not an image"),
    "letters.png": (b"nonsense", "text, not an image"),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS pointer"),
    "paper.jpg": (b"%PDF-1.7\n\xe2\xe3", "a PDF document"),
    "many.jpg": (b"PK\x03\x04\x14\0", "a ZIP archive"),
    "packed.jpg": (b"\x1f\x8b\x08\0", "a gzip archive"),
    "phone.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0", "an AVIF, HEIC or video file"),
    "scan.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99), "a JPEG 2000 file"),
    "sound.webp": (b"RIFF\x04\0\0\0WAVE" + bytes(50), "not an image of a known format"),
}

TRUNCATED: dict[str, tuple[bytes, str]] = {
    "signature.jpg": (b"\xff\xd8\xff", "truncated"),
    "signature.png": (b"\x89PNG\r\n\x1a\n", "truncated"),
    "signature.gif": (b"GIF89a", "truncated"),
    "signature.bmp": (b"BM nonsense", "truncated"),
    "signature.webp": (b"RIFF\xff\xff\0\0WEBP", "truncated"),
    "signature.tif": (b"II*\0", "truncated"),
    "thumbnail only.jpg": (_build_jpeg_with_thumbnail()[:-300], "truncated"),
    "padded.jpg": (EXAMPLES["rgb.jpg"].data[:-200] + bytes(200), "truncated"),
    "hollow.jpg": (_build_hollow_jpeg(), "truncated"),
    "far strip.tif": (_patch_tiff(273, 2**31), "truncated"),
    "far directory.tif": (b"II*\0\xff\xff\xff\x7f" + bytes(99), "truncated"),
}

BOMBS: dict[str, tuple[bytes, str]] = {
    "wide.png": (_build_png(60_000, 60_000), "declares 60000 × 60000 pixels, more than 500 million"),
    "widest.png": (_build_png(2**31 - 1, 2**31 - 1), "declares 2147483647 × 2147483647 pixels, more than 500 million"),
    "heavy.png": (_build_png(20_000, 20_000), "declares 20000 × 20000 pixels, more than 1 GiB once decoded"),
    "wide.gif": (
        _patch("small palette.gif", 6, "<HH", 65535, 65535),
        "declares 65535 × 65535 pixels, more than 500 million",
    ),
    "wide.bmp": (_patch("rgb.bmp", 18, "<iiHHI", 60_000, -60_000, 1, 8, 1), "declares 60000 × 60000 pixels"),
    "wide.webp": (_patch("animated.webp", 24, "<IH", 0xFFFFFF, 0xFFFF), "declares 16777216 × 16776961 pixels"),
    "wide.tif": (_patch_tiff(256, 2**31), "truncated"),
    "wide.jpg": (
        _build_jpeg_of_size(65_500, 65_500)[:-2] + bytes(9_000_000) + b"\xff\xd9",
        "declares 65500 × 65500 pixels",
    ),
    "long.png": (_build_long_png(), "damaged: more image data than 16 × 16 pixels have"),
    "tile.tif": (_build_tile_bomb(1 << 15), "a damaged TIFF, or of a kind that is not supported"),
    "tiles.tif": (_build_tile_bomb(1 << 23), "a damaged TIFF, or of a kind that is not supported"),
    "long.tif": (_build_tile_bomb(16, 200_000_000), "a damaged TIFF, or of a kind that is not supported"),
    "scans.jpg": (_build_jpeg_of_many_scans(), "a JPEG with more than 100 scans"),
    "flat.png": (_build_png(0, 5), "declares 0 × 5 pixels, so there is no image"),
    "flat.jpg": (_build_jpeg_of_size(46, 0), "declares 46 × 0 pixels, so there is no image"),
    "flat.gif": (_patch("small palette.gif", 6, "<HH", 0, 0), "declares 0 × 0 pixels, so there is no image"),
    "flat.bmp": (_patch("rgb.bmp", 18, "<i", 0), "declares 0 × 30 pixels, so there is no image"),
    "flat.tif": (_patch_tiff(257, 0), "declares 46 × 0 pixels, so there is no image"),
}

DAMAGED: dict[str, tuple[bytes, str]] = {
    "no picture.jpg": (b"\xff\xd8\xff\xd9" + bytes(9), "damaged: no image follows the header"),
    "few rows.png": (_build_png(20, 20, bytes(61 * 10)), "a damaged PNG, or of a kind that is not supported"),
    "checksum.png": (_patch("palette.png", 60, "<I", 0), "damaged: a checksum does not match"),
    "block.gif": (
        _patch("small palette.gif", len(EXAMPLES["small palette.gif"].data) - 1, "B", 0x77),
        "damaged: an unknown block",
    ),
    "strips.tif": (_patch_tiff(257, 60), "damaged: strip or tile offsets are missing"),
    "tags.tif": (b"II*\0\x08\0\0\0\xff\xff" + bytes(9999), "damaged: too many tags"),
    "nowhere.tif": (b"II*\0\x08\0\0\0\0\0" + bytes(4), "damaged: strip or tile offsets are missing"),
    "masks.bmp": (
        _patch("rgba.bmp", 54, "<III", 0xFF, 0xFF00, 0xFF0000),
        "a BMP with an unusual channel order",
    ),
    "packing.bmp": (_patch("rgb.bmp", 30, "<I", 4), "a damaged BMP, or of a kind that is not supported"),
    "depth.jpg": (_patch("rgb.jpg", EXAMPLES["rgb.jpg"].data.index(b"\xff\xc0") + 4, "B", 12), "a damaged JPEG"),
}

REJECTED = {**NOT_IMAGES, **TRUNCATED, **BOMBS, **DAMAGED}

READABLE: dict[str, str] = {
    "a png.jpg": "rgb.png",
    "a jpeg.png": "rgb.jpg",
    "a tiff.bmp": "gray 16.tif",
    "a webp.JPG": "rgba.webp",
    "a gif.tif": "small palette.gif",
    "ünïcödé 画像 🩸.png": "palette.png",
    'it\'s "quoted"; $(rm -rf) `x` & more.png': "rgba.png",
    "two\nlines\tand a tab.png": "gray 16.png",
    "%s {0} #1?.bmp": "rgb.bmp",
    "-rf.jpg": "cmyk.jpg",
    ".hidden.gif": "keyed.gif",
    "dots...png": "animated.png",
    "no suffix": "ycck.jpg",
    f"{'long' * 60}.tif": "float.tif",
    **{f"rotated {number}.jpg": f"orientation {number}.jpg" for number in range(1, 9)},
}


@pytest.mark.parametrize("name", REJECTED)
def test_bad_files_are_rejected_with_a_reason(name: str, tmp_path: Path) -> None:
    data, reason = REJECTED[name]
    (tmp_path / name).write_bytes(data)
    start = time.perf_counter()
    with pytest.raises(UnreadableImageError, match=f"^(?:{reason})") as raised:
        read_image(tmp_path / name)
    assert time.perf_counter() - start < 2
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 120


@pytest.mark.parametrize("name", READABLE)
def test_good_files_are_read_under_any_name(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[READABLE[name]]
    (tmp_path / name).write_bytes(example.data)
    pixels, info = read_image(tmp_path / name)
    assert np.abs(pixels.astype(int) - example.expected).mean() <= example.tolerance
    assert set(info.notes.split()) - {"wrong-suffix"} == set(example.notes)


def test_a_jpeg_with_a_thumbnail_is_read() -> None:
    pixels, info = read_image(_build_jpeg_with_thumbnail())
    np.testing.assert_array_equal(pixels, read_image(EXAMPLES["orientation 6.jpg"].data)[0])
    assert info.notes == "rotated"


def test_a_damaged_exif_block_is_ignored() -> None:
    data = encode_with_pillow(Image.fromarray(draw_scene()), "PNG", exif=build_exif(6)[:12])
    np.testing.assert_array_equal(read_image(data)[0], draw_scene())


def _build_exif_of_many_tags() -> bytes:
    """Return an EXIF block with many different tags that all point at the same 40,000 bytes."""
    tags = [274, *range(1000, 1800)]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 1, 40_000, start) for tag in tags)
    block = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + b"\x06" * 40_000
    return b"Exif\0\0" + block


def test_exif_tags_that_share_their_bytes_need_no_memory() -> None:
    block = _build_exif_of_many_tags()
    jpeg = EXAMPLES["rgb.jpg"].data
    segments = (b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block) * 20
    tracemalloc.start()
    info = read_image(jpeg[:2] + segments + jpeg[2:])[1]
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    assert info.notes == "rotated"


def test_a_tiff_with_too_many_strips_is_rejected() -> None:
    data = bytearray(EXAMPLES["rgb raw.tif"].data)
    (directory,) = struct.unpack_from("<I", data, 4)
    for entry in range(directory + 2, len(data) - 12, 12):
        if struct.unpack_from("<H", data, entry) == (273,):
            struct.pack_into("<I", data, entry + 4, 1 << 19)
    with pytest.raises(UnreadableImageError, match="too many strips or tiles"):
        read_image(bytes(data))


def test_paths_that_are_not_regular_files_are_rejected_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "a.jpg").symlink_to(tmp_path / "b.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    reasons = {
        "folder.jpg": "is a directory",
        "a.jpg": "too many levels of symbolic links",
        "dangling.png": "the file is missing",
        "gone.png": "the file is missing",
        "pipe.jpg": "a pipe, socket or device, not a file",
        f"{'x' * 300}.png": "file name too long",
        "nul\0.png": "embedded null byte",
    }
    for name, reason in reasons.items():
        with pytest.raises(UnreadableImageError, match=f"^{reason}$"):
            read_image(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_a_file_without_read_permission_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(EXAMPLES["rgb.png"].data)
    (tmp_path / "secret.png").chmod(0)
    with pytest.raises(UnreadableImageError, match=r"^permission denied$"):
        read_image(tmp_path / "secret.png")


def test_a_huge_file_is_rejected(tmp_path: Path) -> None:
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(UnreadableImageError, match=r"^a file of more than 2 GiB$"):
        read_image(tmp_path / "huge.jpg")


@pytest.mark.parametrize("name", FORMATS)
def test_every_truncation_is_rejected(name: str) -> None:
    data = EXAMPLES[name].data
    for length in {*range(min(len(data), 160)), *range(0, len(data), max(1, len(data) // 120)), len(data) - 1}:
        with pytest.raises(UnreadableImageError):
            read_image(data[:length])


@pytest.mark.parametrize("name", ["trailing.jpg", "pages.tif"])
def test_truncation_after_the_image_does_not_matter(name: str) -> None:
    data = EXAMPLES[name].data
    pixels, _ = read_image(data[:-50])
    assert np.abs(pixels.astype(int) - EXAMPLES[name].expected).mean() <= EXAMPLES[name].tolerance


@settings(deadline=None, max_examples=400)
@given(
    name=st.sampled_from(FORMATS),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=8),
    length=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_random_damage_gives_a_reason_or_an_image(name: str, flips: list[tuple[float, int]], length: float) -> None:
    original = EXAMPLES[name].data
    data = bytearray(original[: round(len(original) * length)])
    if data:
        for fraction, change in flips:
            data[int(fraction * len(data))] ^= change
    try:
        pixels, info = prepare_image(bytes(data), ImagesConfig(size=16))
    except UnreadableImageError as error:
        reason = str(error)
    else:
        reason = "read"
        assert (pixels.shape, pixels.dtype) == ((16, 16, 3), np.uint8)
        assert info.width > 0
        assert info.height > 0
        assert flips or len(data) == len(original)
    assert reason
