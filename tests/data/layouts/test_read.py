"""Label files in, one table out; every fault is told with its file, line and value."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from parfocal.data.layouts import read
from parfocal.data.table import UNKNOWN, Table
from parfocal.errors import ParfocalError, UsageError
from parfocal.run import Run


def _write_fundus_lab(folder: Path, names: list[str], grades: list[object], split: str = "train") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{split}_img.csv").write_text("".join(f"{name}\n" for name in names))
    (folder / f"{split}_label.csv").write_text("".join(f"{grade}\n" for grade in grades))
    return folder


def test_the_leukemia_labs_files_become_a_table(cells: Path) -> None:
    table = read(cells)
    assert table.classes == ("normal", "blast")
    assert {split: len(table.get_positions(split)) for split in table.splits} == {"train": 48, "valid": 16, "test": 12}
    assert table.count_classes("train") == {"normal": 24, "blast": 24}
    assert table.submission_lists["resnet_18_test"] == tuple(f"./new_dataset/test/{number}.bmp" for number in range(12))
    assert table.source.startswith("leukemia-lab at ")
    assert table.rows["group"].iloc[0] == "train-0-0"
    assert Path(table.rows["path"].iloc[0]).is_file()


def test_without_a_truth_file_the_test_split_is_unlabelled(cells: Path) -> None:
    (cells / "test_truth.csv").unlink()
    table = read(cells)
    assert not table.is_labeled("test")
    assert set(table.get_labels("test")) == {UNKNOWN}


def test_lists_keep_their_own_order(cells: Path) -> None:
    wanted = pd.read_csv(cells / "resnet_50_test.csv")["Path"][::-1]
    wanted.to_frame().to_csv(cells / "resnet_50_test.csv", index=False)
    table = read(cells)
    assert table.submission_lists["resnet_50_test"] == tuple(wanted)
    assert table.submission_lists["resnet_18_test"] == tuple(wanted[::-1])


def test_the_fundus_labs_files_become_a_table(tmp_path: Path) -> None:
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


def test_labels_may_be_names_or_floats(cells: Path) -> None:
    rows = pd.read_csv(cells / "valid.csv", dtype=str)
    rows.loc[0, "label"], rows.loc[1, "label"] = "Normal", "1.0"
    rows.to_csv(cells / "valid.csv", index=False)
    assert read(cells).get_labels("valid")[:2].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\na.bmp,1\n", r"train\.csv has no column 'Path'; it has 'path', 'label'. Did you mean 'path'"),
        ("Path,label\na.bmp,1\nb.bmp,maybe\n", r"train\.csv, line 3: the label is 'maybe'. Valid are 0 \(normal\), 1"),
        ("Path,label\na.bmp,\n", r"line 2: the label is empty"),
        ("Path,label\n", r"train\.csv has no rows below its header"),
        ("", r"train\.csv is empty"),
        ('Path,label\n"a.bmp,1\n', r"train\.csv is not a readable CSV file"),
    ],
)
def test_a_faulty_label_file_is_told_with_its_place(
    draw: Callable[..., Path], tmp_path: Path, text: str, said: str
) -> None:
    folder = draw(tmp_path / "cells", train=4, valid=4, test=4)
    (folder / "train.csv").write_text(text)
    with pytest.raises(ParfocalError, match=said):
        read(folder)


def test_pairs_of_files_must_have_equal_length(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match=r"train_img\.csv has 2 rows, train_label\.csv has 1"):
        read(_write_fundus_lab(tmp_path / "eyes", ["10_left", "10_right"], [0]))


def test_a_second_column_is_refused_where_one_is_the_layout(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match=r"train_img\.csv has 2 columns"):
        read(_write_fundus_lab(tmp_path / "eyes", ["10_left,1"], [0]))


def test_a_missing_partner_is_named(tmp_path: Path) -> None:
    folder = _write_fundus_lab(tmp_path / "eyes", ["10_left"], [0])
    (folder / "train_label.csv").unlink()
    with pytest.raises(ParfocalError, match=r"train_label\.csv is missing"):
        read(folder)


def test_a_truth_file_with_a_gap_is_refused(cells: Path) -> None:
    pd.read_csv(cells / "test_truth.csv").iloc[:-1].to_csv(cells / "test_truth.csv", index=False)
    with pytest.raises(ParfocalError, match=r"test_truth\.csv has no row for \./new_dataset/test/11\.bmp"):
        read(cells)


def test_unknown_places_and_formats_say_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match="is not there"):
        read(tmp_path / "nowhere")
    with pytest.raises(ParfocalError, match="Known layouts: fundus-lab"):
        read(tmp_path)
    with pytest.raises(UsageError, match="Did you mean 'fundus-lab'"):
        read(tmp_path, format="fundus_lab")


def test_a_table_is_read_back_from_a_run_as_it_was(cells: Path, tmp_path: Path) -> None:
    table = read(cells)
    run = Run(tmp_path / "run")
    table.save(run.table_path)
    run.write_environment(
        {"data": {"classes": list(table.classes), "codes": list(table.codes), "source": table.source}}
    )
    again = Table.load(run)
    pd.testing.assert_frame_equal(again.rows, table.rows, check_dtype=False)
    assert (again.classes, again.codes, again.submission_lists) == (table.classes, table.codes, table.submission_lists)
