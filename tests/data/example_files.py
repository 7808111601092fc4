"""Pictures of every mode and format, each with the pixels it must be read as, worked out without the decoder."""

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
    """The bytes of a file, the RGB pixels it shows, its notes, and how far from them a decoder may be on average."""

    data: bytes
    expected: np.ndarray
    notes: tuple[str, ...] = ()
    tolerance: float = 0.0


def draw_scene(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Draw red that grows to the right, green downwards and a blue disc off the middle: no two turns look alike."""
    rows, columns = np.mgrid[0:height, 0:width]
    blue = 200 * ((rows - height / 3) ** 2 + (columns - width / 4) ** 2 < (height / 5) ** 2)
    return np.dstack([columns * 255 // (width - 1), rows * 255 // (height - 1), blue]).astype(np.uint8)


def encode_with_pillow(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return the bytes of a file that Pillow writes."""
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decode_with_pillow(data: bytes) -> np.ndarray:
    """Return what Pillow reads: the first frame, turned as EXIF says, its alpha over black."""
    with Image.open(BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("LA", "RGBA", "PA") or "transparency" in upright.info:
            return blend_over_black(np.array(upright.convert("RGBA")))
        return np.array(upright.convert("RGB"))


def blend_over_black(rgba: np.ndarray) -> np.ndarray:
    """Lay colours with alpha over black."""
    return np.rint(rgba[..., :3] * (rgba[..., 3:] / 255)).astype(np.uint8)


def build_exif(orientation: int) -> bytes:
    """Return an EXIF block that says how to turn."""
    block = Image.Exif()
    block[274] = orientation
    return block.tobytes()


def build_example_files() -> dict[str, ExampleFile]:
    """Return a file of every mode in every format, by a name with the right suffix."""
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
    colour = Image.fromarray(draw_scene())
    grey = colour.convert("L")
    found = {
        "rgb.jpg": _build_example(encode_with_pillow(colour, "JPEG", quality=95), tolerance=2),
        "progressive.jpeg": _build_example(
            encode_with_pillow(colour, "JPEG", quality=90, progressive=True), tolerance=2
        ),
        "grey.jpg": _build_example(encode_with_pillow(grey, "JPEG"), "gray", tolerance=2),
        "trailing.jpg": _build_example(encode_with_pillow(colour, "JPEG") + b"\0" * 999, tolerance=2),
        "rgb.png": _build_example(encode_with_pillow(colour, "PNG")),
        "grey.png": _build_example(encode_with_pillow(grey, "PNG"), "gray"),
        "bits.png": _build_example(encode_with_pillow(colour.convert("1"), "PNG"), "gray"),
        "rgb.bmp": _build_example(encode_with_pillow(colour, "BMP")),
        "grey.bmp": _build_example(encode_with_pillow(grey, "BMP"), "gray"),
        "bits.bmp": _build_example(encode_with_pillow(colour.convert("1"), "BMP"), "gray"),
        "upside down.bmp": ExampleFile(
            _flip_bmp(encode_with_pillow(Image.fromarray(draw_scene()[::-1]), "BMP")), draw_scene()
        ),
        "rgb.webp": _build_example(encode_with_pillow(colour, "WEBP", lossless=True)),
        "lossy.webp": _build_example(encode_with_pillow(colour, "WEBP", quality=90), tolerance=2),
    }
    for packing in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        lossy = 2.0 if packing == "jpeg" else 0.0
        found[f"rgb {packing}.tif"] = _build_example(
            encode_with_pillow(colour, "TIFF", compression=packing), tolerance=lossy
        )
        found[f"grey {packing}.tiff"] = _build_example(
            encode_with_pillow(grey, "TIFF", compression=packing), "gray", tolerance=lossy
        )
    found["fax.tif"] = _build_example(encode_with_pillow(colour.convert("1"), "TIFF", compression="group4"), "gray")
    found["big.tif"] = _build_example(encode_with_pillow(colour, "TIFF", big_tiff=True))
    return found


def _flip_bmp(bmp: bytes) -> bytes:
    """Return a BMP whose rows are said to begin at the top, by a negative height."""
    return bmp[:22] + struct.pack("<i", -HEIGHT) + bmp[26:]


def _build_deep() -> dict[str, ExampleFile]:
    """Numbers wider than 8 bits; Pillow clips what it should scale, so the golden pixels are worked out here."""
    grey = draw_scene()[..., 0]
    wide = grey.astype(np.uint16) * 257
    wide[::2] -= np.minimum(wide[::2], 100)
    golden = np.repeat(grey[..., None], 3, 2)
    sixteen = Image.fromarray(wide)
    colour = build_tiff(draw_scene().astype("<u2") * 257)
    return {
        "grey 16.png": ExampleFile(encode_with_pillow(sixteen, "PNG"), golden, ("gray", "16-bit")),
        "grey 16.tif": ExampleFile(encode_with_pillow(sixteen, "TIFF"), golden, ("gray", "16-bit")),
        "grey 16 lzw.tif": ExampleFile(
            encode_with_pillow(sixteen, "TIFF", compression="tiff_lzw"), golden, ("gray", "16-bit")
        ),
        "rgb 16.tif": ExampleFile(colour, draw_scene(), ("16-bit",)),
        "white is zero 16.tif": ExampleFile(
            build_tiff((65535 - wide).astype("<u2"), photometric=0), golden, ("gray", "16-bit")
        ),
        "float.tif": ExampleFile(
            encode_with_pillow(Image.fromarray(grey.astype(np.float32) / 255), "TIFF"), golden, ("gray",)
        ),
        "float 255.tif": ExampleFile(
            encode_with_pillow(Image.fromarray(grey.astype(np.float32)), "TIFF"), golden, ("gray",)
        ),
        "white is zero.tif": ExampleFile(build_tiff(255 - grey, photometric=0), golden, ("gray",)),
        "backward.tif": ExampleFile(
            build_tiff(draw_scene().astype(">u2") * 257, byte_order=">"), draw_scene(), ("16-bit",)
        ),
        "grey 32.tif": ExampleFile(build_tiff(grey.astype("<u4") * 0x1010101), golden, ("gray",)),
    }


def _build_transparent() -> dict[str, ExampleFile]:
    alpha = np.linspace(0, 255, WIDTH).astype(np.uint8)[None].repeat(HEIGHT, 0)
    rgba = np.dstack([draw_scene(), alpha])
    colour = Image.fromarray(rgba)
    golden = blend_over_black(rgba)
    keyed = Image.fromarray(draw_scene())
    holed = keyed.quantize(16)
    return {
        "rgba.png": _build_example(encode_with_pillow(colour, "PNG"), "alpha"),
        "grey alpha.png": _build_example(encode_with_pillow(colour.convert("LA"), "PNG"), "gray", "alpha"),
        "keyed.png": _build_example(
            encode_with_pillow(keyed, "PNG", transparency=tuple(map(int, draw_scene()[3, 4]))), "alpha"
        ),
        "keyed palette.png": _build_example(encode_with_pillow(holed, "PNG", transparency=3), "alpha", "palette"),
        "keyed.gif": _build_example(encode_with_pillow(holed, "GIF", transparency=3), "alpha", "palette"),
        "keyed grey.png": _build_keyed_gray(np.dtype(np.uint8)),
        "keyed grey 16.png": _build_keyed_gray(np.dtype(np.uint16)),
        "rgba.webp": _build_example(encode_with_pillow(colour, "WEBP", lossless=True, exact=True), "alpha"),
        "rgba.tif": ExampleFile(encode_with_pillow(colour, "TIFF"), golden, ("alpha",), 0.5),
        "rgba undeclared.tif": ExampleFile(build_tiff(rgba), golden, ("alpha",)),
        "rgba multiplied.tif": ExampleFile(build_tiff(np.dstack([golden, alpha]), extra_samples=1), golden, ("alpha",)),
        "rgba 16.tif": ExampleFile(build_tiff(rgba.astype("<u2") * 257, extra_samples=2), golden, ("16-bit", "alpha")),
        "rgba 16 multiplied.tif": ExampleFile(
            build_tiff(np.dstack([golden, alpha]).astype("<u2") * 257, extra_samples=1), golden, ("16-bit", "alpha")
        ),
        "rgba.bmp": ExampleFile(build_bmp_with_alpha(rgba), golden, ("alpha",)),
        "rgbx.bmp": ExampleFile(encode_with_pillow(colour, "BMP"), draw_scene()),
    }


def _build_keyed_gray(dtype: np.dtype) -> ExampleFile:
    """Return a PNG in which one grey is declared transparent, which Pillow knows at 8 bits only."""
    grey = draw_scene()[..., 0]
    key = int(grey[0, 9]) * (257 if dtype.itemsize == 2 else 1)
    wide = (grey.astype(np.uint16) * (257 if dtype.itemsize == 2 else 1)).astype(dtype)
    data = encode_with_pillow(Image.fromarray(wide), "PNG")
    body = b"tRNS" + struct.pack(">H", key)
    place = data.index(b"IDAT") - 4
    data = data[:place] + struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body)) + data[place:]
    golden = np.repeat(np.where(grey == grey[0, 9], 0, grey)[..., None], 3, 2).astype(np.uint8)
    return ExampleFile(data, golden, ("gray", "alpha", *(("16-bit",) if dtype.itemsize == 2 else ())))


