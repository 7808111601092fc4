"""Predictions are kept as CSV and come back as they went."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.errors import ParfocalError
from parfocal.evaluation.predictions import Predictions


def _some(truth: list[int], classes: tuple[str, ...] = ("normal", "blast, atypical")) -> Predictions:
    dice = np.random.default_rng(0)
    probabilities = dice.dirichlet(np.ones(len(classes)), len(truth))
    ids = tuple(f"{number:03}" for number in range(len(truth)))
    return Predictions(ids, tuple("p" + one for one in ids), np.array(truth), probabilities, classes)


@given(truth=st.lists(st.integers(-1, 1), min_size=1, max_size=20))
def test_saved_and_loaded_they_are_the_same(truth: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    before, path = _some(truth), tmp_path_factory.mktemp("predictions") / "test.csv"
    before.save(path)
    after = Predictions.load(path)
    assert (after.ids, after.groups, after.classes) == (before.ids, before.groups, before.classes)
    assert after.truth.tolist() == truth
    np.testing.assert_allclose(after.probabilities, before.probabilities, rtol=1e-8)
    assert after.labeled == (-1 not in truth)


def test_the_file_reads_well_elsewhere(tmp_path: Path) -> None:
    _some([0, 1]).save(tmp_path / "test.csv")
    rows = pd.read_csv(tmp_path / "test.csv", dtype={"id": str})
    columns = ["id", "group", "truth", "predicted", "probability:normal", "probability:blast, atypical"]
    assert list(rows.columns) == columns
    assert rows["truth"].tolist() == ["normal", "blast, atypical"]


def test_probabilities_that_are_no_numbers_are_refused_with_the_remedy() -> None:
    with pytest.raises(ParfocalError, match=r"no finite probability for b\. Train with a lower learning_rate"):
        Predictions(("a", "b"), ("a", "b"), np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 1]]), ("x", "y"))


def test_missing_and_foreign_files_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match=r"is missing\. Make it with `parfocal evaluate"):
        Predictions.load(tmp_path / "predictions" / "test.csv")
    (tmp_path / "test.csv").write_text("id,group,truth,predicted,probability:a\n1,1,b,a,1.0\n")
    with pytest.raises(ParfocalError, match=r"line 2: the value in column 'truth' is 'b'\. Valid are a, or nothing"):
        Predictions.load(tmp_path / "test.csv")


HEAD = "id,group,truth,predicted,probability:a,probability:b\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("x,y\n1,2\n", "it has no column id, group, truth, probability:CLASS for each class"),
        (HEAD.replace("id,", ""), "it has no column id"),
        (HEAD.replace("truth,", ""), "it has no column truth"),
        (HEAD + "i,g,a,a,.5,.5\nj,g,a,a,,.5\n", "line 3: the value in column 'probability:a' is ''. Valid are numbers"),
        (HEAD + "i,g,a,a,.5,x\n", "line 2: the value in column 'probability:b' is 'x'"),
        (HEAD + "i,g,a,a,nan,.5\n", "line 2: the value in column 'probability:a' is 'nan'"),
        (HEAD + "i,g,a,a,-3,.5\n", "line 2: the value in column 'probability:a' is '-3"),
        (HEAD + "i,g,a,a,.5,7\n", "line 2: the value in column 'probability:b' is '7"),
        (HEAD + "i,g,a,a,.5\n", "line 2: the value in column 'probability:b' is"),
        (HEAD + "i,g,a,a,.5,.5\ni,g,a,a,.5,.5,.5\n", "Expected 6 fields in line 3, saw 7"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_place(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "run" / "predictions" / "test.csv"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ParfocalError, match=re.escape(told)) as caught:
        Predictions.load(path)
    assert str(caught.value).startswith(str(path))
    assert f"anew with `parfocal evaluate {tmp_path / 'run'}`" in str(caught.value)
