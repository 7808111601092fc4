"""DICOM files: the first picture of one, shown as the file itself says, through the optional pydicom."""

import logging
import struct
import warnings
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from parfocal.data.headers import SUFFIXES, check_image_size, get_max_bytes, read_header
from parfocal.errors import ImageTooLargeError, UnreadableImageError

if TYPE_CHECKING:
    from pydicom import Dataset

# Its doubts quote the file, which may be a stranger's.
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
logging.getLogger("pydicom").disabled = True


def is_dicom(data: bytes, suffix: str) -> bool:
    """Tell whether a file is DICOM: by its content, or by its name where it lacks the preamble."""
    if data[128:132] == b"DICM":
        return True
    # Without a preamble a file begins with an element of group 2 or 8, or is something else by that name.
    return suffix in SUFFIXES["DICOM"] and data[:2] in (b"\x02\0", b"\x08\0")


def read_dicom(data: bytes) -> tuple[np.ndarray, frozenset[str]]:
    """Return the RGB uint8 pixels of a DICOM file's first picture, and what is odd about it.

    Greys go through the file's own rescaling and its first window. Without a window black and white are the least and
    the greatest value that the stored bits can hold. The picture is never stretched to its own darkest and brightest.
    """
    try:
        import pydicom
    except ImportError:
        raise UnreadableImageError("a DICOM file; install parfocal[dicom]") from None
    # Whatever is wrong in a damaged file, pydicom answers it with an exception of one kind or another.
    try:
        declared = pydicom.dcmread(BytesIO(_inflate(data)), force=True)
        _check_declared_size(declared)
        _copy_functional_groups(declared)
        picture = _to_rgb(declared, _read_stored_values(declared))
    except UnreadableImageError:
        raise
    except Exception as error:
        raise UnreadableImageError(f"a DICOM file that is damaged or not read: {_shorten_error(error)}") from None
    return picture, _build_notes(declared)


def _inflate(data: bytes) -> bytes:
    """Return a file whose data set is deflated as one whose is not; pydicom would inflate it to any size."""
    from pydicom.filereader import read_dataset, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

    stream = BytesIO(data)
    read_preamble(stream, force=True)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return data
    unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = unpacking.decompress(data[stream.tell() :], get_max_bytes())
    if unpacking.unconsumed_tail:
        raise ImageTooLargeError(f"a DICOM file of more than {get_max_bytes() / (1 << 30):.2g} GiB once inflated")
    if not unpacking.eof:
        raise UnreadableImageError("truncated")
    length = len(DeflatedExplicitVRLittleEndian)
    head = data[: stream.tell()].replace(
        DeflatedExplicitVRLittleEndian.encode(), ExplicitVRLittleEndian.encode().ljust(length, b"\0")
    )
    return head + plain


