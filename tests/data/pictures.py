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
class Picture:
    """The bytes of a file, the RGB pixels it shows, its notes, and how far from them a decoder may be on average."""

    data: bytes
    golden: np.ndarray
    notes: tuple[str, ...] = ()
    tolerance: float = 0.0


def scene(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Draw red that grows to the right, green downwards and a blue disc off the middle: no two turns look alike."""
    rows, columns = np.mgrid[0:height, 0:width]
    blue = 200 * ((rows - height / 3) ** 2 + (columns - width / 4) ** 2 < (height / 5) ** 2)
    return np.dstack([columns * 255 // (width - 1), rows * 255 // (height - 1), blue]).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return the bytes of a file that Pillow writes."""
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def shown(data: bytes) -> np.ndarray:
    """Return what Pillow reads: the first frame, turned as EXIF says, its alpha over black."""
    with Image.open(BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("LA", "RGBA", "PA") or "transparency" in upright.info:
            return over_black(np.array(upright.convert("RGBA")))
        return np.array(upright.convert("RGB"))


def over_black(rgba: np.ndarray) -> np.ndarray:
    """Lay colours with alpha over black."""
    return np.rint(rgba[..., :3] * (rgba[..., 3:] / 255)).astype(np.uint8)


def exif(orientation: int) -> bytes:
    """Return an EXIF block that says how to turn."""
    block = Image.Exif()
    block[274] = orientation
    return block.tobytes()


def pictures() -> dict[str, Picture]:
    """Return a file of every mode in every format, by a name with the right suffix."""
    return {**_plain(), **_deep(), **_transparent(), **_palettes(), **_cmyk(), **_turned(), **_moving()}


def _of(data: bytes, *notes: str, tolerance: float = 0.0) -> Picture:
    return Picture(data, shown(data), notes, tolerance)


def _plain() -> dict[str, Picture]:
    colour = Image.fromarray(scene())
    grey = colour.convert("L")
    found = {
        "rgb.jpg": _of(saved(colour, "JPEG", quality=95), tolerance=2),
        "progressive.jpeg": _of(saved(colour, "JPEG", quality=90, progressive=True), tolerance=2),
        "grey.jpg": _of(saved(grey, "JPEG"), "grey", tolerance=2),
        "trailing.jpg": _of(saved(colour, "JPEG") + b"\0" * 999, tolerance=2),
        "rgb.png": _of(saved(colour, "PNG")),
        "grey.png": _of(saved(grey, "PNG"), "grey"),
        "bits.png": _of(saved(colour.convert("1"), "PNG"), "grey"),
        "rgb.bmp": _of(saved(colour, "BMP")),
        "grey.bmp": _of(saved(grey, "BMP"), "grey"),
        "bits.bmp": _of(saved(colour.convert("1"), "BMP"), "grey"),
        "upside down.bmp": Picture(_top_down(saved(Image.fromarray(scene()[::-1]), "BMP")), scene()),
        "rgb.webp": _of(saved(colour, "WEBP", lossless=True)),
        "lossy.webp": _of(saved(colour, "WEBP", quality=90), tolerance=2),
    }
    for packing in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        lossy = 2.0 if packing == "jpeg" else 0.0
        found[f"rgb {packing}.tif"] = _of(saved(colour, "TIFF", compression=packing), tolerance=lossy)
        found[f"grey {packing}.tiff"] = _of(saved(grey, "TIFF", compression=packing), "grey", tolerance=lossy)
    found["fax.tif"] = _of(saved(colour.convert("1"), "TIFF", compression="group4"), "grey")
    found["big.tif"] = _of(saved(colour, "TIFF", big_tiff=True))
    return found


def _top_down(bmp: bytes) -> bytes:
    """Return a BMP whose rows are said to begin at the top, by a negative height."""
    return bmp[:22] + struct.pack("<i", -HEIGHT) + bmp[26:]


def _deep() -> dict[str, Picture]:
    """Numbers wider than 8 bits; Pillow clips what it should scale, so the golden pixels are worked out here."""
    grey = scene()[..., 0]
    wide = grey.astype(np.uint16) * 257
    wide[::2] -= np.minimum(wide[::2], 100)
    golden = np.repeat(grey[..., None], 3, 2)
    sixteen = Image.fromarray(wide)
    colour = tiff(scene().astype("<u2") * 257)
    return {
        "grey 16.png": Picture(saved(sixteen, "PNG"), golden, ("grey", "16-bit")),
        "grey 16.tif": Picture(saved(sixteen, "TIFF"), golden, ("grey", "16-bit")),
        "grey 16 lzw.tif": Picture(saved(sixteen, "TIFF", compression="tiff_lzw"), golden, ("grey", "16-bit")),
        "rgb 16.tif": Picture(colour, scene(), ("16-bit",)),
        "white is zero 16.tif": Picture(tiff((65535 - wide).astype("<u2"), colour=0), golden, ("grey", "16-bit")),
        "float.tif": Picture(saved(Image.fromarray(grey.astype(np.float32) / 255), "TIFF"), golden, ("grey",)),
        "float 255.tif": Picture(saved(Image.fromarray(grey.astype(np.float32)), "TIFF"), golden, ("grey",)),
        "white is zero.tif": Picture(tiff(255 - grey, colour=0), golden, ("grey",)),
        "backward.tif": Picture(tiff(scene().astype(">u2") * 257, order=">"), scene(), ("16-bit",)),
        "grey 32.tif": Picture(tiff(grey.astype("<u4") * 0x1010101), golden, ("grey",)),
    }


def _transparent() -> dict[str, Picture]:
    alpha = np.linspace(0, 255, WIDTH).astype(np.uint8)[None].repeat(HEIGHT, 0)
    rgba = np.dstack([scene(), alpha])
    colour = Image.fromarray(rgba)
    golden = over_black(rgba)
    keyed = Image.fromarray(scene())
    holed = keyed.quantize(16)
    return {
        "rgba.png": _of(saved(colour, "PNG"), "alpha"),
        "grey alpha.png": _of(saved(colour.convert("LA"), "PNG"), "grey", "alpha"),
        "keyed.png": _of(saved(keyed, "PNG", transparency=tuple(map(int, scene()[3, 4]))), "alpha"),
        "keyed palette.png": _of(saved(holed, "PNG", transparency=3), "alpha", "palette"),
        "keyed.gif": _of(saved(holed, "GIF", transparency=3), "alpha", "palette"),
        "keyed grey.png": _keyed_grey(np.dtype(np.uint8)),
        "keyed grey 16.png": _keyed_grey(np.dtype(np.uint16)),
        "rgba.webp": _of(saved(colour, "WEBP", lossless=True, exact=True), "alpha"),
        "rgba.tif": Picture(saved(colour, "TIFF"), golden, ("alpha",), 0.5),
        "rgba undeclared.tif": Picture(tiff(rgba), golden, ("alpha",)),
        "rgba multiplied.tif": Picture(tiff(np.dstack([golden, alpha]), extra=1), golden, ("alpha",)),
        "rgba 16.tif": Picture(tiff(rgba.astype("<u2") * 257, extra=2), golden, ("16-bit", "alpha")),
        "rgba 16 multiplied.tif": Picture(
            tiff(np.dstack([golden, alpha]).astype("<u2") * 257, extra=1), golden, ("16-bit", "alpha")
        ),
        "rgba.bmp": Picture(bmp_with_alpha(rgba), golden, ("alpha",)),
        "rgbx.bmp": Picture(saved(colour, "BMP"), scene()),
    }


def _keyed_grey(kind: np.dtype) -> Picture:
    """Return a PNG in which one grey is declared transparent, which Pillow knows at 8 bits only."""
    grey = scene()[..., 0]
    key = int(grey[0, 9]) * (257 if kind.itemsize == 2 else 1)
    wide = (grey.astype(np.uint16) * (257 if kind.itemsize == 2 else 1)).astype(kind)
    data = saved(Image.fromarray(wide), "PNG")
    body = b"tRNS" + struct.pack(">H", key)
    place = data.index(b"IDAT") - 4
    data = data[:place] + struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body)) + data[place:]
    golden = np.repeat(np.where(grey == grey[0, 9], 0, grey)[..., None], 3, 2).astype(np.uint8)
    return Picture(data, golden, ("grey", "alpha", *(("16-bit",) if kind.itemsize == 2 else ())))


