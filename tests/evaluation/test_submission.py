"""Submissions answer the file that was asked, in its order."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parfocal.data.readers import read
from parfocal.data.table import Table
from parfocal.errors import ParfocalError
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.submission import write_submission


def _predictions(table: Table) -> Predictions:
    count = len(table.positions("test"))
    blast = np.linspace(0, 1, count)
    return Predictions.of(table, "test", np.stack([1 - blast, blast], axis=1))


@pytest.mark.parametrize("order", [1, -1])
def test_rows_are_in_the_order_of_the_networks_own_file(cells: Path, tmp_path: Path, order: int) -> None:
    wanted = pd.read_csv(cells / "resnet_50_test.csv")["Path"][::order]
    wanted.to_frame().to_csv(cells / "resnet_50_test.csv", index=False)
    table = read(cells)
    write_submission(tmp_path / "submission.csv", table, _predictions(table), "resnet50")
    written = pd.read_csv(tmp_path / "submission.csv")
    assert list(written.columns) == ["ID", "label"]
    assert written["ID"].tolist() == wanted.tolist()
    answers = dict(zip(_predictions(table).ids, _predictions(table).predicted, strict=True))
    assert written["label"].tolist() == [answers[one] for one in wanted]
    assert set(written["label"]) == {0, 1}


def test_a_network_without_a_file_of_its_own_answers_the_whole_split(cells: Path, tmp_path: Path) -> None:
    table = read(cells)
    write_submission(tmp_path / "submission.csv", table, _predictions(table), "resnet34")
    assert pd.read_csv(tmp_path / "submission.csv")["ID"].tolist() == list(_predictions(table).ids)


def test_an_id_without_prediction_is_an_error_and_no_file(cells: Path, tmp_path: Path) -> None:
    table = read(cells)
    fewer = table.without({"./new_dataset/test/3.bmp"})
    with pytest.raises(ParfocalError, match=r"1 ids of the test file have no prediction: \./new_dataset/test/3\.bmp"):
        write_submission(tmp_path / "submission.csv", table, _predictions(fewer), "resnet18")
    assert not (tmp_path / "submission.csv").exists()
