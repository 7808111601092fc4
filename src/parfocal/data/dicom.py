"""DICOM files: read the first frame, windowed as the file itself says, with the optional package pydicom."""

import logging
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from parfocal.data.image_header import SUFFIXES, check_image_size, get_max_bytes, read_header
from parfocal.data.jpeg import decode_jpeg
from parfocal.data.memory_budget import MemoryReservation
from parfocal.errors import ImageTooLargeError, UnreadableImageError

if TYPE_CHECKING:
    from pydicom import Dataset

# Its warnings quote the file, which can contain patient data.
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
logging.getLogger("pydicom").disabled = True


_PATIENT_ID = 0x0010_0020
# The elements are in the order of their tags, and few precede the patient.
_HEAD_BYTES = 1 << 17


def is_dicom(data: bytes, suffix: str) -> bool:
    """Return whether a file is DICOM: by its content, or by its suffix if it lacks the preamble."""
    if data[128:132] == b"DICM":
        return True
    # Without a preamble, a DICOM file begins with an element of group 2 or 8.
    return suffix in SUFFIXES["DICOM"] and data[:2] in (b"\x02\0", b"\x08\0")


def read_dicom(data: bytes, memory: MemoryReservation) -> tuple[np.ndarray, set[str]]:
    """Return the RGB uint8 pixels of the first frame of a DICOM file, and its notes (see decode.NOTES).

    Grayscale values are rescaled and windowed by the first window of the file. Without a window, black and white are
    the lowest and highest value that the stored bits can hold. The contrast is never stretched to the values of the
    single image. `memory` holds what that takes.
    """
    try:
        import pydicom
    except ImportError:
        raise UnreadableImageError("a DICOM file; install parfocal[dicom]") from None
    # pydicom raises exceptions of many kinds for a damaged file.
    try:
        dataset = pydicom.dcmread(BytesIO(_inflate(data)), force=True)
        _check_declared_size(dataset)
        # Stored values become values of 8 bytes and an RGB image.
        memory.reserve(int(dataset.Columns) * int(dataset.Rows) * int(dataset.get("SamplesPerPixel", 1)) * 12)
        _copy_functional_groups(dataset)
        image = _to_rgb(dataset, _read_stored_values(dataset))
    except UnreadableImageError:
        raise
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        first_sentence = message.split(". ")[0][:160].rstrip(".")
        raise UnreadableImageError(f"a DICOM file that is damaged or not supported: {first_sentence}") from None
    photometric = str(dataset.PhotometricInterpretation)
    notes = {
        "dicom": True,
        "gray": photometric.startswith("MONOCHROME"),
        "palette": photometric == "PALETTE COLOR",
        "16-bit": 8 < int(dataset.BitsAllocated) <= 16,
        "animated": _count_frames(dataset) > 1,
    }
    return image, {note for note, applies in notes.items() if applies}


def read_patient_id(path: str) -> str:
    """Return the PatientID of a DICOM file; an empty string if it has none, or is not readable."""
    try:
        from pydicom.filereader import read_partial

        with Path(path).open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if not is_dicom(head, Path(path).suffix.lower()):
            return ""
        try:
            data = _inflate(head)
        except UnreadableImageError:
            # A deflated file can only be inflated as a whole.
            data = _inflate(Path(path).read_bytes())
        dataset = read_partial(BytesIO(data), lambda tag, *_: tag > _PATIENT_ID, force=True)
        return str(dataset.get("PatientID") or "").strip()
    # pydicom raises exceptions of many kinds for a damaged file; reading its pixels says what is wrong.
    except Exception:
        return ""


def _inflate(data: bytes) -> bytes:
    """Inflate a deflated file within the memory limit; pydicom would inflate it to any size."""
    from pydicom.filereader import read_dataset, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

    stream = BytesIO(data)
    read_preamble(stream, force=True)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return data
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = decompressor.decompress(data[stream.tell() :], get_max_bytes())
    if decompressor.unconsumed_tail:
        raise ImageTooLargeError(f"a DICOM file of more than {get_max_bytes() / (1 << 30):.2g} GiB once inflated")
    if not decompressor.eof:
        raise UnreadableImageError("truncated")
    length = len(DeflatedExplicitVRLittleEndian)
    meta_bytes = data[: stream.tell()].replace(
        DeflatedExplicitVRLittleEndian.encode(), ExplicitVRLittleEndian.encode().ljust(length, b"\0")
    )
    return meta_bytes + inflated


