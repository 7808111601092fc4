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

from parfocal.data.decode import prepare_image, read_image
from parfocal.data.headers import limit_image_size
from parfocal.errors import ImageTooLargeError, UnreadableImageError
from parfocal.schema import ImagesConfig
from tests.data.example_files import draw_scene

GRAY = draw_scene()[..., 0]
DEEP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def build_dataset(values: np.ndarray, photometric: str = "MONOCHROME2", bits: int = 0, **tags: Any) -> Dataset:
    """Return pixels as a DICOM data set; frames come first in their shape."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    made.SamplesPerPixel = 3 if photometric.startswith(("RGB", "YBR")) else 1
    shape = values.shape[:-1] if made.SamplesPerPixel == 3 else values.shape
    if made.SamplesPerPixel == 3:
        made.PlanarConfiguration = 0
    if len(shape) == 3:
        made.NumberOfFrames = shape[0]
    made.Rows, made.Columns = shape[-2:]
    made.PhotometricInterpretation = photometric
    made.BitsAllocated = values.itemsize * 8
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(values.dtype.kind == "i")
    made.PixelData = values.tobytes()
    made["PixelData"].VR = "OB" if values.itemsize == 1 else "OW"
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def write_dicom(dataset: Dataset, **options: Any) -> bytes:
    """Return the bytes of a DICOM file."""
    stream = BytesIO()
    dcmwrite(stream, dataset, **({"enforce_file_format": True} | options))
    return stream.getvalue()


def build_dicom(values: np.ndarray, photometric: str = "MONOCHROME2", bits: int = 0, **tags: Any) -> bytes:
    """Return the bytes of a DICOM file of these pixels."""
    return write_dicom(build_dataset(values, photometric, bits, **tags))


def _read_gray(data: bytes) -> np.ndarray:
    pixels, facts = read_image(data)
    assert pixels.shape[2] == 3
    assert (pixels == pixels[..., :1]).all()
    assert {"gray", "dicom"} <= set(facts.notes.split())
    return pixels[..., 0]


def test_8_bits_are_read_as_they_are() -> None:
    data = build_dicom(GRAY)
    np.testing.assert_array_equal(_read_gray(data), GRAY)
    _, facts = read_image(data)
    assert (facts.width, facts.height, facts.bytes, facts.notes) == (46, 30, len(data), "grey dicom")


def test_without_a_window_the_stored_bits_are_the_range() -> None:
    golden = np.rint(DEEP / 4095 * 255)
    np.testing.assert_array_equal(_read_gray(build_dicom(DEEP, bits=12)), golden)
    np.testing.assert_array_equal(_read_gray(build_dicom(DEEP // 2, bits=12)), np.rint(DEEP // 2 / 4095 * 255))
    signed = (DEEP.astype(np.int16) - 2048).astype(np.int16)
    np.testing.assert_array_equal(_read_gray(build_dicom(signed, bits=12)), golden)
    rescaled = build_dicom(DEEP, bits=12, RescaleSlope=2, RescaleIntercept=-1024)
    np.testing.assert_array_equal(_read_gray(rescaled), golden)
    assert read_image(rescaled)[1].notes == "grey 16-bit dicom"


def test_the_first_window_is_taken_after_rescaling() -> None:
    units = DEEP - 1024.0
    golden = np.clip(np.rint((units - (40 - 0.5 - 399 / 2)) / 399 * 255), 0, 255)
    data = build_dicom(
        DEEP, bits=12, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=[40, 600], WindowWidth=[400, 9]
    )
    np.testing.assert_array_equal(_read_gray(data), golden)
    one = build_dicom(DEEP, bits=12, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    np.testing.assert_array_equal(_read_gray(one), golden)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_of_every_function_are_grey_in_the_middle(function: str) -> None:
    pixels = _read_gray(build_dicom(DEEP, bits=12, WindowCenter=2000, WindowWidth=1000, VOILUTFunction=function))
    assert abs(int(pixels.flat[2000]) - 128) <= 1
    assert pixels.flat[500] < 3
    assert pixels.flat[3500] > 252
    assert (np.diff(pixels.ravel().astype(int)) >= 0).all()


def test_a_window_of_one_is_a_threshold() -> None:
    pixels = _read_gray(build_dicom(DEEP, bits=12, WindowCenter=2000, WindowWidth=1))
    np.testing.assert_array_equal(pixels, np.where(DEEP >= 2000, 255, 0))


def test_monochrome1_is_turned_round() -> None:
    np.testing.assert_array_equal(_read_gray(build_dicom(GRAY, "MONOCHROME1")), 255 - GRAY)


def test_a_table_of_greys_is_followed() -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 8], [255 - value for value in range(256)]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    np.testing.assert_array_equal(_read_gray(build_dicom(GRAY, VOILUTSequence=[table])), 255 - GRAY)


def test_an_enhanced_file_says_its_window_in_groups() -> None:
    window, group = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 40, 400
    group.FrameVOILUTSequence = [window]
    plain = _read_gray(build_dicom(DEEP, bits=12, WindowCenter=40, WindowWidth=400))
    frames = np.stack([DEEP, DEEP[::-1]])
    enhanced = build_dicom(frames, bits=12, PerFrameFunctionalGroupsSequence=[group, group])
    np.testing.assert_array_equal(_read_gray(enhanced), plain)


def test_the_first_of_several_frames_is_read() -> None:
    data = build_dicom(np.stack([GRAY, 255 - GRAY, GRAY]))
    np.testing.assert_array_equal(_read_gray(data), GRAY)
    assert read_image(data)[1].notes == "grey animated dicom"


def test_colours_are_read_in_either_order() -> None:
    np.testing.assert_array_equal(read_image(build_dicom(draw_scene(), "RGB"))[0], draw_scene())
    planes = build_dataset(draw_scene(), "RGB", PlanarConfiguration=1)
    planes.PixelData = np.ascontiguousarray(draw_scene().transpose(2, 0, 1)).tobytes()
    np.testing.assert_array_equal(read_image(write_dicom(planes))[0], draw_scene())
    deep = read_image(build_dicom(draw_scene().astype(np.uint16) * 257, "RGB"))
    np.testing.assert_array_equal(deep[0], draw_scene())
    assert deep[1].notes == "16-bit dicom"


def test_luminance_and_chroma_become_colours() -> None:
    ybr = cv2.cvtColor(draw_scene(), cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    pixels, facts = read_image(build_dicom(np.ascontiguousarray(ybr), "YBR_FULL"))
    assert np.abs(pixels.astype(int) - draw_scene()).mean() < 1
    assert facts.notes == "dicom"


def test_a_palette_is_followed() -> None:
    numbers = np.arange(256, dtype=np.uint16)
    tables = {"Red": numbers, "Green": 255 - numbers, "Blue": numbers // 2}
    tags: dict[str, Any] = {}
    for name, table in tables.items():
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{name}PaletteColorLookupTableData"] = (table * 257).astype("<u2").tobytes()
    made = build_dataset(GRAY, "PALETTE COLOR", **tags)
    for name in tables:
        made[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
    pixels, facts = read_image(write_dicom(made))
    np.testing.assert_array_equal(pixels, np.dstack([GRAY, 255 - GRAY, GRAY // 2]))
    assert facts.notes == "palette dicom"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_every_plain_encoding_is_read(syntax: UID) -> None:
    made = build_dataset(DEEP, bits=12)
    made.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        made.PixelData = DEEP.astype(">u2").tobytes()
    np.testing.assert_array_equal(_read_gray(write_dicom(made)), _read_gray(build_dicom(DEEP, bits=12)))


def test_run_lengths_are_read() -> None:
    made = build_dataset(DEEP, bits=12)
    compress(made, RLELossless)
    np.testing.assert_array_equal(_read_gray(write_dicom(made)), _read_gray(build_dicom(DEEP, bits=12)))


@pytest.mark.parametrize("values", [DEEP, draw_scene()], ids=["16 bits", "colours"])
def test_run_lengths_that_come_to_more_than_the_picture_are_refused(values: np.ndarray) -> None:
    made = build_dataset(values, "RGB" if values.ndim == 3 else "MONOCHROME2")
    compress(made, RLELossless)
    made.Columns = made.Columns // 2
    with pytest.raises(UnreadableImageError, match="run lengths come to more than its picture"):
        read_image(write_dicom(made))


@pytest.mark.filterwarnings("ignore:The value")
def test_what_is_deflated_takes_no_more_memory_than_it_may() -> None:
    made = build_dataset(GRAY, ImageComments="a" * 5_000_000)
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data = write_dicom(made)
    np.testing.assert_array_equal(_read_gray(data), GRAY)
    tracemalloc.start()
    with limit_image_size(100_000), pytest.raises(ImageTooLargeError, match="once inflated"):
        read_image(data)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_what_is_odd_in_a_file_is_not_quoted(tmp_path: Path) -> None:
    data = build_dicom(GRAY, SpecificCharacterSet="ISO_IR 6", PatientName="A").replace(b"ISO_IR 6", b"SECRET A")
    (tmp_path / "a.dcm").write_bytes(data)
    # In a process of its own, for tests have filters of their own.
    reading = "from pathlib import Path; from parfocal.data.decode import read_picture"
    reading += "; print(read_picture(Path('a.dcm'))[1].notes)"
    done = subprocess.run([sys.executable, "-c", reading], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("grey dicom\n", "")


@pytest.mark.parametrize("colours", ["MONOCHROME2", "YBR_FULL_422"])
def test_jpeg_inside_is_read_without_another_package(colours: str) -> None:
    golden = draw_scene() if colours.startswith("YBR") else np.repeat(GRAY[..., None], 3, 2)
    done, jpeg = cv2.imencode(".jpg", golden[..., ::-1] if colours.startswith("YBR") else GRAY)
    assert done
    made = build_dataset(golden if colours.startswith("YBR") else GRAY, colours)
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    made.PixelData = encapsulate([jpeg.tobytes()])
    made["PixelData"].is_undefined_length = True
    pixels, _ = read_image(write_dicom(made))
    assert np.abs(pixels.astype(int) - golden).mean() < 3
    made.PixelData = encapsulate([jpeg.tobytes()[:-200]])
    made["PixelData"].is_undefined_length = True
    with pytest.raises(UnreadableImageError, match="truncated"):
        read_image(write_dicom(made))


def test_a_file_without_preamble_is_known_by_its_name(tmp_path: Path) -> None:
    made = build_dataset(GRAY)
    del made.file_meta
    stream = BytesIO()
    dcmwrite(stream, made, implicit_vr=True, little_endian=True)
    (tmp_path / "old.dcm").write_bytes(stream.getvalue())
    np.testing.assert_array_equal(read_image(tmp_path / "old.dcm")[0][..., 0], GRAY)


def test_the_name_is_judged_by_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(build_dicom(GRAY))
    assert read_image(tmp_path / "a.jpg")[1].notes == "grey dicom wrong-suffix"
    (tmp_path / "text.dcm").write_text("nonsense")
    with pytest.raises(UnreadableImageError, match=r"^text, not an image$"):
        read_image(tmp_path / "text.dcm")


def test_no_truncation_passes_for_the_whole() -> None:
    for data in (build_dicom(DEEP[:16], bits=12), build_dicom(draw_scene()[:9], "RGB")):
        for kept in range(0, len(data), 17):
            with pytest.raises(UnreadableImageError):
                read_image(data[:kept])


def test_what_cannot_be_shown_says_why() -> None:
    empty = build_dataset(GRAY)
    del empty.PixelData
    with pytest.raises(UnreadableImageError, match=r"^a DICOM file without a picture"):
        read_image(write_dicom(empty))
    with pytest.raises(UnreadableImageError, match=r"^declares 60000 × 60000 pixels, more than 500 million"):
        read_image(build_dicom(GRAY, Rows=60000, Columns=60000))
    with pytest.raises(UnreadableImageError, match=r"^declares 0 × 30 pixels"):
        read_image(build_dicom(GRAY, Columns=0))
    with pytest.raises(UnreadableImageError, match=r"^a DICOM file that is damaged or not read"):
        read_image(build_dicom(GRAY, BitsAllocated=7))


def test_without_pydicom_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = build_dicom(GRAY)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UnreadableImageError, match=r"^a DICOM file; install parfocal\[dicom\]$"):
        prepare_image(data, ImagesConfig())