def _build_palettes() -> dict[str, ExampleFile]:
    few = Image.fromarray(draw_scene()).quantize(16)
    many = Image.fromarray(draw_scene()).quantize(200)
    return {
        f"{name}.{kind}": _build_example(
            encode_with_pillow(image, "TIFF" if kind == "tif" else kind, **options), "palette"
        )
        for name, image, options in (("palette", many, {}), ("few", few, {}))
        for kind in ("png", "bmp", "gif", "tif")
    } | {"few 4 bits.png": _build_example(encode_with_pillow(few, "PNG", bits=4), "palette")}


def _build_cmyk() -> dict[str, ExampleFile]:
    ink = np.dstack([255 - draw_scene(), np.linspace(0, 120, WIDTH).astype(np.uint8)[None].repeat(HEIGHT, 0)])
    image = Image.fromarray(ink, "CMYK")
    inverted = encode_with_pillow(image, "JPEG", quality=95)
    adobe = inverted.index(b"Adobe")
    luminous = inverted[: adobe + 11] + b"\x02" + inverted[adobe + 12 :]
    return {
        "cmyk.jpg": _build_example(inverted, "cmyk", tolerance=2),
        "ycck.jpg": _build_example(luminous, "cmyk", tolerance=2),
        "cmyk.tif": _build_example(encode_with_pillow(image, "TIFF"), "cmyk", tolerance=1),
    }


