"""DICOM files are shown as they declare, and rejected with a reason if they declare too little."""

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
from parfocal.data.image_header import limit_image_size
from parfocal.errors import ImageTooLargeError, UnreadableImageError
from parfocal.recipe_schema import ImagesConfig
from tests.data.example_files import draw_scene

GRAY = draw_scene()[..., 0]
DEEP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def build_dataset(values: np.ndarray, photometric: str = "MONOCHROME2", bits: int = 0, **tags: Any) -> Dataset:
    """Return pixels as a DICOM data set; the first axis is the frames."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    dataset.SamplesPerPixel = 3 if photometric.startswith(("RGB", "YBR")) else 1
    shape = values.shape[:-1] if dataset.SamplesPerPixel == 3 else values.shape
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
    if len(shape) == 3:
        dataset.NumberOfFrames = shape[0]
    dataset.Rows, dataset.Columns = shape[-2:]
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = values.itemsize * 8
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    dataset["PixelData"].VR = "OB" if values.itemsize == 1 else "OW"
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def write_dicom(dataset: Dataset, **options: Any) -> bytes:
    """Return the bytes of a DICOM file."""
    stream = BytesIO()
    dcmwrite(stream, dataset, **({"enforce_file_format": True} | options))
    return stream.getvalue()


def build_dicom(values: np.ndarray, photometric: str = "MONOCHROME2", bits: int = 0, **tags: Any) -> bytes:
    """Return the bytes of a DICOM file of these pixels."""
    return write_dicom(build_dataset(values, photometric, bits, **tags))


def _read_gray(data: bytes) -> np.ndarray:
    pixels, info = read_image(data)
    assert pixels.shape[2] == 3
    assert (pixels == pixels[..., :1]).all()
    assert {"gray", "dicom"} <= set(info.notes.split())
    return pixels[..., 0]


def test_8_bits_are_not_changed() -> None:
    data = build_dicom(GRAY)
    np.testing.assert_array_equal(_read_gray(data), GRAY)
    _, info = read_image(data)
    assert (info.width, info.height, info.bytes, info.notes) == (46, 30, len(data), "gray dicom")


def test_without_a_window_black_and_white_are_the_limits_of_the_stored_bits() -> None:
    expected = np.rint(DEEP / 4095 * 255)
    np.testing.assert_array_equal(_read_gray(build_dicom(DEEP, bits=12)), expected)
    np.testing.assert_array_equal(_read_gray(build_dicom(DEEP // 2, bits=12)), np.rint(DEEP // 2 / 4095 * 255))
    signed = (DEEP.astype(np.int16) - 2048).astype(np.int16)
    np.testing.assert_array_equal(_read_gray(build_dicom(signed, bits=12)), expected)
    rescaled = build_dicom(DEEP, bits=12, RescaleSlope=2, RescaleIntercept=-1024)
    np.testing.assert_array_equal(_read_gray(rescaled), expected)
    assert read_image(rescaled)[1].notes == "gray 16-bit dicom"


def test_the_first_window_is_applied_after_rescaling() -> None:
    units = DEEP - 1024.0
    expected = np.clip(np.rint((units - (40 - 0.5 - 399 / 2)) / 399 * 255), 0, 255)
    data = build_dicom(
        DEEP, bits=12, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=[40, 600], WindowWidth=[400, 9]
    )
    np.testing.assert_array_equal(_read_gray(data), expected)
    single = build_dicom(DEEP, bits=12, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    np.testing.assert_array_equal(_read_gray(single), expected)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_center_of_a_window_is_mid_gray_for_every_function(function: str) -> None:
    pixels = _read_gray(build_dicom(DEEP, bits=12, WindowCenter=2000, WindowWidth=1000, VOILUTFunction=function))
    assert abs(int(pixels.flat[2000]) - 128) <= 1
    assert pixels.flat[500] < 3
    assert pixels.flat[3500] > 252
    assert (np.diff(pixels.ravel().astype(int)) >= 0).all()


def test_a_window_of_width_1_is_a_threshold() -> None:
    pixels = _read_gray(build_dicom(DEEP, bits=12, WindowCenter=2000, WindowWidth=1))
    np.testing.assert_array_equal(pixels, np.where(DEEP >= 2000, 255, 0))


def test_monochrome1_is_inverted() -> None:
    np.testing.assert_array_equal(_read_gray(build_dicom(GRAY, "MONOCHROME1")), 255 - GRAY)


def test_a_voi_lookup_table_is_applied() -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 8], [255 - value for value in range(256)]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    np.testing.assert_array_equal(_read_gray(build_dicom(GRAY, VOILUTSequence=[table])), 255 - GRAY)


def test_the_window_of_an_enhanced_file_is_in_its_functional_groups() -> None:
    window, group = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 40, 400
    group.FrameVOILUTSequence = [window]
    plain = _read_gray(build_dicom(DEEP, bits=12, WindowCenter=40, WindowWidth=400))
    frames = np.stack([DEEP, DEEP[::-1]])
    enhanced = build_dicom(frames, bits=12, PerFrameFunctionalGroupsSequence=[group, group])
    np.testing.assert_array_equal(_read_gray(enhanced), plain)


def test_only_the_first_frame_is_read() -> None:
    data = build_dicom(np.stack([GRAY, 255 - GRAY, GRAY]))
    np.testing.assert_array_equal(_read_gray(data), GRAY)
    assert read_image(data)[1].notes == "gray animated dicom"


def test_colors_are_read_in_both_planar_configurations() -> None:
    np.testing.assert_array_equal(read_image(build_dicom(draw_scene(), "RGB"))[0], draw_scene())
    planes = build_dataset(draw_scene(), "RGB", PlanarConfiguration=1)
    planes.PixelData = np.ascontiguousarray(draw_scene().transpose(2, 0, 1)).tobytes()
    np.testing.assert_array_equal(read_image(write_dicom(planes))[0], draw_scene())
    deep = read_image(build_dicom(draw_scene().astype(np.uint16) * 257, "RGB"))
    np.testing.assert_array_equal(deep[0], draw_scene())
    assert deep[1].notes == "16-bit dicom"


def test_ybr_is_converted_to_rgb() -> None:
    ybr = cv2.cvtColor(draw_scene(), cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    pixels, info = read_image(build_dicom(np.ascontiguousarray(ybr), "YBR_FULL"))
    assert np.abs(pixels.astype(int) - draw_scene()).mean() < 1
    assert info.notes == "dicom"


def test_a_palette_is_applied() -> None:
    numbers = np.arange(256, dtype=np.uint16)
    tables = {"Red": numbers, "Green": 255 - numbers, "Blue": numbers // 2}
    tags: dict[str, Any] = {}
    for name, table in tables.items():
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{name}PaletteColorLookupTableData"] = (table * 257).astype("<u2").tobytes()
    dataset = build_dataset(GRAY, "PALETTE COLOR", **tags)
    for name in tables:
        dataset[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
    pixels, info = read_image(write_dicom(dataset))
    np.testing.assert_array_equal(pixels, np.dstack([GRAY, 255 - GRAY, GRAY // 2]))
    assert info.notes == "palette dicom"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_every_uncompressed_transfer_syntax_is_read(syntax: UID) -> None:
    dataset = build_dataset(DEEP, bits=12)
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = DEEP.astype(">u2").tobytes()
    np.testing.assert_array_equal(_read_gray(write_dicom(dataset)), _read_gray(build_dicom(DEEP, bits=12)))


def test_rle_is_read() -> None:
    dataset = build_dataset(DEEP, bits=12)
    compress(dataset, RLELossless)
    np.testing.assert_array_equal(_read_gray(write_dicom(dataset)), _read_gray(build_dicom(DEEP, bits=12)))


@pytest.mark.parametrize("values", [DEEP, draw_scene()], ids=["16 bits", "colors"])
def test_rle_that_exceeds_the_image_is_rejected(values: np.ndarray) -> None:
    dataset = build_dataset(values, "RGB" if values.ndim == 3 else "MONOCHROME2")
    compress(dataset, RLELossless)
    dataset.Columns = dataset.Columns // 2
    with pytest.raises(UnreadableImageError, match="run lengths exceed the size of its image"):
        read_image(write_dicom(dataset))


@pytest.mark.filterwarnings("ignore:The value")
def test_inflating_stays_within_the_memory_limit() -> None:
    dataset = build_dataset(GRAY, ImageComments="a" * 5_000_000)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data = write_dicom(dataset)
    np.testing.assert_array_equal(_read_gray(data), GRAY)
    tracemalloc.start()
    with limit_image_size(100_000), pytest.raises(ImageTooLargeError, match="once inflated"):
        read_image(data)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_warnings_do_not_quote_the_file(tmp_path: Path) -> None:
    data = build_dicom(GRAY, SpecificCharacterSet="ISO_IR 6", PatientName="A").replace(b"ISO_IR 6", b"SECRET A")
    (tmp_path / "a.dcm").write_bytes(data)
    # A new process, because pytest sets warning filters.
    code = "from pathlib import Path; from parfocal.data.decode import read_image"
    code += "; print(read_image(Path('a.dcm'))[1].notes)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("gray dicom\n", "")


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "YBR_FULL_422"])
def test_baseline_jpeg_is_read_without_another_package(photometric: str) -> None:
    expected = draw_scene() if photometric.startswith("YBR") else np.repeat(GRAY[..., None], 3, 2)
    done, jpeg = cv2.imencode(".jpg", expected[..., ::-1] if photometric.startswith("YBR") else GRAY)
    assert done
    dataset = build_dataset(expected if photometric.startswith("YBR") else GRAY, photometric)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([jpeg.tobytes()])
    dataset["PixelData"].is_undefined_length = True
    pixels, _ = read_image(write_dicom(dataset))
    assert np.abs(pixels.astype(int) - expected).mean() < 3
    for damaged in (jpeg.tobytes()[:-200], jpeg.tobytes()[:-200] + b"\xff\xd9"):
        dataset.PixelData = encapsulate([damaged])
        dataset["PixelData"].is_undefined_length = True
        with pytest.raises(UnreadableImageError, match=r"truncated|whose JPEG is damaged"):
            read_image(write_dicom(dataset))


def test_a_file_without_preamble_is_recognized_by_its_suffix(tmp_path: Path) -> None:
    dataset = build_dataset(GRAY)
    del dataset.file_meta
    stream = BytesIO()
    dcmwrite(stream, dataset, implicit_vr=True, little_endian=True)
    (tmp_path / "old.dcm").write_bytes(stream.getvalue())
    np.testing.assert_array_equal(read_image(tmp_path / "old.dcm")[0][..., 0], GRAY)


def test_the_content_decides_whatever_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(build_dicom(GRAY))
    assert read_image(tmp_path / "a.jpg")[1].notes == "gray dicom wrong-suffix"
    (tmp_path / "text.dcm").write_text("nonsense")
    with pytest.raises(UnreadableImageError, match=r"^text, not an image$"):
        read_image(tmp_path / "text.dcm")


def test_every_truncation_is_rejected() -> None:
    for data in (build_dicom(DEEP[:16], bits=12), build_dicom(draw_scene()[:9], "RGB")):
        for length in range(0, len(data), 17):
            with pytest.raises(UnreadableImageError):
                read_image(data[:length])


def test_files_that_cannot_be_shown_are_rejected_with_a_reason() -> None:
    empty = build_dataset(GRAY)
    del empty.PixelData
    with pytest.raises(UnreadableImageError, match=r"^a DICOM file without an image"):
        read_image(write_dicom(empty))
    with pytest.raises(UnreadableImageError, match=r"^declares 60000 × 60000 pixels, more than 500 million"):
        read_image(build_dicom(GRAY, Rows=60000, Columns=60000))
    with pytest.raises(UnreadableImageError, match=r"^declares 0 × 30 pixels"):
        read_image(build_dicom(GRAY, Columns=0))
    with pytest.raises(UnreadableImageError, match=r"^a DICOM file that is damaged or not supported"):
        read_image(build_dicom(GRAY, BitsAllocated=7))


def test_without_pydicom_the_reason_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = build_dicom(GRAY)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UnreadableImageError, match=r"^a DICOM file; install parfocal\[dicom\]$"):
        prepare_image(data, ImagesConfig())
