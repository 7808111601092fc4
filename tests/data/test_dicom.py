"""DICOM files are seen as they say themselves, and refused with a reason where they say too little."""

import subprocess
import sys
import tracemalloc
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import compress
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from parfocal.data.decode import Unreadable, prepare_image, read_picture
from parfocal.data.headers import TooLarge, at_most
from parfocal.parts import ImagesPart
from tests.data.pictures import scene

GREY = scene()[..., 0]
DEEP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def dataset(values: np.ndarray, colours: str = "MONOCHROME2", bits: int = 0, **tags: Any) -> Dataset:
    """Return pixels as a DICOM data set; frames come first in their shape."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    made.SamplesPerPixel = 3 if colours.startswith(("RGB", "YBR")) else 1
    shape = values.shape[:-1] if made.SamplesPerPixel == 3 else values.shape
    if made.SamplesPerPixel == 3:
        made.PlanarConfiguration = 0
    if len(shape) == 3:
        made.NumberOfFrames = shape[0]
    made.Rows, made.Columns = shape[-2:]
    made.PhotometricInterpretation = colours
    made.BitsAllocated = values.itemsize * 8
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(values.dtype.kind == "i")
    made.PixelData = values.tobytes()
    made["PixelData"].VR = "OB" if values.itemsize == 1 else "OW"
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def written(made: Dataset, **options: Any) -> bytes:
    """Return the bytes of a DICOM file."""
    stream = BytesIO()
    dcmwrite(stream, made, **({"enforce_file_format": True} | options))
    return stream.getvalue()


def dicom(values: np.ndarray, colours: str = "MONOCHROME2", bits: int = 0, **tags: Any) -> bytes:
    """Return the bytes of a DICOM file of these pixels."""
    return written(dataset(values, colours, bits, **tags))


def _grey(data: bytes) -> np.ndarray:
    pixels, facts = read_picture(data)
    assert pixels.shape[2] == 3
    assert (pixels == pixels[..., :1]).all()
    assert {"grey", "dicom"} <= set(facts.notes.split())
    return pixels[..., 0]


def test_8_bits_are_read_as_they_are() -> None:
    data = dicom(GREY)
    np.testing.assert_array_equal(_grey(data), GREY)
    _, facts = read_picture(data)
    assert (facts.width, facts.height, facts.bytes, facts.notes) == (46, 30, len(data), "grey dicom")


def test_without_a_window_the_stored_bits_are_the_range() -> None:
    golden = np.rint(DEEP / 4095 * 255)
    np.testing.assert_array_equal(_grey(dicom(DEEP, bits=12)), golden)
    np.testing.assert_array_equal(_grey(dicom(DEEP // 2, bits=12)), np.rint(DEEP // 2 / 4095 * 255))
    signed = (DEEP.astype(np.int16) - 2048).astype(np.int16)
    np.testing.assert_array_equal(_grey(dicom(signed, bits=12)), golden)
    rescaled = dicom(DEEP, bits=12, RescaleSlope=2, RescaleIntercept=-1024)
    np.testing.assert_array_equal(_grey(rescaled), golden)
    assert read_picture(rescaled)[1].notes == "grey 16-bit dicom"


def test_the_first_window_is_taken_after_rescaling() -> None:
    units = DEEP - 1024.0
    golden = np.clip(np.rint((units - (40 - 0.5 - 399 / 2)) / 399 * 255), 0, 255)
    data = dicom(DEEP, bits=12, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=[40, 600], WindowWidth=[400, 9])
    np.testing.assert_array_equal(_grey(data), golden)
    one = dicom(DEEP, bits=12, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    np.testing.assert_array_equal(_grey(one), golden)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_of_every_function_are_grey_in_the_middle(function: str) -> None:
    pixels = _grey(dicom(DEEP, bits=12, WindowCenter=2000, WindowWidth=1000, VOILUTFunction=function))
    assert abs(int(pixels.flat[2000]) - 128) <= 1
    assert pixels.flat[500] < 3
    assert pixels.flat[3500] > 252
    assert (np.diff(pixels.ravel().astype(int)) >= 0).all()


def test_a_window_of_one_is_a_threshold() -> None:
    pixels = _grey(dicom(DEEP, bits=12, WindowCenter=2000, WindowWidth=1))
    np.testing.assert_array_equal(pixels, np.where(DEEP >= 2000, 255, 0))


def test_monochrome1_is_turned_round() -> None:
    np.testing.assert_array_equal(_grey(dicom(GREY, "MONOCHROME1")), 255 - GREY)


def test_a_table_of_greys_is_followed() -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 8], [255 - value for value in range(256)]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    np.testing.assert_array_equal(_grey(dicom(GREY, VOILUTSequence=[table])), 255 - GREY)


def test_an_enhanced_file_says_its_window_in_groups() -> None:
    window, group = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 40, 400
    group.FrameVOILUTSequence = [window]
    plain = _grey(dicom(DEEP, bits=12, WindowCenter=40, WindowWidth=400))
    frames = np.stack([DEEP, DEEP[::-1]])
    enhanced = dicom(frames, bits=12, PerFrameFunctionalGroupsSequence=[group, group])
    np.testing.assert_array_equal(_grey(enhanced), plain)


def test_the_first_of_several_frames_is_read() -> None:
    data = dicom(np.stack([GREY, 255 - GREY, GREY]))
    np.testing.assert_array_equal(_grey(data), GREY)
    assert read_picture(data)[1].notes == "grey animated dicom"


def test_colours_are_read_in_either_order() -> None:
    np.testing.assert_array_equal(read_picture(dicom(scene(), "RGB"))[0], scene())
    planes = dataset(scene(), "RGB", PlanarConfiguration=1)
    planes.PixelData = np.ascontiguousarray(scene().transpose(2, 0, 1)).tobytes()
    np.testing.assert_array_equal(read_picture(written(planes))[0], scene())
    deep = read_picture(dicom(scene().astype(np.uint16) * 257, "RGB"))
    np.testing.assert_array_equal(deep[0], scene())
    assert deep[1].notes == "16-bit dicom"


def test_luminance_and_chroma_become_colours() -> None:
    ybr = cv2.cvtColor(scene(), cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    pixels, facts = read_picture(dicom(np.ascontiguousarray(ybr), "YBR_FULL"))
    assert np.abs(pixels.astype(int) - scene()).mean() < 1
    assert facts.notes == "dicom"


def test_a_palette_is_followed() -> None:
    numbers = np.arange(256, dtype=np.uint16)
    tables = {"Red": numbers, "Green": 255 - numbers, "Blue": numbers // 2}
    tags: dict[str, Any] = {}
    for name, table in tables.items():
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{name}PaletteColorLookupTableData"] = (table * 257).astype("<u2").tobytes()
    made = dataset(GREY, "PALETTE COLOR", **tags)
    for name in tables:
        made[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
    pixels, facts = read_picture(written(made))
    np.testing.assert_array_equal(pixels, np.dstack([GREY, 255 - GREY, GREY // 2]))
    assert facts.notes == "palette dicom"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_every_plain_encoding_is_read(syntax: UID) -> None:
    made = dataset(DEEP, bits=12)
    made.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        made.PixelData = DEEP.astype(">u2").tobytes()
    np.testing.assert_array_equal(_grey(written(made)), _grey(dicom(DEEP, bits=12)))


def test_run_lengths_are_read() -> None:
    made = dataset(DEEP, bits=12)
    compress(made, RLELossless)
    np.testing.assert_array_equal(_grey(written(made)), _grey(dicom(DEEP, bits=12)))


@pytest.mark.parametrize("values", [DEEP, scene()], ids=["16 bits", "colours"])
def test_run_lengths_that_come_to_more_than_the_picture_are_refused(values: np.ndarray) -> None:
    made = dataset(values, "RGB" if values.ndim == 3 else "MONOCHROME2")
    compress(made, RLELossless)
    made.Columns = made.Columns // 2
    with pytest.raises(Unreadable, match="run lengths come to more than its picture"):
        read_picture(written(made))


@pytest.mark.filterwarnings("ignore:The value")
def test_what_is_deflated_takes_no_more_memory_than_it_may() -> None:
    made = dataset(GREY, ImageComments="a" * 5_000_000)
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data = written(made)
    np.testing.assert_array_equal(_grey(data), GREY)
    tracemalloc.start()
    with at_most(100_000), pytest.raises(TooLarge, match="once inflated"):
        read_picture(data)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_what_is_odd_in_a_file_is_not_quoted(tmp_path: Path) -> None:
    data = dicom(GREY, SpecificCharacterSet="ISO_IR 6", PatientName="A").replace(b"ISO_IR 6", b"SECRET A")
    (tmp_path / "a.dcm").write_bytes(data)
    # In a process of its own, for tests have filters of their own.
    reading = "from pathlib import Path; from parfocal.data.decode import read_picture"
    reading += "; print(read_picture(Path('a.dcm'))[1].notes)"
    done = subprocess.run([sys.executable, "-c", reading], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("grey dicom\n", "")


@pytest.mark.parametrize("colours", ["MONOCHROME2", "YBR_FULL_422"])
def test_jpeg_inside_is_read_without_another_package(colours: str) -> None:
    golden = scene() if colours.startswith("YBR") else np.repeat(GREY[..., None], 3, 2)
    done, jpeg = cv2.imencode(".jpg", golden[..., ::-1] if colours.startswith("YBR") else GREY)
    assert done
    made = dataset(golden if colours.startswith("YBR") else GREY, colours)
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    made.PixelData = encapsulate([jpeg.tobytes()])
    made["PixelData"].is_undefined_length = True
    pixels, _ = read_picture(written(made))
    assert np.abs(pixels.astype(int) - golden).mean() < 3
    made.PixelData = encapsulate([jpeg.tobytes()[:-200]])
    made["PixelData"].is_undefined_length = True
    with pytest.raises(Unreadable, match="truncated"):
        read_picture(written(made))


def test_a_file_without_preamble_is_known_by_its_name(tmp_path: Path) -> None:
    made = dataset(GREY)
    del made.file_meta
    stream = BytesIO()
    dcmwrite(stream, made, implicit_vr=True, little_endian=True)
    (tmp_path / "old.dcm").write_bytes(stream.getvalue())
    np.testing.assert_array_equal(read_picture(tmp_path / "old.dcm")[0][..., 0], GREY)


def test_the_name_is_judged_by_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(dicom(GREY))
    assert read_picture(tmp_path / "a.jpg")[1].notes == "grey dicom wrong-suffix"
    (tmp_path / "text.dcm").write_text("nonsense")
    with pytest.raises(Unreadable, match=r"^text, not an image$"):
        read_picture(tmp_path / "text.dcm")


def test_no_truncation_passes_for_the_whole() -> None:
    for data in (dicom(DEEP[:16], bits=12), dicom(scene()[:9], "RGB")):
        for kept in range(0, len(data), 17):
            with pytest.raises(Unreadable):
                read_picture(data[:kept])


def test_what_cannot_be_shown_says_why() -> None:
    empty = dataset(GREY)
    del empty.PixelData
    with pytest.raises(Unreadable, match=r"^a DICOM file without a picture"):
        read_picture(written(empty))
    with pytest.raises(Unreadable, match=r"^declares 60000 × 60000 pixels, more than 500 million"):
        read_picture(dicom(GREY, Rows=60000, Columns=60000))
    with pytest.raises(Unreadable, match=r"^declares 0 × 30 pixels"):
        read_picture(dicom(GREY, Columns=0))
    with pytest.raises(Unreadable, match=r"^a DICOM file that is damaged or not read"):
        read_picture(dicom(GREY, BitsAllocated=7))


def test_without_pydicom_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom(GREY)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(Unreadable, match=r"^a DICOM file; install parfocal\[dicom\]$"):
        prepare_image(data, ImagesPart())
