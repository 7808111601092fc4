"""Submissions answer the file that was asked, in its order."""

from pathlib import Path

import pandas as pd
import pytest

from parfocal.data.layouts import read
from parfocal.data.table import Table
from parfocal.errors import ParfocalError
from parfocal.evaluation.submission import SampleSubmission, write_submission


def _answers(table: Table) -> dict[str, int]:
    return {one: number % 3 // 2 for number, one in enumerate(table.get_rows("test")["id"])}


@pytest.mark.parametrize("order", [1, -1])
def test_rows_are_in_the_order_of_the_networks_own_file(cells: Path, tmp_path: Path, order: int) -> None:
    wanted = pd.read_csv(cells / "resnet_50_test.csv")["Path"][::order]
    wanted.to_frame().to_csv(cells / "resnet_50_test.csv", index=False)
    table = read(cells)
    write_submission(tmp_path / "submission.csv", table, _answers(table), "resnet50")
    written = pd.read_csv(tmp_path / "submission.csv")
    assert list(written.columns) == ["ID", "label"]
    assert written["ID"].tolist() == wanted.tolist()
    assert written["label"].tolist() == [_answers(table)[one] for one in wanted]
    assert set(written["label"]) == {0, 1}


def test_a_network_without_a_file_of_its_own_answers_the_whole_split(cells: Path, tmp_path: Path) -> None:
    table = read(cells)
    write_submission(tmp_path / "submission.csv", table, _answers(table), "resnet34")
    assert pd.read_csv(tmp_path / "submission.csv")["ID"].tolist() == list(_answers(table))


def test_an_id_without_prediction_is_an_error_and_no_file(cells: Path, tmp_path: Path) -> None:
    table = read(cells)
    fewer = table.drop_ids({"./new_dataset/test/3.bmp"})
    with pytest.raises(ParfocalError, match=r"1 ids that are asked for have no prediction: \./new_dataset/test/3\.bmp"):
        write_submission(tmp_path / "submission.csv", table, _answers(fewer), "resnet18")
    assert not (tmp_path / "submission.csv").exists()


@pytest.mark.parametrize(
    ("asked", "path"),
    [("10_left", "eyes/10_left.jpeg"), ("10_left.jpeg", "/far/10_left.jpeg"), ("./test/3.bmp", "cells/test/3.bmp")],
)
def test_an_id_is_the_end_of_a_path(asked: str, path: str) -> None:
    others = {"eyes/10_right.jpeg": "0", "cells/train/3.bmp": "0"}
    assert SampleSubmission(("ID", "label"), (asked,)).match_files({**others, path: "1"})[asked] == "1"


def test_an_id_that_two_files_end_with_is_told_with_both() -> None:
    answers = {"cells/train/3.bmp": "0", "cells/test/3.bmp": "1"}
    assert SampleSubmission(("ID", "label"), ("train/3.bmp",)).match_files(answers)["train/3.bmp"] == "0"
    assert SampleSubmission(("ID", "label"), ("3",)).match_files({**answers, "3": "1"})["3"] == "1"
    said = r"3\.bmp is asked for, and 2 images are called so: cells/test/3\.bmp, cells/train/3\.bmp\. Name only"
    with pytest.raises(ParfocalError, match=said):
        SampleSubmission(("ID", "label"), ("3.bmp", "train/3.bmp")).match_files(answers)


def test_samples_that_are_none_are_told(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("ID\na\n")
    with pytest.raises(ParfocalError, match="has one column; a sample submission has two, such as ID,label"):
        SampleSubmission.read(tmp_path / "one.csv")
    (tmp_path / "twice.csv").write_text("ID,label\na,0\nb,0\na,1\n")
    with pytest.raises(ParfocalError, match="asks more than once for a"):
        SampleSubmission.read(tmp_path / "twice.csv")