def _check_declared_size(dataset: "Dataset") -> None:
    from pydicom.encaps import get_frame
    from pydicom.uid import RLELossless

    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UnreadableImageError("a DICOM file without a picture, or truncated before it")
    width, height = int(dataset.Columns), int(dataset.Rows)
    samples, depth = int(dataset.get("SamplesPerPixel", 1)), int(dataset.BitsAllocated)
    check_image_size(width, height, samples * max(1, depth // 8))
    if "PixelData" in dataset and not _get_transfer_syntax(dataset).is_compressed:
        halved = str(dataset.PhotometricInterpretation) == "YBR_FULL_422"
        needed = width * height * (2 if halved else samples) * depth // 8 * _count_frames(dataset)
        if len(dataset.PixelData) < needed:
            raise UnreadableImageError("truncated")
    elif "PixelData" in dataset and _get_transfer_syntax(dataset) == RLELossless:
        frame = get_frame(dataset.PixelData, 0, number_of_frames=_count_frames(dataset))
        _check_run_lengths(frame, width * height)


def _check_run_lengths(frame: bytes, n_pixels: int) -> None:
    """Refuse run lengths that come to more than a picture's bytes, before they are written out."""
    segments, *starts = struct.unpack_from("<16I", frame)
    for start, end in zip(starts[:segments], [*starts[1:segments], len(frame)], strict=True):
        place, length = start, 0
        while place < end:
            header = frame[place]
            # To 127 so many bytes and one more follow; from 129 one follows, to be repeated; 128 says nothing.
            length += header + 1 if header < 128 else 257 - header if header > 128 else 0
            place += header + 2 if header < 128 else 2 if header > 128 else 1
            # A segment may be filled up with zeros, which look like one more byte or two.
            if length > n_pixels + 2:
                raise UnreadableImageError("a DICOM file whose run lengths come to more than its picture")


def _copy_functional_groups(dataset: "Dataset") -> None:
    """Bring what an enhanced file says about the first of its pictures to where plain files say it."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (dataset.get(groups) or [])[:1]:
            for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for said in (group.get(name) or [])[:1]:
                    dataset.update(said)


def _read_stored_values(dataset: "Dataset") -> np.ndarray:
    """Return the first picture's values, colours as RGB."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import JPEGBaseline8Bit

    if _get_transfer_syntax(dataset) != JPEGBaseline8Bit or str(dataset.PhotometricInterpretation) == "RGB":
        return pixel_array(dataset, index=0)
    # For this, the commonest compression, pydicom itself would need yet another package.
    encoded = get_frame(dataset.PixelData, 0, number_of_frames=_count_frames(dataset))
    read_header(encoded)
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.shape[:2] != (dataset.Rows, dataset.Columns):
        raise UnreadableImageError("a DICOM file whose JPEG is damaged")
    return picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _get_transfer_syntax(dataset: "Dataset") -> Any:
    from pydicom.uid import ImplicitVRLittleEndian

    meta = getattr(dataset, "file_meta", {})
    if "TransferSyntaxUID" not in meta and dataset.get("PixelData"):
        # Files from before the preamble name no syntax; they all have this one.
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return dataset.file_meta.TransferSyntaxUID


def _count_frames(dataset: "Dataset") -> int:
    return int(dataset.get("NumberOfFrames", 1) or 1)


def _build_notes(dataset: "Dataset") -> frozenset[str]:
    colours = str(dataset.PhotometricInterpretation)
    holds = {
        "dicom": True,
        "gray": colours.startswith("MONOCHROME"),
        "palette": colours == "PALETTE COLOR",
        "16-bit": 8 < int(dataset.BitsAllocated) <= 16,
        "animated": _count_frames(dataset) > 1,
    }
    return frozenset(note for note, true in holds.items() if true)


def _to_rgb(dataset: "Dataset", stored_values: np.ndarray) -> np.ndarray:
    """Bring stored values to RGB of 8 bits."""
    from pydicom.pixels.processing import apply_color_lut

    colours = str(dataset.PhotometricInterpretation)
    if colours == "PALETTE COLOR":
        stored_values = apply_color_lut(stored_values, dataset)
        return _scale_to_uint8(stored_values, 0, np.iinfo(stored_values.dtype).max)
    if stored_values.ndim == 3:
        return _scale_to_uint8(stored_values, 0, (1 << int(dataset.BitsStored)) - 1)
    if not colours.startswith("MONOCHROME"):
        raise UnreadableImageError(f"a DICOM file of colour space {colours}, which is not read")
    grey = _to_gray(dataset, stored_values)
    return cv2.cvtColor(255 - grey if colours == "MONOCHROME1" else grey, cv2.COLOR_GRAY2RGB)


def _to_gray(dataset: "Dataset", stored_values: np.ndarray) -> np.ndarray:
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    values = apply_modality_lut(stored_values, dataset).astype(np.float64)
    centre, width = _get_first_number(dataset, "WindowCenter"), _get_first_number(dataset, "WindowWidth")
    if centre is not None and width is not None and width > 0:
        return _apply_window(values, centre, width, str(dataset.get("VOILUTFunction") or "LINEAR"))
    if dataset.get("VOILUTSequence"):
        table = apply_voi(values.astype(np.int64), dataset)
        return _scale_to_uint8(table, 0, (1 << int(dataset.VOILUTSequence[0].LUTDescriptor[2])) - 1)
    if stored_values.dtype.kind == "f":
        raise UnreadableImageError("a DICOM file of real numbers without a window, whose black and white are unknown")
    ends = apply_modality_lut(_get_value_range(dataset, stored_values.dtype), dataset)
    return _scale_to_uint8(values, float(ends.min()), float(ends.max()))


def _get_value_range(dataset: "Dataset", dtype: np.dtype) -> np.ndarray:
    """Return the least and the greatest value that the stored bits can hold."""
    bits = int(dataset.BitsStored)
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if dtype.kind == "i" else (0, (1 << bits) - 1)
    return np.array([low, high], dtype)


def _apply_window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Map a window to black and white by the functions of DICOM PS3.3, C.11.2.1."""
    if function == "SIGMOID":
        return _scale_to_uint8(1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700))), 0, 1)
    if function == "LINEAR_EXACT":
        return _scale_to_uint8(values, center - width / 2, center + width / 2)
    # The plain function counts whole grey levels: its ends are half a level inside.
    low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    return _scale_to_uint8(values, low, high) if high > low else ((values > low) * 255).astype(np.uint8)


def _scale_to_uint8(values: np.ndarray, low: float, high: float) -> np.ndarray:
    if values.dtype == np.uint8 and (low, high) == (0, 255):
        return np.ascontiguousarray(values)
    return np.rint(np.clip((values - low) * (255 / (high - low)), 0, 255)).astype(np.uint8)


def _get_first_number(dataset: "Dataset", name: str) -> float | None:
    value: Any = dataset.get(name)
    if value is None or value == "":
        return None
    return float(value[0] if hasattr(value, "__getitem__") else value)


def _shorten_error(error: Exception) -> str:
    """Return the first sentence of an error, in one line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words.split(". ")[0][:160].rstrip(".")
