"""How a Store's pixels lie on disk: raw, mapped as one array, or as JPEGs of high quality behind one another."""

import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from parfocal.parts import ImagesConfig

_NO_SUBSAMPLING = 0x111111


class JpegArray:
    """JPEGs that read like an array of images; each is decoded by the thread that asks for it."""

    def __init__(self, encoded: np.ndarray, index: pd.DataFrame, size: int) -> None:
        self.shape = (len(index), size, size, 3)
        self._encoded = encoded
        self._starts = index["start"].to_numpy(np.int64)
        self._lengths = index["length"].to_numpy(np.int64)

    def __getitem__(self, position: Any) -> np.ndarray:
        if not np.isscalar(position) and not isinstance(position, np.integer):
            return np.stack([self[one] for one in np.arange(self.shape[0])[position]])
        start = int(self._starts[position])
        data = self._encoded[start : start + int(self._lengths[position])]
        return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)  # pyright: ignore


def get_pixels_path(folder: Path, config: ImagesConfig) -> Path:
    """Return the file in which a Store's pixels lie."""
    return folder / ("pixels.npy" if config.store == "raw" else "pixels.jpegs")


def build_header(n_images: int, config: ImagesConfig) -> bytes:
    """Return what the file begins with: for raw pixels what makes it a `.npy` that any program reads."""
    if config.store == "jpeg":
        return b""
    content = BytesIO()
    shape = (n_images, config.size, config.size, 3)
    np.lib.format.write_array_header_1_0(content, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return content.getvalue()


def encode_image(pixels: np.ndarray, config: ImagesConfig) -> bytes:
    """Return one framed image as the bytes that are kept."""
    if config.store == "raw":
        return pixels.tobytes()
    settings = [
        cv2.IMWRITE_JPEG_QUALITY,
        config.quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        _NO_SUBSAMPLING,
    ]
    return cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), settings)[1].tobytes()


def open_pixels(folder: Path, config: ImagesConfig, index: pd.DataFrame) -> np.ndarray | JpegArray:
    """Open a Store's pixels as something that reads like an array (N, size, size, 3)."""
    if config.store == "raw":
        return np.load(get_pixels_path(folder, config), mmap_mode="r")
    return JpegArray(np.memmap(get_pixels_path(folder, config), np.uint8, mode="r"), index, config.size)


def verify_checksums(folder: Path, config: ImagesConfig, index: pd.DataFrame) -> bool:
    """Say whether every image's bytes are still those that were written."""
    content = np.memmap(get_pixels_path(folder, config), np.uint8, mode="r")
    pieces = zip(index["start"], index["length"], index["check"], strict=True)
    return all(zlib.crc32(content[start : start + length].tobytes()) == check for start, length, check in pieces)
