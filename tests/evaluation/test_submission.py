"""A submission has the ids of the test list or of the sample submission, in their order."""

from pathlib import Path

import pandas as pd
import pytest

from parfocal.data.layouts import read
from parfocal.data.table import Table
from parfocal.errors import ParfocalError
from parfocal.evaluation.submission import SampleSubmission, write_submission


def _predict_test(table: Table) -> dict[str, int]:
    return {name: number % 3 // 2 for number, name in enumerate(table.get_rows("test")["id"])}


@pytest.mark.parametrize("order", [1, -1])
def test_rows_are_in_the_order_of_the_list_for_the_network(cells: Path, tmp_path: Path, order: int) -> None:
    ids = pd.read_csv(cells / "resnet_50_test.csv")["Path"][::order]
    ids.to_frame().to_csv(cells / "resnet_50_test.csv", index=False)
    table = read(cells)
    write_submission(tmp_path / "submission.csv", table, _predict_test(table), "resnet50")
    rows = pd.read_csv(tmp_path / "submission.csv")
    assert list(rows.columns) == ["ID", "label"]
    assert rows["ID"].tolist() == ids.tolist()
    assert rows["label"].tolist() == [_predict_test(table)[name] for name in ids]
    assert set(rows["label"]) == {0, 1}


def test_a_network_without_a_list_gets_the_whole_split(cells: Path, tmp_path: Path) -> None:
    table = read(cells)
    write_submission(tmp_path / "submission.csv", table, _predict_test(table), "resnet34")
    assert pd.read_csv(tmp_path / "submission.csv")["ID"].tolist() == list(_predict_test(table))


def test_an_id_without_a_prediction_is_an_error_and_no_file_is_written(cells: Path, tmp_path: Path) -> None:
    table = read(cells)
    fewer = table.drop_ids({"./new_dataset/test/3.bmp"})
    with pytest.raises(ParfocalError, match=r"1 ids of the submission have no prediction: \./new_dataset/test/3\.bmp"):
        write_submission(tmp_path / "submission.csv", table, _predict_test(fewer), "resnet18")
    assert not (tmp_path / "submission.csv").exists()


@pytest.mark.parametrize(
    ("name", "path"),
    [("10_left", "eyes/10_left.jpeg"), ("10_left.jpeg", "/far/10_left.jpeg"), ("./test/3.bmp", "cells/test/3.bmp")],
)
def test_an_id_matches_the_end_of_a_path(name: str, path: str) -> None:
    others = {"eyes/10_right.jpeg": "0", "cells/train/3.bmp": "0"}
    assert SampleSubmission(("ID", "label"), (name,)).match_files({**others, path: "1"})[name] == "1"


def test_an_id_that_matches_two_files_is_an_error_with_both() -> None:
    predicted = {"cells/train/3.bmp": "0", "cells/test/3.bmp": "1"}
    assert SampleSubmission(("ID", "label"), ("train/3.bmp",)).match_files(predicted)["train/3.bmp"] == "0"
    assert SampleSubmission(("ID", "label"), ("3",)).match_files({**predicted, "3": "1"})["3"] == "1"
    message = r"The id 3\.bmp matches 2 images: cells/test/3\.bmp, cells/train/3\.bmp\. Predict only"
    with pytest.raises(ParfocalError, match=message):
        SampleSubmission(("ID", "label"), ("3.bmp", "train/3.bmp")).match_files(predicted)


def test_an_invalid_sample_submission_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "narrow.csv").write_text("ID\na\n")
    with pytest.raises(ParfocalError, match=r"has one column\. A sample submission has two, such as ID,label"):
        SampleSubmission.read(tmp_path / "narrow.csv")
    (tmp_path / "twice.csv").write_text("ID,label\na,0\nb,0\na,1\n")
    with pytest.raises(ParfocalError, match="contains the id a more than once"):
        SampleSubmission.read(tmp_path / "twice.csv")
