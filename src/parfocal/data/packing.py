"""How a Store's pixels lie on disk: raw, mapped as one array, or as JPEGs of high quality behind one another."""

import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from parfocal.parts import ImagesPart

_NO_SUBSAMPLING = 0x111111


class Packed:
    """JPEGs that read like an array of images; each is decoded by the thread that asks for it."""

    def __init__(self, content: np.ndarray, index: pd.DataFrame, side: int) -> None:
        self.shape = (len(index), side, side, 3)
        self._content = content
        self._starts = index["start"].to_numpy(np.int64)
        self._lengths = index["length"].to_numpy(np.int64)

    def __getitem__(self, place: Any) -> np.ndarray:
        if not np.isscalar(place) and not isinstance(place, np.integer):
            return np.stack([self[one] for one in np.arange(self.shape[0])[place]])
        start = int(self._starts[place])
        data = self._content[start : start + int(self._lengths[place])]
        return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)  # pyright: ignore


def place(folder: Path, images: ImagesPart) -> Path:
    """Return the file in which a Store's pixels lie."""
    return folder / ("pixels.npy" if images.store == "raw" else "pixels.jpegs")


def header(count: int, images: ImagesPart) -> bytes:
    """Return what the file begins with: for raw pixels what makes it a `.npy` that any program reads."""
    if images.store == "jpeg":
        return b""
    content = BytesIO()
    shape = (count, images.size, images.size, 3)
    np.lib.format.write_array_header_1_0(content, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return content.getvalue()


def packed(pixels: np.ndarray, images: ImagesPart) -> bytes:
    """Return one framed image as the bytes that are kept."""
    if images.store == "raw":
        return pixels.tobytes()
    settings = [
        cv2.IMWRITE_JPEG_QUALITY,
        images.quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        _NO_SUBSAMPLING,
    ]
    return cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), settings)[1].tobytes()


def opened(folder: Path, images: ImagesPart, index: pd.DataFrame) -> np.ndarray | Packed:
    """Open a Store's pixels as something that reads like an array (N, size, size, 3)."""
    if images.store == "raw":
        return np.load(place(folder, images), mmap_mode="r")
    return Packed(np.memmap(place(folder, images), np.uint8, mode="r"), index, images.size)


def checked(folder: Path, images: ImagesPart, index: pd.DataFrame) -> bool:
    """Say whether every image's bytes are still those that were written."""
    content = np.memmap(place(folder, images), np.uint8, mode="r")
    pieces = zip(index["start"], index["length"], index["check"], strict=True)
    return all(zlib.crc32(content[start : start + length].tobytes()) == check for start, length, check in pieces)