def _palettes() -> dict[str, Picture]:
    few = Image.fromarray(scene()).quantize(16)
    many = Image.fromarray(scene()).quantize(200)
    return {
        f"{name}.{kind}": _of(saved(image, "TIFF" if kind == "tif" else kind, **options), "palette")
        for name, image, options in (("palette", many, {}), ("few", few, {}))
        for kind in ("png", "bmp", "gif", "tif")
    } | {"few 4 bits.png": _of(saved(few, "PNG", bits=4), "palette")}


def _cmyk() -> dict[str, Picture]:
    ink = np.dstack([255 - scene(), np.linspace(0, 120, WIDTH).astype(np.uint8)[None].repeat(HEIGHT, 0)])
    image = Image.fromarray(ink, "CMYK")
    inverted = saved(image, "JPEG", quality=95)
    adobe = inverted.index(b"Adobe")
    luminous = inverted[: adobe + 11] + b"\x02" + inverted[adobe + 12 :]
    return {
        "cmyk.jpg": _of(inverted, "cmyk", tolerance=2),
        "ycck.jpg": _of(luminous, "cmyk", tolerance=2),
        "cmyk.tif": _of(saved(image, "TIFF"), "cmyk", tolerance=1),
    }


def _turned() -> dict[str, Picture]:
    found: dict[str, Picture] = {}
    colour = Image.fromarray(scene())
    wide = Image.fromarray(scene()[..., 0].astype(np.uint16) * 257)
    for turn in range(1, 9):
        said = ("rotated",) if turn > 1 else ()
        found[f"turn {turn}.jpg"] = _of(saved(colour, "JPEG", exif=exif(turn)), *said, tolerance=2)
        found[f"turn {turn}.png"] = _of(saved(colour, "PNG", exif=exif(turn)), *said)
        found[f"turn {turn}.webp"] = _of(saved(colour, "WEBP", lossless=True, exif=exif(turn)), *said)
        found[f"turn {turn}.tif"] = _of(saved(colour, "TIFF", tiffinfo={274: turn, 278: 7}), *said)
        deep = saved(wide, "PNG", exif=exif(turn))
        golden = shown(saved(Image.fromarray(np.repeat(scene()[..., :1], 3, 2)), "PNG", exif=exif(turn)))
        found[f"turn {turn} 16.png"] = Picture(deep, golden, ("grey", "16-bit", *said))
        deep = saved(wide, "TIFF", tiffinfo={274: turn})
        found[f"turn {turn} 16.tif"] = Picture(deep, golden, ("grey", "16-bit", *said))
    return found