def _build_rotated() -> dict[str, ExampleFile]:
    found: dict[str, ExampleFile] = {}
    colour = Image.fromarray(draw_scene())
    wide = Image.fromarray(draw_scene()[..., 0].astype(np.uint16) * 257)
    for turn in range(1, 9):
        said = ("rotated",) if turn > 1 else ()
        found[f"turn {turn}.jpg"] = _build_example(
            encode_with_pillow(colour, "JPEG", exif=build_exif(turn)), *said, tolerance=2
        )
        found[f"turn {turn}.png"] = _build_example(encode_with_pillow(colour, "PNG", exif=build_exif(turn)), *said)
        found[f"turn {turn}.webp"] = _build_example(
            encode_with_pillow(colour, "WEBP", lossless=True, exif=build_exif(turn)), *said
        )
        found[f"turn {turn}.tif"] = _build_example(
            encode_with_pillow(colour, "TIFF", tiffinfo={274: turn, 278: 7}), *said
        )
        deep = encode_with_pillow(wide, "PNG", exif=build_exif(turn))
        golden = decode_with_pillow(
            encode_with_pillow(Image.fromarray(np.repeat(draw_scene()[..., :1], 3, 2)), "PNG", exif=build_exif(turn))
        )
        found[f"turn {turn} 16.png"] = ExampleFile(deep, golden, ("gray", "16-bit", *said))
        deep = encode_with_pillow(wide, "TIFF", tiffinfo={274: turn})
        found[f"turn {turn} 16.tif"] = ExampleFile(deep, golden, ("gray", "16-bit", *said))
    return found


def _build_animated() -> dict[str, ExampleFile]:
    colour, other = Image.fromarray(draw_scene()), Image.fromarray(255 - draw_scene())
    few = colour.quantize(16)
    options: dict[str, Any] = {"save_all": True, "append_images": [other]}
    return {
        "moving.gif": _build_example(
            encode_with_pillow(few, "GIF", save_all=True, append_images=[other.quantize(16)]), "palette", "animated"
        ),
        "moving.webp": _build_example(encode_with_pillow(colour, "WEBP", lossless=True, **options), "animated"),
        "moving.png": _build_example(encode_with_pillow(colour, "PNG", **options), "animated"),
        "pages.tif": _build_example(encode_with_pillow(colour, "TIFF", **options), "animated"),
    }


def build_tiff(
    pixels: np.ndarray,
    *,
    photometric: int | None = None,
    extra_samples: int | None = None,
    planar_config: int = 1,
    byte_order: str = "<",
) -> bytes:
    """Return an uncompressed TIFF of the numbers as they are, in one strip."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    body = pixels.tobytes()
    bits = struct.pack(f"{byte_order}{channels}H", *[8 * pixels.itemsize] * channels)
    place = 8 + len(body)
    tags = [
        (256, "I", width),
        (257, "I", height),
        (258, "H", 8 * pixels.itemsize) if channels == 1 else (258, "", place),
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
    for tag, kind, value in tags:
        directory += struct.pack(f"{byte_order}HHI", tag, 4 if kind == "I" else 3, 1 if kind else channels)
        directory += struct.pack(f"{byte_order}H2x" if kind == "H" else f"{byte_order}I", value)
    start = struct.pack(f"{byte_order}2sHI", b"II" if byte_order == "<" else b"MM", 42, place + len(bits))
    return start + body + bits + directory + b"\0" * 4


def build_bmp_with_alpha(rgba: np.ndarray) -> bytes:
    """Return a BMP of 32 bits whose header gives alpha a mask."""
    height, width = rgba.shape[:2]
    body = rgba[::-1, :, [2, 1, 0, 3]].tobytes()
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(body), 2835, 2835, 0, 0) + masks
    header += b"BGRs" + b"\0" * (108 - len(header) - 4)
    return b"BM" + struct.pack("<IHHI", 14 + 108 + len(body), 0, 0, 14 + 108) + header + body
