"""Example files of every mode and format, each with the pixels expected from it, computed without the decoder."""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageOps

HEIGHT, WIDTH = 30, 46


@dataclass(frozen=True)
class ExampleFile:
    """The bytes of a file, its expected RGB pixels and notes, and the mean difference allowed to a decoder."""

    data: bytes
    expected: np.ndarray
    notes: tuple[str, ...] = ()
    tolerance: float = 0.0


def draw_scene(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Draw a red and a green gradient and a blue disc off the center: no two orientations are the same."""
    rows, columns = np.mgrid[0:height, 0:width]
    blue = 200 * ((rows - height / 3) ** 2 + (columns - width / 4) ** 2 < (height / 5) ** 2)
    return np.dstack([columns * 255 // (width - 1), rows * 255 // (height - 1), blue]).astype(np.uint8)


def encode_with_pillow(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """Return the bytes of a file written by Pillow."""
    stream = BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def decode_with_pillow(data: bytes) -> np.ndarray:
    """Return what Pillow reads: the first frame, with the EXIF orientation applied, blended over black."""
    with Image.open(BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("LA", "RGBA", "PA") or "transparency" in upright.info:
            return blend_over_black(np.array(upright.convert("RGBA")))
        return np.array(upright.convert("RGB"))


def blend_over_black(rgba: np.ndarray) -> np.ndarray:
    """Blend colors with alpha over black."""
    return np.rint(rgba[..., :3] * (rgba[..., 3:] / 255)).astype(np.uint8)


def build_exif(orientation: int) -> bytes:
    """Return an EXIF block with an orientation."""
    block = Image.Exif()
    block[274] = orientation
    return block.tobytes()


def build_example_files() -> dict[str, ExampleFile]:
    """Return a file of every mode in every format, by a name with the matching suffix."""
    return {
        **_build_plain(),
        **_build_deep(),
        **_build_transparent(),
        **_build_palettes(),
        **_build_cmyk(),
        **_build_rotated(),
        **_build_animated(),
    }


def _build_example(data: bytes, *notes: str, tolerance: float = 0.0) -> ExampleFile:
    return ExampleFile(data, decode_with_pillow(data), notes, tolerance)


def _build_plain() -> dict[str, ExampleFile]:
    color = Image.fromarray(draw_scene())
    gray = color.convert("L")
    examples = {
        "rgb.jpg": _build_example(encode_with_pillow(color, "JPEG", quality=95), tolerance=2),
        "progressive.jpeg": _build_example(
            encode_with_pillow(color, "JPEG", quality=90, progressive=True), tolerance=2
        ),
        "gray.jpg": _build_example(encode_with_pillow(gray, "JPEG"), "gray", tolerance=2),
        "trailing.jpg": _build_example(encode_with_pillow(color, "JPEG") + b"\0" * 999, tolerance=2),
        "rgb.png": _build_example(encode_with_pillow(color, "PNG")),
        "gray.png": _build_example(encode_with_pillow(gray, "PNG"), "gray"),
        "bits.png": _build_example(encode_with_pillow(color.convert("1"), "PNG"), "gray"),
        "rgb.bmp": _build_example(encode_with_pillow(color, "BMP")),
        "gray.bmp": _build_example(encode_with_pillow(gray, "BMP"), "gray"),
        "bits.bmp": _build_example(encode_with_pillow(color.convert("1"), "BMP"), "gray"),
        "upside down.bmp": ExampleFile(
            _flip_bmp(encode_with_pillow(Image.fromarray(draw_scene()[::-1]), "BMP")), draw_scene()
        ),
        "rgb.webp": _build_example(encode_with_pillow(color, "WEBP", lossless=True)),
        "lossy.webp": _build_example(encode_with_pillow(color, "WEBP", quality=90), tolerance=2),
    }
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        tolerance = 2.0 if compression == "jpeg" else 0.0
        examples[f"rgb {compression}.tif"] = _build_example(
            encode_with_pillow(color, "TIFF", compression=compression), tolerance=tolerance
        )
        examples[f"gray {compression}.tiff"] = _build_example(
            encode_with_pillow(gray, "TIFF", compression=compression), "gray", tolerance=tolerance
        )
    examples["fax.tif"] = _build_example(encode_with_pillow(color.convert("1"), "TIFF", compression="group4"), "gray")
    examples["big.tif"] = _build_example(encode_with_pillow(color, "TIFF", big_tiff=True))
    return examples


def _flip_bmp(bmp: bytes) -> bytes:
    """Return a BMP with a negative height, which means that its rows begin at the top."""
    return bmp[:22] + struct.pack("<i", -HEIGHT) + bmp[26:]


def _build_deep() -> dict[str, ExampleFile]:
    """More than 8 bits: Pillow clips values that it should scale, so the expected pixels are computed here."""
    gray = draw_scene()[..., 0]
    wide = gray.astype(np.uint16) * 257
    wide[::2] -= np.minimum(wide[::2], 100)
    expected = np.repeat(gray[..., None], 3, 2)
    sixteen = Image.fromarray(wide)
    color = build_tiff(draw_scene().astype("<u2") * 257)
    return {
        "gray 16.png": ExampleFile(encode_with_pillow(sixteen, "PNG"), expected, ("gray", "16-bit")),
        "gray 16.tif": ExampleFile(encode_with_pillow(sixteen, "TIFF"), expected, ("gray", "16-bit")),
        "gray 16 lzw.tif": ExampleFile(
            encode_with_pillow(sixteen, "TIFF", compression="tiff_lzw"), expected, ("gray", "16-bit")
        ),
        "rgb 16.tif": ExampleFile(color, draw_scene(), ("16-bit",)),
        "white is zero 16.tif": ExampleFile(
            build_tiff((65535 - wide).astype("<u2"), photometric=0), expected, ("gray", "16-bit")
        ),
        "float.tif": ExampleFile(
            encode_with_pillow(Image.fromarray(gray.astype(np.float32) / 255), "TIFF"), expected, ("gray",)
        ),
        "float 255.tif": ExampleFile(
            encode_with_pillow(Image.fromarray(gray.astype(np.float32)), "TIFF"), expected, ("gray",)
        ),
        "white is zero.tif": ExampleFile(build_tiff(255 - gray, photometric=0), expected, ("gray",)),
        "big-endian.tif": ExampleFile(
            build_tiff(draw_scene().astype(">u2") * 257, byte_order=">"), draw_scene(), ("16-bit",)
        ),
        "gray 32.tif": ExampleFile(build_tiff(gray.astype("<u4") * 0x1010101), expected, ("gray",)),
    }


def _build_transparent() -> dict[str, ExampleFile]:
    alpha = np.linspace(0, 255, WIDTH).astype(np.uint8)[None].repeat(HEIGHT, 0)
    rgba = np.dstack([draw_scene(), alpha])
    color = Image.fromarray(rgba)
    expected = blend_over_black(rgba)
    keyed = Image.fromarray(draw_scene())
    palette = keyed.quantize(16)
    return {
        "rgba.png": _build_example(encode_with_pillow(color, "PNG"), "alpha"),
        "gray alpha.png": _build_example(encode_with_pillow(color.convert("LA"), "PNG"), "gray", "alpha"),
        "keyed.png": _build_example(
            encode_with_pillow(keyed, "PNG", transparency=tuple(map(int, draw_scene()[3, 4]))), "alpha"
        ),
        "keyed palette.png": _build_example(encode_with_pillow(palette, "PNG", transparency=3), "alpha", "palette"),
        "keyed.gif": _build_example(encode_with_pillow(palette, "GIF", transparency=3), "alpha", "palette"),
        "keyed gray.png": _build_keyed_gray(np.dtype(np.uint8)),
        "keyed gray 16.png": _build_keyed_gray(np.dtype(np.uint16)),
        "rgba.webp": _build_example(encode_with_pillow(color, "WEBP", lossless=True, exact=True), "alpha"),
        "rgba.tif": ExampleFile(encode_with_pillow(color, "TIFF"), expected, ("alpha",), 0.5),
        "rgba undeclared.tif": ExampleFile(build_tiff(rgba), expected, ("alpha",)),
        "rgba multiplied.tif": ExampleFile(
            build_tiff(np.dstack([expected, alpha]), extra_samples=1), expected, ("alpha",)
        ),
        "rgba 16.tif": ExampleFile(
            build_tiff(rgba.astype("<u2") * 257, extra_samples=2), expected, ("16-bit", "alpha")
        ),
        "rgba 16 multiplied.tif": ExampleFile(
            build_tiff(np.dstack([expected, alpha]).astype("<u2") * 257, extra_samples=1), expected, ("16-bit", "alpha")
        ),
        "rgba.bmp": ExampleFile(build_bmp_with_alpha(rgba), expected, ("alpha",)),
        "rgbx.bmp": ExampleFile(encode_with_pillow(color, "BMP"), draw_scene()),
    }


def _build_keyed_gray(dtype: np.dtype) -> ExampleFile:
    """Return a PNG with a transparent gray value, which Pillow supports only at 8 bits."""
    gray = draw_scene()[..., 0]
    key = int(gray[0, 9]) * (257 if dtype.itemsize == 2 else 1)
    wide = (gray.astype(np.uint16) * (257 if dtype.itemsize == 2 else 1)).astype(dtype)
    data = encode_with_pillow(Image.fromarray(wide), "PNG")
    body = b"tRNS" + struct.pack(">H", key)
    position = data.index(b"IDAT") - 4
    chunk = struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body))
    data = data[:position] + chunk + data[position:]
    expected = np.repeat(np.where(gray == gray[0, 9], 0, gray)[..., None], 3, 2).astype(np.uint8)
    return ExampleFile(data, expected, ("gray", "alpha", *(("16-bit",) if dtype.itemsize == 2 else ())))


def _build_palettes() -> dict[str, ExampleFile]:
    small_palette = Image.fromarray(draw_scene()).quantize(16)
    large_palette = Image.fromarray(draw_scene()).quantize(200)
    return {
        f"{name}.{suffix}": _build_example(encode_with_pillow(image, "TIFF" if suffix == "tif" else suffix), "palette")
        for name, image in (("palette", large_palette), ("small palette", small_palette))
        for suffix in ("png", "bmp", "gif", "tif")
    } | {"small palette 4 bits.png": _build_example(encode_with_pillow(small_palette, "PNG", bits=4), "palette")}


def _build_cmyk() -> dict[str, ExampleFile]:
    ink = np.dstack([255 - draw_scene(), np.linspace(0, 120, WIDTH).astype(np.uint8)[None].repeat(HEIGHT, 0)])
    image = Image.fromarray(ink, "CMYK")
    inverted = encode_with_pillow(image, "JPEG", quality=95)
    adobe = inverted.index(b"Adobe")
    ycck = inverted[: adobe + 11] + b"\x02" + inverted[adobe + 12 :]
    return {
        "cmyk.jpg": _build_example(inverted, "cmyk", tolerance=2),
        "ycck.jpg": _build_example(ycck, "cmyk", tolerance=2),
        "cmyk.tif": _build_example(encode_with_pillow(image, "TIFF"), "cmyk", tolerance=1),
    }


def _build_rotated() -> dict[str, ExampleFile]:
    examples: dict[str, ExampleFile] = {}
    color = Image.fromarray(draw_scene())
    wide = Image.fromarray(draw_scene()[..., 0].astype(np.uint16) * 257)
    for orientation in range(1, 9):
        notes = ("rotated",) if orientation > 1 else ()
        examples[f"orientation {orientation}.jpg"] = _build_example(
            encode_with_pillow(color, "JPEG", exif=build_exif(orientation)), *notes, tolerance=2
        )
        examples[f"orientation {orientation}.png"] = _build_example(
            encode_with_pillow(color, "PNG", exif=build_exif(orientation)), *notes
        )
        examples[f"orientation {orientation}.webp"] = _build_example(
            encode_with_pillow(color, "WEBP", lossless=True, exif=build_exif(orientation)), *notes
        )
        examples[f"orientation {orientation}.tif"] = _build_example(
            encode_with_pillow(color, "TIFF", tiffinfo={274: orientation, 278: 7}), *notes
        )
        deep = encode_with_pillow(wide, "PNG", exif=build_exif(orientation))
        expected = decode_with_pillow(
            encode_with_pillow(
                Image.fromarray(np.repeat(draw_scene()[..., :1], 3, 2)), "PNG", exif=build_exif(orientation)
            )
        )
        examples[f"orientation {orientation} 16.png"] = ExampleFile(deep, expected, ("gray", "16-bit", *notes))
        deep = encode_with_pillow(wide, "TIFF", tiffinfo={274: orientation})
        examples[f"orientation {orientation} 16.tif"] = ExampleFile(deep, expected, ("gray", "16-bit", *notes))
    return examples


def _build_animated() -> dict[str, ExampleFile]:
    color = Image.fromarray(draw_scene())
    second_frame = Image.fromarray(255 - draw_scene())
    small_palette = color.quantize(16)
    options: dict[str, Any] = {"save_all": True, "append_images": [second_frame]}
    return {
        "animated.gif": _build_example(
            encode_with_pillow(small_palette, "GIF", save_all=True, append_images=[second_frame.quantize(16)]),
            "palette",
            "animated",
        ),
        "animated.webp": _build_example(encode_with_pillow(color, "WEBP", lossless=True, **options), "animated"),
        "animated.png": _build_example(encode_with_pillow(color, "PNG", **options), "animated"),
        "pages.tif": _build_example(encode_with_pillow(color, "TIFF", **options), "animated"),
    }


def build_tiff(
    pixels: np.ndarray,
    *,
    photometric: int | None = None,
    extra_samples: int | None = None,
    planar_config: int = 1,
    byte_order: str = "<",
) -> bytes:
    """Return an uncompressed TIFF of the values, in a single strip."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    body = pixels.tobytes()
    bits = struct.pack(f"{byte_order}{channels}H", *[8 * pixels.itemsize] * channels)
    bits_offset = 8 + len(body)
    tags = [
        (256, "I", width),
        (257, "I", height),
        (258, "H", 8 * pixels.itemsize) if channels == 1 else (258, "", bits_offset),
        (259, "H", 1),
        (262, "H", (1 if channels == 1 else 2) if photometric is None else photometric),
        (273, "I", 8),
        (277, "H", channels),
        (278, "I", height),
        (279, "I", len(body)),
        (284, "H", planar_config),
        *([(338, "H", extra_samples)] if extra_samples is not None else []),
        (339, "H", {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]),
    ]
    directory = struct.pack(f"{byte_order}H", len(tags))
    for tag, value_type, value in tags:
        directory += struct.pack(f"{byte_order}HHI", tag, 4 if value_type == "I" else 3, 1 if value_type else channels)
        directory += struct.pack(f"{byte_order}H2x" if value_type == "H" else f"{byte_order}I", value)
    start = struct.pack(f"{byte_order}2sHI", b"II" if byte_order == "<" else b"MM", 42, bits_offset + len(bits))
    return start + body + bits + directory + bytes(4)


def build_bmp_with_alpha(rgba: np.ndarray) -> bytes:
    """Return a 32-bit BMP with a mask for alpha in its header."""
    height, width = rgba.shape[:2]
    body = rgba[::-1, :, [2, 1, 0, 3]].tobytes()
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(body), 2835, 2835, 0, 0) + masks
    header += b"BGRs" + b"\0" * (108 - len(header) - 4)
    return b"BM" + struct.pack("<IHHI", 14 + 108 + len(body), 0, 0, 14 + 108) + header + body