def _moving() -> dict[str, Picture]:
    colour, other = Image.fromarray(scene()), Image.fromarray(255 - scene())
    few = colour.quantize(16)
    options: dict[str, Any] = {"save_all": True, "append_images": [other]}
    return {
        "moving.gif": _of(saved(few, "GIF", save_all=True, append_images=[other.quantize(16)]), "palette", "animated"),
        "moving.webp": _of(saved(colour, "WEBP", lossless=True, **options), "animated"),
        "moving.png": _of(saved(colour, "PNG", **options), "animated"),
        "pages.tif": _of(saved(colour, "TIFF", **options), "animated"),
    }


def tiff(
    pixels: np.ndarray, *, colour: int | None = None, extra: int | None = None, planes: int = 1, order: str = "<"
) -> bytes:
    """Return an uncompressed TIFF of the numbers as they are, in one strip."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    body = pixels.tobytes()
    bits = struct.pack(f"{order}{channels}H", *[8 * pixels.itemsize] * channels)
    place = 8 + len(body)
    tags = [
        (256, "I", width),
        (257, "I", height),
        (258, "H", 8 * pixels.itemsize) if channels == 1 else (258, "", place),
        (259, "H", 1),
        (262, "H", (1 if channels == 1 else 2) if colour is None else colour),
        (273, "I", 8),
        (277, "H", channels),
        (278, "I", height),
        (279, "I", len(body)),
        (284, "H", planes),
        *([(338, "H", extra)] if extra is not None else []),
        (339, "H", {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]),
    ]
    directory = struct.pack(f"{order}H", len(tags))
    for tag, kind, value in tags:
        directory += struct.pack(f"{order}HHI", tag, 4 if kind == "I" else 3, 1 if kind else channels)
        directory += struct.pack(f"{order}H2x" if kind == "H" else f"{order}I", value)
    start = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, place + len(bits))
    return start + body + bits + directory + b"\0" * 4


def bmp_with_alpha(rgba: np.ndarray) -> bytes:
    """Return a BMP of 32 bits whose header gives alpha a mask."""
    height, width = rgba.shape[:2]
    body = rgba[::-1, :, [2, 1, 0, 3]].tobytes()
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(body), 2835, 2835, 0, 0) + masks
    header += b"BGRs" + b"\0" * (108 - len(header) - 4)
    return b"BM" + struct.pack("<IHHI", 14 + 108 + len(body), 0, 0, 14 + 108) + header + body
