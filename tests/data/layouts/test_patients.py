"""Every layout takes the patients that its data names; where it names none, it warns and proposes what it sees."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom import dcmwrite
from pydicom.uid import DeflatedExplicitVRLittleEndian

from parfocal.data.dicom import read_patient_id
from parfocal.data.layouts import read
from parfocal.data.split import read_and_split
from parfocal.data.table import Table
from parfocal.errors import ParfocalError
from parfocal.recipe import load_recipe
from parfocal.synthetic.dataset import synthesize_fundus, synthesize_smear
from tests.data.test_dicom import build_dataset

N_PATIENTS = 35
PATIENTS = [f"K{row // 4:03d}" for row in range(4 * N_PATIENTS)]
N_IMAGES = len(PATIENTS)
LABELS = [row % 2 for row in range(N_IMAGES)]
NAMES = [f"{row:05d}" for row in range(N_IMAGES)]


def _split(source: Path, **changes: object) -> Table:
    return read_and_split(source, load_recipe(None, **{"test": 0.2, **changes}))


def _count_divided(table: Table) -> int:
    """Return how many of the patients are in more than one split; ids and paths end with the number of the image."""
    numbers = [int(image_id.rpartition("/")[2].rpartition("_")[2].partition(".")[0]) for image_id in table.rows["id"]]
    true = [PATIENTS[number] for number in numbers]
    return int((table.rows.assign(true=true).groupby("true")["split"].nunique() > 1).sum())


def _write_sheet(folder: Path, name: str, columns: tuple[str, ...], heading: str) -> Path:
    rows = pd.DataFrame({columns[0]: NAMES, columns[1]: LABELS, heading: PATIENTS})
    rows.to_csv(folder / name, index=False)
    return folder


def _write_npz(folder: Path, heading: str) -> Path:
    arrays = {
        "train_images": np.zeros((N_IMAGES, 8, 8), np.uint8),
        "train_labels": np.array(LABELS),
        f"train_{heading}": np.array(PATIENTS),
    }
    np.savez(folder / "set.npz", **arrays)  # pyright: ignore[reportArgumentType]
    return folder


def _write_patients_file(folder: Path, paths: list[str], patients: list[str]) -> None:
    pd.DataFrame({"Path": paths, "patient": patients}).to_csv(folder / "patients.csv", index=False)


def _write_class_folders(folder: Path, name: str, suffix: str = ".png") -> Path:
    """Write an image for each patient, class and number; return the folder."""
    for row, patient in enumerate(PATIENTS):
        label = ("blast", "normal")[LABELS[row]]
        path = folder / name.format(patient=patient, label=label, number=NAMES[row])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(suffix).write_bytes(b"x")
    return folder


LAYOUTS: dict[str, Callable[[Path, str], Path]] = {
    "leukemia-lab": lambda folder, heading: _write_sheet(folder, "train.csv", ("Path", "label"), heading),
    "aptos": lambda folder, heading: _write_sheet(folder, "train.csv", ("id_code", "diagnosis"), heading),
    "eyepacs": lambda folder, heading: _write_sheet(folder, "trainLabels.csv", ("image", "level"), heading),
    "columns": lambda folder, heading: _write_sheet(folder, "labels.csv", ("file", "class"), heading),
    "medmnist": _write_npz,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("heading", ["patient", "PatientID", "subjects"])
def test_every_layout_takes_a_column_of_patients(tmp_path: Path, layout: str, heading: str) -> None:
    table = _split(LAYOUTS[layout](tmp_path, heading))
    assert table.source.startswith(layout)
    assert (table.groups_are, table.findings, _count_divided(table)) == ("patients", (), 0)
    assert table.groups_from == f"column {heading!r}"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_takes_the_column_that_the_recipe_names(tmp_path: Path, layout: str) -> None:
    table = _split(LAYOUTS[layout](tmp_path, "wer"), group="wer")
    assert (table.groups_are, table.findings, _count_divided(table)) == ("patients", (), 0)


@pytest.mark.parametrize("layout", ["leukemia-lab", "aptos", "columns", "medmnist"])
def test_every_layout_warns_where_no_patient_is_known(tmp_path: Path, layout: str) -> None:
    table = _split(LAYOUTS[layout](tmp_path, "notes"))
    assert table.groups_are == "images"
    (warning,) = table.findings
    assert (warning.severity, warning.code) == ("warning", "no_patients")
    assert "split.by=image" in warning.remedy


def test_arrays_of_patients_must_fit_the_images(tmp_path: Path) -> None:
    images, labels = np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2
    np.savez(tmp_path / "set.npz", train_images=images, train_labels=labels, train_patients=np.arange(3))
    with pytest.raises(ParfocalError, match=r"train_patients has 3 values for 4 images"):
        read(tmp_path)


@pytest.mark.parametrize("prefix", ["", "./"])
def test_the_patients_file_matches_paths_with_and_without_a_dot(tmp_path: Path, prefix: str) -> None:
    other = {"": "./", "./": ""}[prefix]
    pd.DataFrame({"Path": [f"{prefix}{name}.bmp" for name in NAMES], "label": LABELS}).to_csv(
        tmp_path / "train.csv", index=False
    )
    _write_patients_file(tmp_path, [f"{other}{name}.bmp" for name in NAMES], PATIENTS)
    table = _split(tmp_path)
    assert (table.groups_are, table.findings, _count_divided(table)) == ("patients", (), 0)
    assert table.groups_from == "column 'patient' of patients.csv"


def test_a_patients_file_of_other_images_is_an_error(cells: Path) -> None:
    _write_patients_file(cells, ["a.bmp", "b.bmp"], ["1", "1"])
    with pytest.raises(ParfocalError, match=r"patients\.csv names no image of the data: its first path is 'a\.bmp'"):
        read(cells)


def test_what_a_patients_file_leaves_over_is_counted(cells: Path) -> None:
    rows = pd.read_csv(cells / "patients.csv")
    more = pd.DataFrame({"Path": ["extra/1.bmp", "extra/2.bmp"], "patient": ["x", "x"]})
    pd.concat([rows.iloc[3:], more]).to_csv(cells / "patients.csv", index=False)
    (warning,) = read(cells).findings
    assert (warning.severity, warning.code, len(warning.ids)) == ("warning", "missing_patients", 3)
    assert "3 of 76 images have no row" in warning.message
    assert "2 of 75 rows name no image (extra/1.bmp, extra/2.bmp)" in warning.message
    pd.concat([rows, more]).to_csv(cells / "patients.csv", index=False)
    (warning,) = read(cells).findings
    assert "0 of 76 images have no row, and 2 of 78 rows" in warning.message
    assert not warning.remedy


def test_a_patients_file_with_two_patients_for_an_image_is_an_error(cells: Path) -> None:
    rows = pd.read_csv(cells / "patients.csv")
    pd.concat([rows, rows.iloc[:1].assign(patient="other")]).to_csv(cells / "patients.csv", index=False)
    with pytest.raises(ParfocalError, match=r"patients\.csv, line 78: .* has the patient 'other', but 'train-0-0'"):
        read(cells)


def test_a_column_of_the_labels_comes_before_a_patients_file(tmp_path: Path) -> None:
    _write_sheet(tmp_path, "labels.csv", ("file", "class"), "PatientID")
    _write_patients_file(tmp_path, ["other.png"], ["K1"])
    assert _split(tmp_path / "labels.csv").groups_from == "column 'PatientID'"


def test_a_table_of_patients_without_images_is_no_patients_file(tmp_path: Path) -> None:
    _write_sheet(tmp_path, "labels.csv", ("file", "class"), "notes")
    (tmp_path / "patients.csv").write_text("id,patient,age\n1,K001,44\n")
    for source in (tmp_path, tmp_path / "labels.csv"):
        assert [finding.code for finding in read(source).findings] == ["no_patients"]


def test_a_patients_file_works_for_class_folders(tmp_path: Path) -> None:
    _write_class_folders(tmp_path, "{label}/{number}.png")
    names = [f"{('blast', 'normal')[label]}/{name}.png" for name, label in zip(NAMES, LABELS, strict=True)]
    _write_patients_file(tmp_path, names, PATIENTS)
    table = _split(tmp_path)
    assert table.source.startswith("folders at ")
    assert (table.groups_are, table.findings, _count_divided(table)) == ("patients", (), 0)


FOLDERS = {
    "{label}/{patient}_{number}.png": "{patient}_{image}",
    "{label}/{patient}/{number}.png": "{patient}/{image}",
    "{patient}/{label}/{number}.png": "{patient}/{folder}/{image}",
    "train/{patient}/{label}/{number}.png": "{patient}/{folder}/{image}",
}


@pytest.mark.parametrize("name", FOLDERS)
def test_patients_in_names_and_folders_are_proposed_and_split_once_accepted(tmp_path: Path, name: str) -> None:
    table = _split(_write_class_folders(tmp_path, name))
    assert table.classes == ("blast", "normal")
    assert table.groups_are == "images"
    (warning,) = table.findings
    assert warning.code == "no_patients"
    assert f'Set columns.group_from="{FOLDERS[name]}" if ' in warning.remedy
    assert "there are 35" in warning.remedy
    table = _split(tmp_path, group_from=FOLDERS[name])
    assert (table.groups_are, table.findings, _count_divided(table)) == ("patients", (), 0)


@pytest.mark.parametrize(
    "names",
    [
        [f"{number}/a/{image}.png" for number in range(5) for image in range(4)],
        [f"grade{number}/{side}/1.png" for number in range(8) for side in ("left", "right")],
        [f"species {number}/{split}/1.png" for number in range(8) for split in ("train", "test")],
        [f"{name}/{view}/1.png" for name in ("oak", "ash", "elm", "fir", "yew", "may", "bay") for view in ("a", "b")],
    ],
)
def test_class_folders_with_subfolders_stay_classes(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert set(read(tmp_path).classes) == {name.partition("/")[0] for name in names}


def _write_dicom(folder: Path, patients: list[str], **encoding: object) -> Path:
    for row, patient in enumerate(patients):
        path = folder / ("blast", "normal")[row % 2] / f"{row:05d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset = build_dataset(np.full((8, 8), row % 250, np.uint8), PatientID=patient)
        if "deflated" in encoding:
            dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dcmwrite(path, dataset, enforce_file_format=True)
    return folder


def test_dicom_files_name_their_patients(tmp_path: Path) -> None:
    table = _split(_write_dicom(tmp_path, PATIENTS))
    assert (table.groups_are, table.findings, _count_divided(table)) == ("patients", (), 0)
    assert table.groups_from == "PatientID of DICOM"


@pytest.mark.parametrize("patients", [["anonymous"] * 12, [""] * 12, [str(row) for row in range(12)]])
def test_dicom_files_that_tell_no_patients_apart_are_warned_of(tmp_path: Path, patients: list[str]) -> None:
    table = read(_write_dicom(tmp_path, patients))
    assert table.groups_are == "images"
    assert [finding.code for finding in table.findings] == ["no_patients"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_patient_of_a_dicom_file_is_read_without_its_pixels(tmp_path: Path) -> None:
    path = _write_dicom(tmp_path, ["K1"]) / "blast" / "00000.dcm"
    assert read_patient_id(str(path)) == "K1"
    path.write_bytes(path.read_bytes()[:-40])
    assert read_patient_id(str(path)) == "K1"
    _write_dicom(tmp_path, ["K2"], deflated=True)
    assert read_patient_id(str(path)) == "K2"
    pixels = np.random.default_rng(0).integers(0, 256, (500, 500)).astype(np.uint8)
    dataset = build_dataset(pixels, PatientID="K3")
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dcmwrite(path, dataset, enforce_file_format=True)
    assert read_patient_id(str(path)) == "K3"
    path.write_bytes(b"\x02\0" + b"\xff" * 500)
    assert read_patient_id(str(path)) == ""
    assert read_patient_id(str(tmp_path / "missing.dcm")) == ""


def test_the_layouts_of_the_source_documents_keep_their_patients(tmp_path: Path) -> None:
    smears = read(synthesize_smear(tmp_path / "smears", 40, size=48))
    assert (smears.groups_are, smears.findings) == ("patients", ())
    eyes = read(synthesize_fundus(tmp_path / "eyes", 40, size=48))
    assert (eyes.groups_are, eyes.findings) == ("patients", ())
    assert eyes.groups_from == "the names before _left and _right"
    (tmp_path / "aptos").mkdir()
    rows = pd.DataFrame({"id_code": [f"{row * 7919 % 9973:04x}" for row in range(40)], "diagnosis": [0, 1] * 20})
    rows.to_csv(tmp_path / "aptos" / "train.csv", index=False)
    aptos = read(tmp_path / "aptos")
    assert (aptos.groups_are, [finding.code for finding in aptos.findings]) == ("images", ["no_patients"])


def test_cells_of_cnmc_have_patients(tmp_path: Path) -> None:
    for name in ("all/UID_11_10_1_all.bmp", "all/UID_11_10_2_all.bmp", "hem/UID_H12_1_1_hem.bmp"):
        path = tmp_path / "fold_0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    table = read(tmp_path)
    assert (table.groups_are, table.groups_from, table.findings) == ("patients", "the names of the files", ())


def test_a_patients_file_can_be_named_in_the_singular(cells: Path) -> None:
    expected = read(cells).rows["group"].tolist()
    (cells / "patients.csv").rename(cells / "patient.csv")
    assert read(cells).rows["group"].tolist() == expected