def _check_declared_size(dataset: "Dataset") -> None:
    """Raise UnreadableImageError if the image is missing, truncated or too large, before it is decoded."""
    from pydicom.encaps import get_frame
    from pydicom.uid import RLELossless

    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UnreadableImageError("a DICOM file without an image, or truncated before it")
    width = int(dataset.Columns)
    height = int(dataset.Rows)
    channels = int(dataset.get("SamplesPerPixel", 1))
    bits = int(dataset.BitsAllocated)
    check_image_size(width, height, channels * max(1, bits // 8))
    if "PixelData" in dataset and not _get_transfer_syntax(dataset).is_compressed:
        if str(dataset.PhotometricInterpretation) == "YBR_FULL_422":
            channels = 2
        if len(dataset.PixelData) < width * height * channels * bits // 8 * _count_frames(dataset):
            raise UnreadableImageError("truncated")
    elif "PixelData" in dataset and _get_transfer_syntax(dataset) == RLELossless:
        frame = get_frame(dataset.PixelData, 0, number_of_frames=_count_frames(dataset))
        _check_run_lengths(frame, width * height)


def _check_run_lengths(frame: bytes, n_pixels: int) -> None:
    """Raise UnreadableImageError if the RLE segments decode to more bytes than the image has, before decoding them."""
    n_segments, *starts = struct.unpack_from("<16I", frame)
    for start, end in zip(starts[:n_segments], [*starts[1:n_segments], len(frame)], strict=True):
        position = start
        length = 0
        while position < end:
            header = frame[position]
            if header < 128:  # header + 1 literal bytes follow
                length += header + 1
                position += header + 2
            elif header > 128:  # the next byte is repeated 257 - header times
                length += 257 - header
                position += 2
            else:
                position += 1
            # Zeros that pad a segment look like a byte or two more.
            if length > n_pixels + 2:
                raise UnreadableImageError("a DICOM file whose run lengths exceed the size of its image")


def _copy_functional_groups(dataset: "Dataset") -> None:
    """Copy rescaling and window of the first frame of an enhanced file to where other files have them."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (dataset.get(groups) or [])[:1]:
            for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for item in (group.get(name) or [])[:1]:
                    dataset.update(item)


def _read_stored_values(dataset: "Dataset") -> np.ndarray:
    """Return the stored values of the first frame, colors as RGB."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import JPEGBaseline8Bit

    if _get_transfer_syntax(dataset) != JPEGBaseline8Bit:
        return pixel_array(dataset, index=0)
    encoded = get_frame(dataset.PixelData, 0, number_of_frames=_count_frames(dataset))
    structure = read_header(encoded).structure
    image = decode_jpeg(encoded, structure, cv2.IMREAD_UNCHANGED) if structure else None
    if image is None or image.shape[:2] != (dataset.Rows, dataset.Columns):
        raise UnreadableImageError("a DICOM file whose JPEG is damaged")
    if str(dataset.PhotometricInterpretation) == "RGB":
        return pixel_array(dataset, index=0)
    # For YCbCr, the most common, pydicom needs another package.
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _get_transfer_syntax(dataset: "Dataset") -> Any:
    from pydicom.uid import ImplicitVRLittleEndian

    meta = getattr(dataset, "file_meta", {})
    if "TransferSyntaxUID" not in meta and dataset.get("PixelData"):
        # Files without a preamble name no transfer syntax; they all have this one.
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return dataset.file_meta.TransferSyntaxUID


def _count_frames(dataset: "Dataset") -> int:
    return int(dataset.get("NumberOfFrames", 1) or 1)


def _to_rgb(dataset: "Dataset", stored_values: np.ndarray) -> np.ndarray:
    """Convert stored values to 8-bit RGB."""
    from pydicom.pixels.processing import apply_color_lut

    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        colors = apply_color_lut(stored_values, dataset)
        return _scale_to_uint8(colors, 0, np.iinfo(colors.dtype).max)
    if stored_values.ndim == 3:
        return _scale_to_uint8(stored_values, 0, (1 << int(dataset.BitsStored)) - 1)
    if not photometric.startswith("MONOCHROME"):
        raise UnreadableImageError(f"a DICOM file in color space {photometric}, which is not supported")
    gray = _to_gray(dataset, stored_values)
    return cv2.cvtColor(255 - gray if photometric == "MONOCHROME1" else gray, cv2.COLOR_GRAY2RGB)


def _to_gray(dataset: "Dataset", stored_values: np.ndarray) -> np.ndarray:
    """Rescale and window stored values to 8-bit gray, without the inversion of MONOCHROME1."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    values = apply_modality_lut(stored_values, dataset).astype(np.float64)
    windows = [dataset.get(name) for name in ("WindowCenter", "WindowWidth")]
    if all(number is not None and number != "" for number in windows):
        center, width = (float(number[0] if hasattr(number, "__getitem__") else number) for number in windows)
        if width > 0:
            return _apply_window(values, center, width, str(dataset.get("VOILUTFunction") or "LINEAR"))
    if dataset.get("VOILUTSequence"):
        table = apply_voi(values.astype(np.int64), dataset)
        return _scale_to_uint8(table, 0, (1 << int(dataset.VOILUTSequence[0].LUTDescriptor[2])) - 1)
    if stored_values.dtype.kind == "f":
        raise UnreadableImageError("a DICOM file of floats without a window, whose black and white are undefined")
    bits = int(dataset.BitsStored)
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if stored_values.dtype.kind == "i" else (0, (1 << bits) - 1)
    limits = apply_modality_lut(np.array([low, high], stored_values.dtype), dataset)
    return _scale_to_uint8(values, float(limits.min()), float(limits.max()))


def _apply_window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Apply a window by the functions of DICOM PS3.3, C.11.2.1; `pydicom.apply_windowing` takes four times as long."""
    if function == "SIGMOID":
        return _scale_to_uint8(1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700))), 0, 1)
    if function == "LINEAR_EXACT":
        return _scale_to_uint8(values, center - width / 2, center + width / 2)
    # LINEAR counts whole gray levels: both ends lie half a level further inside.
    low = center - 0.5 - (width - 1) / 2
    high = center - 0.5 + (width - 1) / 2
    return _scale_to_uint8(values, low, high) if high > low else ((values > low) * 255).astype(np.uint8)


def _scale_to_uint8(values: np.ndarray, low: float, high: float) -> np.ndarray:
    if values.dtype == np.uint8 and (low, high) == (0, 255):
        return np.ascontiguousarray(values)
    return np.rint(np.clip((values - low) * (255 / (high - low)), 0, 255)).astype(np.uint8)
