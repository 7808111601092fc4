"""Predictions are kept as CSV and come back as they went."""
# MERGED: """Predictions of the same images are found to be so, whatever their order; those of folds are joined."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.errors import ParfocalError
from parfocal.evaluation.predictions import Predictions, align_predictions, describe_mismatch, join_folds
from tests.evaluation.make_predictions import make_predictions


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


def _said(ids: str, truth: list[int]) -> Predictions:
    scores = np.linspace(0, 1, len(ids))
    said = make_predictions(truth, np.stack([scores, 1 - scores], axis=1))
    return replace(said, ids=tuple(ids), groups=tuple(ids.upper()))


def test_rows_are_brought_into_the_order_of_others_doubled_ones_one_by_one() -> None:
    one, like = _said("abab", [0, 1, 0, 1]), _said("baab", [1, 0, 0, 1])
    assert describe_mismatch(["one", "like"], [one, like]) == ""
    brought = align_predictions(one, like)
    assert (brought.ids, brought.truth.tolist()) == (like.ids, [1, 0, 0, 1])
    np.testing.assert_array_equal(brought.probabilities, one.probabilities[[1, 0, 2, 3]])


def test_a_row_that_is_doubled_in_one_alone_is_told() -> None:
    told = describe_mismatch(["one", "other"], [_said("aab", [0, 0, 1]), _said("ab", [0, 1])])
    assert told == "one and other were judged on different images, such as a"


def test_runs_that_share_no_image_are_joined_and_others_stay_apart() -> None:
    folds = {"fold0": _said("ab", [0, 1]), "fold1": _said("cd", [1, 1])}
    ((name, said),) = join_folds("cells", folds)
    assert (name, said.ids, said.groups, said.truth.tolist()) == ("cells", tuple("abcd"), tuple("ABCD"), [0, 1, 1, 1])
    assert len(said.probabilities) == 4
    seeds = {"seed0": folds["fold0"], "seed1": folds["fold0"]}
    assert [name for name, _ in join_folds("cells", seeds)] == ["seed0", "seed1"]
    # Two seeds of each fold are two whole cross-validations.
    several = {f"{seed} {fold}": one for fold, one in folds.items() for seed in ("a", "b")}
    assert [(name, one.ids) for name, one in join_folds("cells", several)] == [
        ("a fold0, a fold1", tuple("abcd")),
        ("b fold0, b fold1", tuple("abcd")),
    ]
