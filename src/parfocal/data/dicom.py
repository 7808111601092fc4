"""DICOM files as 8-bit RGB pictures: the file's own window, monochrome inversion, the first of several frames."""

from io import BytesIO
from typing import Any

import numpy as np


def is_dicom(data: bytes) -> bool:
    """Say whether a file's bytes are DICOM's."""
    return data[128:132] == b"DICM"


def dicom_picture(data: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return RGB pixels and notes; ValueError with the reason where it cannot be read."""
    try:
        import pydicom
        from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, convert_color_space
    except ImportError:
        raise ValueError("a DICOM file; install parfocal[dicom] to read it") from None
    try:
        file = pydicom.dcmread(BytesIO(data))
        pixels = file.pixel_array
        several = int(getattr(file, "NumberOfFrames", None) or 1) > 1
        pixels = pixels[0] if several else pixels
        colours = str(file.PhotometricInterpretation)
        if colours.startswith("MONOCHROME"):
            picture = _windowed(apply_modality_lut(pixels, file).astype(np.float64), file)
            picture = 255 - picture if colours == "MONOCHROME1" else picture
        elif colours == "PALETTE COLOR":
            picture = _eight_bits(apply_color_lut(pixels, file))
        elif colours.startswith("YBR"):
            picture = _eight_bits(convert_color_space(pixels, colours, "RGB"))
        else:
            picture = _eight_bits(pixels)
    except Exception as error:
        # pydicom raises almost anything for a damaged file; each is this file's fault and nobody else's.
        raise ValueError(f"a DICOM file that cannot be read: {' '.join(str(error).split())}") from None
    grey = picture.ndim == 2
    rgb = np.ascontiguousarray(np.broadcast_to(picture[..., None], (*picture.shape, 3)) if grey else picture)
    notes = ("dicom", *(["grey"] if grey else []), *(["animated"] if several else []))
    return rgb, notes


def _windowed(values: np.ndarray, file: Any) -> np.ndarray:
    """Spread the file's first window over 0 to 255, or all values where it names none."""
    centre, width = getattr(file, "WindowCenter", None), getattr(file, "WindowWidth", None)
    if centre is None or width is None:
        low, high = float(values.min()), float(values.max())
    else:
        middle, breadth = (float(value[0] if isinstance(value, list | tuple) or hasattr(value, "append") else value)
                           for value in (centre, width))  # fmt: skip
        low, high = middle - 0.5 - (breadth - 1) / 2, middle - 0.5 + (breadth - 1) / 2
    return np.clip((values - low) / max(high - low, 1e-9) * 255, 0, 255).round().astype(np.uint8)


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels.astype(np.uint8)
