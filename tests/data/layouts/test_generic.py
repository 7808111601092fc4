"""Layouts of any data set: a sheet with columns of images and labels, or a folder for each class."""

from pathlib import Path

import pandas as pd
import pytest

from parfocal.data.layouts import read
from parfocal.errors import ParfocalError, UsageError

ROWS = pd.DataFrame(
    {
        "image_path": [f"img/{name}.png" for name in "abcdef"],
        "diagnosis": ["10", "2", "1", "2", "10", "1"],
        "patient": ["p1", "p1", "p2", "p3", "p3", "p4"],
        "set": ["train", "training", "val", "train", "test", "valid"],
    }
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "img").mkdir()
    for name in "abcdef":
        (tmp_path / "img" / f"{name}.png").write_bytes(b"x")
    return tmp_path


def _write_sheet(rows: pd.DataFrame, file: Path) -> Path:
    if file.suffix == ".parquet":
        rows.to_parquet(file)
    elif file.suffix == ".xlsx":
        rows.to_excel(file, index=False)
    else:
        rows.to_csv(file, index=False, sep="\t" if file.suffix == ".tsv" else ",")
    return file


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".xlsx"])
def test_every_kind_of_sheet_gives_the_same_table(folder: Path, suffix: str) -> None:
    file = _write_sheet(ROWS, folder / f"sheet{suffix}")
    for source in (file, folder):
        table = read(source)
        assert table.codes == ("1", "2", "10")
        assert table.rows["label"].tolist() == [2, 1, 0, 1, 2, 0]
        assert table.rows["split"].tolist() == ["train", "train", "valid", "train", "test", "valid"]
        assert table.rows["group"].tolist() == ROWS["patient"].tolist()
        assert all(Path(path).is_file() for path in table.rows["path"])
        assert "path=image_path, label=diagnosis, group=patient, split=set" in table.source


def test_columns_with_other_names_are_set_in_the_recipe(folder: Path) -> None:
    renamed = ROWS.set_axis(["Bild", "Befund", "Mensch", "Teil"], axis=1)
    file = _write_sheet(renamed, folder / "sheet.csv")
    with pytest.raises(ParfocalError, match=r"no column with a common name for images. Set columns\.path=…"):
        read(file, format="columns")
    columns = {"columns.path": "Bild", "columns.label": ["Befund"], "columns.group": "Mensch", "columns.split": "Teil"}
    table = read(file, None, **columns)
    assert table.rows["split"].tolist() == ["train", "train", "valid", "train", "test", "valid"]
    with pytest.raises(ParfocalError, match=r"no column 'Bilt' \(columns\.path\). Did you mean 'Bild'"):
        read(file, None, **{**columns, "columns.path": "Bilt"})


def test_labels_can_be_one_hot_columns(folder: Path) -> None:
    one_hot = ROWS[["image_path"]].assign(mild=[0, 1, 0, 1, 0, 0], severe=[1, 0, 0, 0, 1, 0], none=[0, 0, 1, 0, 0, 1])
    table = read(_write_sheet(one_hot, folder / "sheet.csv"))
    assert table.classes == ("mild", "none", "severe")
    assert table.rows["label"].tolist() == [2, 0, 1, 0, 2, 1]
    reordered = read(folder / "sheet.csv", label=["mild", "severe", "none"])
    assert reordered.rows["label"].tolist() == table.rows["label"].tolist()
    _write_sheet(one_hot.assign(severe=1), folder / "sheet.csv")
    with pytest.raises(ParfocalError, match="line 3: exactly one of mild, severe, none must be 1"):
        read(folder / "sheet.csv", label=["mild", "severe", "none"])


def test_class_names_are_in_the_order_of_the_codes(folder: Path) -> None:
    file = _write_sheet(ROWS, folder / "sheet.csv")
    assert read(file, classes=["no", "mild", "severe"]).classes == ("no", "mild", "severe")
    with pytest.raises(UsageError, match=r"classes names 2 classes \(no, mild\), but the data has 3 \(1, 2, 10\)"):
        read(file, classes=["no", "mild"])


def test_labels_can_be_names_and_empty_labels_are_unknown(folder: Path) -> None:
    rows = ROWS.assign(diagnosis=["blast", "normal", "", "blast", "normal", "blast"])
    table = read(_write_sheet(rows, folder / "sheet.csv"))
    assert table.classes == ("blast", "normal")
    assert table.rows["label"].tolist() == [0, 1, -1, 0, 1, 0]


def test_bare_names_are_found_below_the_folder(folder: Path) -> None:
    rows = ROWS.assign(image_path=list("abcdef"))
    table = read(_write_sheet(rows, folder / "sheet.csv"))
    assert table.rows["path"].iloc[0] == str(folder / "img" / "a.png")


