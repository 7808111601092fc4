"""Layouts of medical data sets: the two labs of the source documents, C-NMC, EyePACS and APTOS."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from parfocal.data.layouts import read
from parfocal.data.layouts.medical import parse_cell_patient
from parfocal.data.table import UNKNOWN
from parfocal.errors import ParfocalError


def _write_fundus_lab(folder: Path, names: list[str], grades: list[object], split: str = "train") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{split}_img.csv").write_text("".join(f"{name}\n" for name in names))
    (folder / f"{split}_label.csv").write_text("".join(f"{grade}\n" for grade in grades))
    return folder


def test_the_files_of_the_leukemia_lab_are_read(cells: Path) -> None:
    table = read(cells)
    assert table.classes == ("normal", "blast")
    assert {split: len(table.get_positions(split)) for split in table.splits} == {"train": 48, "valid": 16, "test": 12}
    assert table.count_classes("train") == {"normal": 24, "blast": 24}
    assert table.submission_lists["resnet_18_test"] == tuple(f"./new_dataset/test/{number}.bmp" for number in range(12))
    assert table.source.startswith("leukemia-lab at ")
    assert table.rows["group"].iloc[0] == "train-0-0"
    assert Path(table.rows["path"].iloc[0]).is_file()


def test_without_a_truth_file_the_test_split_is_unlabeled(cells: Path) -> None:
    (cells / "test_truth.csv").unlink()
    table = read(cells)
    assert not table.is_labeled("test")
    assert set(table.get_labels("test")) == {UNKNOWN}


def test_submission_lists_keep_the_order_of_their_files(cells: Path) -> None:
    reverse = pd.read_csv(cells / "resnet_50_test.csv")["Path"][::-1]
    reverse.to_frame().to_csv(cells / "resnet_50_test.csv", index=False)
    table = read(cells)
    assert table.submission_lists["resnet_50_test"] == tuple(reverse)
    assert table.submission_lists["resnet_18_test"] == tuple(reverse[::-1])


def test_the_files_of_the_fundus_lab_are_read(tmp_path: Path) -> None:
    folder = _write_fundus_lab(tmp_path / "eyes", ["10_left", "10_right", "13_left"], [0, 1, "4"])
    _write_fundus_lab(folder, ["15_right"], [2], "test")
    for split, name in (("train", "10_left"), ("test", "15_right")):
        (folder / f"new_{split}").mkdir()
        (folder / f"new_{split}" / f"{name}.jpeg").write_bytes(b"x")
    table = read(folder)
    assert table.classes == ("no DR", "mild", "moderate", "severe", "proliferative")
    assert table.rows["group"].tolist() == ["10", "10", "13", "15"]
    assert table.rows["label"].tolist() == [0, 1, 4, 2]
    assert table.rows["path"].iloc[3] == str(folder / "new_test" / "15_right.jpeg")
    assert table.rows["path"].iloc[2] == str(folder / "new_train" / "13_left.jpeg")


def test_labels_can_be_class_names_or_floats(cells: Path) -> None:
    rows = pd.read_csv(cells / "valid.csv", dtype=str)
    rows.loc[0, "label"], rows.loc[1, "label"] = "Normal", "1.0"
    rows.to_csv(cells / "valid.csv", index=False)
    assert read(cells).get_labels("valid")[:2].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.bmp,1\n", r"train\.csv has no column 'Path'; it has 'path', 'label'. Did you mean 'path'"),
        (
            "Path,label\na.bmp,1\nb.bmp,maybe\n",
            r"train\.csv, line 3: the label is 'maybe'. Valid labels are 0 \(normal\), 1",
        ),
        ("Path,label\na.bmp,\n", r"line 2: the label is empty"),
        ("Path,label\n", r"train\.csv has no rows below its header"),
        ("", r"train\.csv is empty"),
        ('Path,label\n"a.bmp,1\n', r"train\.csv is not a readable CSV file"),
        (
            "Path,label\na.bmp,1\np,b.bmp,1\n",
            r"train\.csv, line 3: 3 values, but the header has 2 columns, so the columns have shifted",
        ),
        ("Path,label\na.bmp,1,x\n", r"train\.csv, line 2: 3 values, but the header has 2 columns"),
    ],
)
def test_a_faulty_label_file_is_an_error_with_file_and_line(
    draw: Callable[..., Path], tmp_path: Path, text: str, message: str
) -> None:
    folder = draw(tmp_path / "cells", train=4, valid=4, test=4)
    (folder / "train.csv").write_text(text)
    with pytest.raises(ParfocalError, match=message):
        read(folder)


def test_image_and_label_files_must_have_the_same_length(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match=r"train_img\.csv has 2 rows, but train_label\.csv has 1"):
        read(_write_fundus_lab(tmp_path / "eyes", ["10_left", "10_right"], [0]))


def test_a_second_column_in_a_file_of_one_column_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match=r"train_img\.csv has 2 columns"):
        read(_write_fundus_lab(tmp_path / "eyes", ["10_left,1"], [0]))


def test_a_semicolon_in_a_file_of_one_column_is_a_second_column(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match=r"train_img\.csv has 2 columns"):
        read(_write_fundus_lab(tmp_path / "eyes", ["10_left;1"], [0]))


def test_a_missing_label_file_is_an_error(tmp_path: Path) -> None:
    folder = _write_fundus_lab(tmp_path / "eyes", ["10_left"], [0])
    (folder / "train_label.csv").unlink()
    with pytest.raises(ParfocalError, match=r"train_label\.csv is missing"):
        read(folder)


def test_eyes_with_a_suffix_have_their_patient(tmp_path: Path) -> None:
    names = ["10_left.jpeg", "10_right.jpeg", "new_train/13_left.jpeg", "13_RIGHT.JPG"]
    table = read(_write_fundus_lab(tmp_path / "eyes", names, [0, 0, 1, 1]))
    assert table.rows["group"].tolist() == ["10", "10", "13", "13"]
    assert table.groups_are == "patients"


def test_train_images_that_are_only_in_the_test_folder_are_named(tmp_path: Path) -> None:
    folder = _write_fundus_lab(tmp_path / "eyes", ["10_left", "10_right"], [0, 1])
    _touch(folder, "new_train/10_left.jpeg", "new_test/10_right.jpeg")
    (finding,) = [finding for finding in read(folder).findings if finding.code == "misplaced_images"]
    assert finding.message == "1 images of train are only in new_test/: 10_right."


def test_the_words_of_the_assignment_are_labels(cells: Path) -> None:
    rows = pd.read_csv(cells / "valid.csv", dtype=str)
    rows.loc[:3, "label"] = ["Normal cell", "Leukemia blast", "hem", "ALL"]
    rows.to_csv(cells / "valid.csv", index=False)
    assert read(cells).get_labels("valid")[:4].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("name", "misnamed"),
    [("valid.csv", "val.csv"), ("valid.csv", "valid.CSV"), ("resnet_18_test.csv", "resnet18_test.csv")],
)
def test_a_label_file_under_another_name_is_named(cells: Path, name: str, misnamed: str) -> None:
    (cells / name).rename(cells / misnamed)
    (finding,) = [finding for finding in read(cells).findings if finding.code == "misnamed_files"]
    assert f"{misnamed} (the layout reads {name})" in finding.message


def test_a_label_file_stands_for_the_folder_of_its_layout(cells: Path) -> None:
    table = read(cells / "train.csv")
    pd.testing.assert_frame_equal(table.rows, read(cells).rows)
    assert "of which train.csv is a part; format=columns reads that file alone" in table.source
    assert read(cells / "train.csv", format="columns").source.startswith("columns of ")


def test_a_truth_file_without_an_image_is_an_error(cells: Path) -> None:
    pd.read_csv(cells / "test_truth.csv").iloc[:-1].to_csv(cells / "test_truth.csv", index=False)
    with pytest.raises(ParfocalError, match=r"test_truth\.csv has no row for \./new_dataset/test/11\.bmp"):
        read(cells)


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def _write_cnmc(folder: Path) -> Path:
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


def test_cnmc_has_folds_patients_and_classes(tmp_path: Path) -> None:
    table = read(_write_cnmc(tmp_path))
    assert table.classes == ("hem", "all")
    assert table.rows["fold"].tolist() == ["fold_0", "fold_0", "fold_1", "fold_1", "fold_2"]
    assert table.rows["group"].tolist() == ["11", "h12", "2", "h12", "3"]
    assert table.rows["label"].tolist() == [1, 0, 1, 0, 1]
    assert "recognized by" in table.source


def test_the_preliminary_test_set_of_cnmc_has_labels_and_patients(tmp_path: Path) -> None:
    preliminary = _write_cnmc(tmp_path) / "C-NMC_Leukemia" / "validation_data"
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
    ("name", "message"),
    [("notes.txt", "is not named UID_"), ("UID_1_1_1_hem.bmp", "is named hem, but it is in the folder all/")],
)
def test_a_file_that_is_not_a_cell_is_an_error_with_its_name(tmp_path: Path, name: str, message: str) -> None:
    _touch(_write_cnmc(tmp_path) / "C-NMC_Leukemia" / "training_data" / "fold_0" / "all", name)
    with pytest.raises(ParfocalError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "patient"),
    [("UID_H12_3_1_hem.bmp", "h12"), ("uid_h12_3_1_HEM.BMP", "h12"), ("UID_57_29_1_all.bmp", "57"), ("1.bmp", "")],
)
def test_the_patient_of_a_cell_is_the_second_field_in_any_case(name: str, patient: str) -> None:
    assert parse_cell_patient(name) == patient


@pytest.mark.parametrize("name", ["trainLabels.csv", "trainLabels_cropped.csv"])
def test_eyepacs_has_grades_and_two_eyes_for_a_patient(tmp_path: Path, name: str) -> None:
    _touch(tmp_path, "train/10_left.jpeg", "train/10_right.jpeg", "train/13_left.jpeg")
    (tmp_path / name).write_text("image,level\n10_left,0\n10_right,2\n13_left,4\n")
    table = read(tmp_path)
    assert table.classes[4] == "proliferative"
    assert table.rows["group"].tolist() == ["10", "10", "13"]
    assert table.rows["path"].iloc[1] == str(tmp_path / "train" / "10_right.jpeg")
    assert table.source.startswith("eyepacs at ")


def test_aptos_has_a_submission_list_of_unlabeled_test_images(tmp_path: Path) -> None:
    _touch(tmp_path, "train_images/a1.png", "train_images/b2.png", "test_images/c3.png")
    (tmp_path / "train.csv").write_text("id_code,diagnosis\na1,0\nb2,3\n")
    (tmp_path / "test.csv").write_text("id_code\nc3\n")
    table = read(tmp_path)
    assert table.source.startswith("aptos at ")
    assert table.get_labels("train").tolist() == [0, 3]
    assert table.submission_lists["test"] == ("c3",)
    assert not table.is_labeled("test")
    assert table.rows["path"].iloc[2] == str(tmp_path / "test_images" / "c3.png")


def test_an_invalid_grade_is_an_error_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "trainLabels.csv").write_text("image,level\n10_left,0\n10_right,5\n")
    with pytest.raises(
        ParfocalError, match=r"trainLabels\.csv, line 3: the label is '5'. Valid labels are 0 \(no DR\)"
    ):
        read(tmp_path)
