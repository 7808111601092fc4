"""DICOM files: the first picture of one, shown as the file itself says, through the optional pydicom."""

import logging
import struct
import warnings
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from parfocal.data.headers import SUFFIXES, TooLarge, Unreadable, most_bytes, read_header, refuse_size

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
        raise Unreadable("a DICOM file; install parfocal[dicom]") from None
    # Whatever is wrong in a damaged file, pydicom answers it with an exception of one kind or another.
    try:
        declared = pydicom.dcmread(BytesIO(_inflated(data)), force=True)
        _refuse(declared)
        _gather(declared)
        picture = _picture(declared, _stored(declared))
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(f"a DICOM file that is damaged or not read: {_brief(error)}") from None
    return picture, _notes(declared)


def _inflated(data: bytes) -> bytes:
    """Return a file whose data set is deflated as one whose is not; pydicom would inflate it to any size."""
    from pydicom.filereader import read_dataset, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

    stream = BytesIO(data)
    read_preamble(stream, force=True)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return data
    unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = unpacking.decompress(data[stream.tell() :], most_bytes())
    if unpacking.unconsumed_tail:
        raise TooLarge(f"a DICOM file of more than {most_bytes() / (1 << 30):.2g} GiB once inflated")
    if not unpacking.eof:
        raise Unreadable("truncated")
    length = len(DeflatedExplicitVRLittleEndian)
    head = data[: stream.tell()].replace(
        DeflatedExplicitVRLittleEndian.encode(), ExplicitVRLittleEndian.encode().ljust(length, b"\0")
    )
    return head + plain


def _refuse(declared: "Dataset") -> None:
    from pydicom.encaps import get_frame
    from pydicom.uid import RLELossless

    if not any(name in declared for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise Unreadable("a DICOM file without a picture, or truncated before it")
    width, height = int(declared.Columns), int(declared.Rows)
    samples, depth = int(declared.get("SamplesPerPixel", 1)), int(declared.BitsAllocated)
    refuse_size(width, height, samples * max(1, depth // 8))
    if "PixelData" in declared and not _syntax(declared).is_compressed:
        halved = str(declared.PhotometricInterpretation) == "YBR_FULL_422"
        needed = width * height * (2 if halved else samples) * depth // 8 * _frames(declared)
        if len(declared.PixelData) < needed:
            raise Unreadable("truncated")
    elif "PixelData" in declared and _syntax(declared) == RLELossless:
        frame = get_frame(declared.PixelData, 0, number_of_frames=_frames(declared))
        _refuse_runs(frame, width * height)


def _refuse_runs(frame: bytes, size: int) -> None:
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
            if length > size + 2:
                raise Unreadable("a DICOM file whose run lengths come to more than its picture")


def _gather(declared: "Dataset") -> None:
    """Bring what an enhanced file says about the first of its pictures to where plain files say it."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (declared.get(groups) or [])[:1]:
            for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for said in (group.get(name) or [])[:1]:
                    declared.update(said)


def _stored(declared: "Dataset") -> np.ndarray:
    """Return the first picture's values, colours as RGB."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import JPEGBaseline8Bit

    if _syntax(declared) != JPEGBaseline8Bit or str(declared.PhotometricInterpretation) == "RGB":
        return pixel_array(declared, index=0)
    # For this, the commonest compression, pydicom itself would need yet another package.
    encoded = get_frame(declared.PixelData, 0, number_of_frames=_frames(declared))
    read_header(encoded)
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.shape[:2] != (declared.Rows, declared.Columns):
        raise Unreadable("a DICOM file whose JPEG is damaged")
    return picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _syntax(declared: "Dataset") -> Any:
    from pydicom.uid import ImplicitVRLittleEndian

    meta = getattr(declared, "file_meta", {})
    if "TransferSyntaxUID" not in meta and declared.get("PixelData"):
        # Files from before the preamble name no syntax; they all have this one.
        declared.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return declared.file_meta.TransferSyntaxUID


def _frames(declared: "Dataset") -> int:
    return int(declared.get("NumberOfFrames", 1) or 1)


def _notes(declared: "Dataset") -> frozenset[str]:
    colours = str(declared.PhotometricInterpretation)
    holds = {
        "dicom": True,
        "grey": colours.startswith("MONOCHROME"),
        "palette": colours == "PALETTE COLOR",
        "16-bit": 8 < int(declared.BitsAllocated) <= 16,
        "animated": _frames(declared) > 1,
    }
    return frozenset(note for note, true in holds.items() if true)


def _picture(declared: "Dataset", stored: np.ndarray) -> np.ndarray:
    """Bring stored values to RGB of 8 bits."""
    from pydicom.pixels.processing import apply_color_lut

    colours = str(declared.PhotometricInterpretation)
    if colours == "PALETTE COLOR":
        stored = apply_color_lut(stored, declared)
        return _scaled(stored, 0, np.iinfo(stored.dtype).max)
    if stored.ndim == 3:
        return _scaled(stored, 0, (1 << int(declared.BitsStored)) - 1)
    if not colours.startswith("MONOCHROME"):
        raise Unreadable(f"a DICOM file of colour space {colours}, which is not read")
    grey = _grey(declared, stored)
    return cv2.cvtColor(255 - grey if colours == "MONOCHROME1" else grey, cv2.COLOR_GRAY2RGB)


def _grey(declared: "Dataset", stored: np.ndarray) -> np.ndarray:
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    values = apply_modality_lut(stored, declared).astype(np.float64)
    centre, width = _first(declared, "WindowCenter"), _first(declared, "WindowWidth")
    if centre is not None and width is not None and width > 0:
        return _windowed(values, centre, width, str(declared.get("VOILUTFunction") or "LINEAR"))
    if declared.get("VOILUTSequence"):
        table = apply_voi(values.astype(np.int64), declared)
        return _scaled(table, 0, (1 << int(declared.VOILUTSequence[0].LUTDescriptor[2])) - 1)
    if stored.dtype.kind == "f":
        raise Unreadable("a DICOM file of real numbers without a window, whose black and white are unknown")
    ends = apply_modality_lut(_ends(declared, stored.dtype), declared)
    return _scaled(values, float(ends.min()), float(ends.max()))


def _ends(declared: "Dataset", kind: np.dtype) -> np.ndarray:
    """Return the least and the greatest value that the stored bits can hold."""
    bits = int(declared.BitsStored)
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if kind.kind == "i" else (0, (1 << bits) - 1)
    return np.array([low, high], kind)


def _windowed(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Map a window to black and white by the functions of DICOM PS3.3, C.11.2.1."""
    if function == "SIGMOID":
        return _scaled(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))), 0, 1)
    if function == "LINEAR_EXACT":
        return _scaled(values, centre - width / 2, centre + width / 2)
    # The plain function counts whole grey levels: its ends are half a level inside.
    low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    return _scaled(values, low, high) if high > low else ((values > low) * 255).astype(np.uint8)


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    if values.dtype == np.uint8 and (low, high) == (0, 255):
        return np.ascontiguousarray(values)
    return np.rint(np.clip((values - low) * (255 / (high - low)), 0, 255)).astype(np.uint8)


def _first(declared: "Dataset", name: str) -> float | None:
    value: Any = declared.get(name)
    if value is None or value == "":
        return None
    return float(value[0] if hasattr(value, "__getitem__") else value)


def _brief(error: Exception) -> str:
    """Return the first sentence of an error, in one line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words.split(". ")[0][:160].rstrip(".")