def test_a_column_of_fold_numbers_gives_folds(folder: Path) -> None:
    rows = ROWS.drop(columns="set").assign(fold=[0, 1, 2, 0, 1, 2])
    table = read(_write_sheet(rows, folder / "sheet.csv"))
    assert table.rows["fold"].tolist() == ["fold_0", "fold_1", "fold_2", "fold_0", "fold_1", "fold_2"]
    assert table.splits == ("train",)


def test_an_unknown_split_is_an_error_with_its_line(folder: Path) -> None:
    file = _write_sheet(ROWS.replace({"set": {"val": "vaild"}}), folder / "sheet.csv")
    with pytest.raises(ParfocalError, match=r"line 4: the split in column 'set' is 'vaild'.*Did you mean 'valid'"):
        read(file)


def test_the_patient_can_be_extracted_from_the_id(folder: Path) -> None:
    names = [f"img/{name}.png" for name in ("p1_a", "p1_b", "p2_c", "x_d", "p2_e", "p2_f")]
    file = _write_sheet(ROWS.drop(columns="patient").assign(image_path=names), folder / "sheet.csv")
    table = read(file, group_from=r"img/(\w+)_")
    assert table.rows["group"].tolist() == ["p1", "p1", "p2", "x", "p2", "p2"]
    assert table.groups_are == "patients"
    with pytest.raises(ParfocalError, match=r"finds no group in 1 ids: img/x_d\.png"):
        read(file, group_from=r"img/(p\d)")
    with pytest.raises(UsageError, match="is not a regular expression"):
        read(file, group_from="(")


def test_a_file_that_is_not_a_sheet_is_an_error(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.xlsx"):
        (tmp_path / name).write_text("not a sheet")
        with pytest.raises(ParfocalError, match=f"{name} is not a readable"):
            read(tmp_path / name)


def test_a_folder_with_two_sheets_is_an_error(folder: Path) -> None:
    _write_sheet(ROWS, folder / "first.csv")
    _write_sheet(ROWS, folder / "second.csv")
    with pytest.raises(ParfocalError, match="does not contain exactly one sheet"):
        read(folder, format="columns")
    assert len(read(folder / "second.csv")) == 6


def _touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_class_folders_are_in_natural_order(tmp_path: Path) -> None:
    table = read(_touch(tmp_path, "10/a.png", "2/b.jpg", "1/c.bmp", "1/deep/d.png", "2/notes.txt"))
    assert table.classes == ("1", "2", "10")
    assert table.rows["id"].tolist() == ["1/c.bmp", "1/deep/d.png", "2/b.jpg", "10/a.png"]
    assert table.splits == ("train",)
    assert "recognized by a folder for each class: 1, 2, 10" in table.source


def test_split_folders_can_have_any_common_name(tmp_path: Path) -> None:
    table = read(_touch(tmp_path, "Train/cat/1.png", "Train/dog/2.png", "val/cat/3.png", "testing/dog/4.png"))
    assert dict(zip(table.rows["id"], table.rows["split"], strict=True)) == {
        "Train/cat/1.png": "train",
        "Train/dog/2.png": "train",
        "val/cat/3.png": "valid",
        "testing/dog/4.png": "test",
    }


def test_class_names_can_be_set_in_the_recipe(tmp_path: Path) -> None:
    table = read(_touch(tmp_path, "0/a.png", "1/b.png"), classes=["healthy", "ill"])
    assert table.classes == ("healthy", "ill")
    assert table.codes == ("0", "1")


def test_names_or_codes_of_the_data_set_the_order_of_its_classes(tmp_path: Path) -> None:
    folder = _touch(tmp_path, "blast/a.png", "normal/b.png")
    for names in (["normal", "blast"], ["Normal", "Blast"]):
        table = read(folder, classes=names)
        assert table.classes == tuple(names)
        assert table.codes == ("normal", "blast")
        assert dict(zip(table.rows["id"], table.rows["label"], strict=True)) == {"blast/a.png": 1, "normal/b.png": 0}
    assert read(folder, classes=["blast", "normal"]).rows["label"].tolist() == [0, 1]
    with pytest.raises(UsageError, match=r"classes=normal,leukemia mixes new names with normal of the data\."):
        read(folder, classes=["normal", "leukemia"])


def test_a_single_folder_of_images_is_not_a_data_set(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match="contains no labels in a known layout"):
        read(_touch(tmp_path, "images/a.png", "images/b.png"))


def test_empty_folders_beside_the_class_folders_are_named(tmp_path: Path) -> None:
    for name in ("train/blast/1.png", "train/normal/2.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "train" / "doubtful").mkdir()
    (finding,) = [finding for finding in read(tmp_path).findings if finding.code == "empty_folders"]
    assert "train/doubtful" in finding.message


def test_sheets_of_other_splits_beside_a_sheet_are_named(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / f"{split}.csv").write_text("Path,label\na.png,cat\nb.png,dog\n")
    (finding,) = [finding for finding in read(tmp_path / "train.csv").findings if finding.code == "unread_sheets"]
    assert "Only train.csv is read" in finding.message
    assert "val.csv" in finding.message
