"""C-NMC, EyePACS and APTOS as they are published."""

from pathlib import Path

import pytest

from parfocal.data.layouts import read
from parfocal.data.layouts.medical import parse_cell_patient
from parfocal.errors import ParfocalError


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def _cnmc(folder: Path) -> Path:
    training = folder / "C-NMC_Leukemia" / "training_data"
    _touch(
        training,
        "fold_0/all/UID_11_10_1_all.bmp",
        "fold_0/hem/UID_H12_1_1_hem.bmp",
        "fold_1/all/UID_2_1_2_all.bmp",
        "fold_1/hem/UID_h12_2_1_hem.bmp",
        "fold_2/all/UID_3_1_1_all.bmp",
    )
    (training / "fold_2" / "hem").mkdir()
    return folder


def test_cnmc_gives_folds_patients_and_classes(tmp_path: Path) -> None:
    table = read(_cnmc(tmp_path))
    assert table.classes == ("hem", "all")
    assert table.rows["fold"].tolist() == ["fold_0", "fold_0", "fold_1", "fold_1", "fold_2"]
    assert table.rows["group"].tolist() == ["11", "h12", "2", "h12", "3"]
    assert table.rows["label"].tolist() == [1, 0, 1, 0, 1]
    assert "recognised by" in table.source


def test_cnmcs_preliminary_test_set_has_its_labels_and_patients(tmp_path: Path) -> None:
    preliminary = _cnmc(tmp_path) / "C-NMC_Leukemia" / "validation_data"
    _touch(preliminary, "C-NMC_test_prelim_phase_data/1.bmp", "C-NMC_test_prelim_phase_data/2.bmp")
    (preliminary / "C-NMC_test_prelim_phase_data_labels.csv").write_text(
        "Patient_ID,new_names,labels\nUID_57_29_1_all.bmp,1.bmp,1\nUID_H30_2_1_hem.bmp,2.bmp,0\n"
    )
    table = read(tmp_path)
    test = table.rows[table.rows["split"] == "test"]
    assert test["group"].tolist() == ["57", "h30"]
    assert test["label"].tolist() == [1, 0]
    assert all(Path(path).is_file() for path in test["path"])
    assert table.submission_lists["preliminary_test"] == ("1.bmp", "2.bmp")


@pytest.mark.parametrize(
    ("name", "said"),
    [("notes.txt", "is not named UID_"), ("UID_1_1_1_hem.bmp", "says hem in its name but lies in all/")],
)
def test_a_stray_file_among_the_cells_is_named(tmp_path: Path, name: str, said: str) -> None:
    _touch(_cnmc(tmp_path) / "C-NMC_Leukemia" / "training_data" / "fold_0" / "all", name)
    with pytest.raises(ParfocalError, match=said):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "patient"),
    [("UID_H12_3_1_hem.bmp", "h12"), ("uid_h12_3_1_HEM.BMP", "h12"), ("UID_57_29_1_all.bmp", "57"), ("1.bmp", "")],
)
def test_the_patient_is_the_second_field_whatever_its_case(name: str, patient: str) -> None:
    assert parse_cell_patient(name) == patient


def test_eyepacs_has_grades_and_two_eyes_a_patient(tmp_path: Path) -> None:
    _touch(tmp_path, "train/10_left.jpeg", "train/10_right.jpeg", "train/13_left.jpeg")
    (tmp_path / "trainLabels.csv").write_text("image,level\n10_left,0\n10_right,2\n13_left,4\n")
    table = read(tmp_path)
    assert table.classes[4] == "proliferative"
    assert table.rows["group"].tolist() == ["10", "10", "13"]
    assert table.rows["path"].iloc[1] == str(tmp_path / "train" / "10_right.jpeg")
    assert table.source.startswith("eyepacs at ")


def test_aptos_has_a_list_of_unlabelled_test_images(tmp_path: Path) -> None:
    _touch(tmp_path, "train_images/a1.png", "train_images/b2.png", "test_images/c3.png")
    (tmp_path / "train.csv").write_text("id_code,diagnosis\na1,0\nb2,3\n")
    (tmp_path / "test.csv").write_text("id_code\nc3\n")
    table = read(tmp_path)
    assert table.source.startswith("aptos at ")
    assert table.get_labels("train").tolist() == [0, 3]
    assert table.submission_lists["test"] == ("c3",)
    assert not table.is_labeled("test")
    assert table.rows["path"].iloc[2] == str(tmp_path / "test_images" / "c3.png")


def test_a_grade_out_of_range_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "trainLabels.csv").write_text("image,level\n10_left,0\n10_right,5\n")
    with pytest.raises(ParfocalError, match=r"trainLabels\.csv, line 3: the label is '5'. Valid are 0 \(no DR\)"):
        read(tmp_path)
