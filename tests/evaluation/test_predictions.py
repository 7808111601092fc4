"""Predictions are saved as CSV and loaded unchanged, aligned by image, and joined over folds."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.errors import ParfocalError
from parfocal.evaluation.predictions import Predictions, align_predictions, describe_mismatch, index_groups, join_folds
from tests.evaluation.make_predictions import make_predictions


def _draw_predictions(truth: list[int]) -> Predictions:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(2), len(truth))
    ids = tuple(f"{number:03}" for number in range(len(truth)))
    groups = tuple("p" + image_id for image_id in ids)
    return Predictions(ids, groups, np.array(truth), probabilities, ("normal", "blast, atypical"))


@given(truth=st.lists(st.integers(-1, 1), min_size=1, max_size=20))
def test_saving_and_loading_changes_nothing(truth: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    saved = _draw_predictions(truth)
    path = tmp_path_factory.mktemp("predictions") / "test.csv"
    saved.save(path)
    loaded = Predictions.load(path)
    assert (loaded.ids, loaded.groups, loaded.classes) == (saved.ids, saved.groups, saved.classes)
    assert loaded.truth.tolist() == truth
    np.testing.assert_allclose(loaded.probabilities, saved.probabilities, rtol=1e-8)
    assert loaded.labeled == (-1 not in truth)


def test_other_programs_can_read_the_file(tmp_path: Path) -> None:
    _draw_predictions([0, 1]).save(tmp_path / "test.csv")
    rows = pd.read_csv(tmp_path / "test.csv", dtype={"id": str})
    columns = ["id", "group", "truth", "predicted", "probability:normal", "probability:blast, atypical"]
    assert list(rows.columns) == columns
    assert rows["truth"].tolist() == ["normal", "blast, atypical"]


def test_probabilities_that_are_not_finite_are_rejected_with_a_remedy() -> None:
    with pytest.raises(ParfocalError, match=r"probabilities of b are not finite\. Train with a lower learning_rate"):
        Predictions(("a", "b"), ("a", "b"), np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 1]]), ("x", "y"))


def test_errors_about_missing_files_and_unknown_classes_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match=r"is missing\. Create it with `parfocal evaluate"):
        Predictions.load(tmp_path / "predictions" / "test.csv")
    (tmp_path / "test.csv").write_text("id,group,truth,predicted,probability:a\n1,1,b,a,1.0\n")
    with pytest.raises(ParfocalError, match=r"line 2: the value in column 'truth' is 'b'\. Allowed: a, or empty"):
        Predictions.load(tmp_path / "test.csv")


HEADER = "id,group,truth,predicted,probability:a,probability:b\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("x,y\n1,2\n", "it has no column id, group, truth, predicted, probability:CLASS for each class"),
        (HEADER.replace("id,", ""), "it has no column id"),
        (HEADER.replace("truth,", ""), "it has no column truth"),
        (
            HEADER + "i,g,a,a,.5,.5\nj,g,a,a,,.5\n",
            "line 3: the value in column 'probability:a' is ''. Allowed: numbers",
        ),
        (HEADER + "i,g,a,a,.5,x\n", "line 2: the value in column 'probability:b' is 'x'"),
        (HEADER + "i,g,a,a,nan,.5\n", "line 2: the value in column 'probability:a' is 'nan'"),
        (HEADER + "i,g,a,a,-3,.5\n", "line 2: the value in column 'probability:a' is '-3"),
        (HEADER + "i,g,a,a,.5,7\n", "line 2: the value in column 'probability:b' is '7"),
        (HEADER + "i,g,a,a,.5\n", "line 2: the value in column 'probability:b' is"),
        (HEADER + "i,g,a,a,.5,.5\ni,g,a,a,.5,.5,.5\n", "Expected 6 fields in line 3, saw 7"),
    ],
)
def test_errors_in_a_file_are_reported_with_their_location_and_a_remedy(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "run" / "predictions" / "test.csv"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ParfocalError, match=re.escape(message)) as error:
        Predictions.load(path)
    assert str(error.value).startswith(str(path))
    assert f"ecreate it with `parfocal evaluate {tmp_path / 'run'}`" in str(error.value)


def test_groups_are_numbered_in_the_order_of_their_names() -> None:
    names, index = index_groups(["b", "a", "b"])
    assert (names.tolist(), index.tolist()) == (["a", "b"], [1, 0, 1])


def _make_predictions_of(ids: str, truth: list[int]) -> Predictions:
    """Return predictions of images with one-letter ids; the group of image `a` is `A`."""
    scores = np.linspace(0, 1, len(ids))
    predictions = make_predictions(truth, np.stack([scores, 1 - scores], axis=1))
    return replace(predictions, ids=tuple(ids), groups=tuple(ids.upper()))


def test_rows_are_aligned_with_a_reference_and_duplicated_rows_stay_distinct() -> None:
    predictions = _make_predictions_of("abab", [0, 1, 0, 1])
    reference = _make_predictions_of("baab", [1, 0, 0, 1])
    assert describe_mismatch(["predictions", "reference"], [predictions, reference]) == ""
    aligned = align_predictions(predictions, reference)
    assert (aligned.ids, aligned.truth.tolist()) == (reference.ids, [1, 0, 0, 1])
    np.testing.assert_array_equal(aligned.probabilities, predictions.probabilities[[1, 0, 2, 3]])


def test_a_row_that_only_one_run_has_twice_is_a_mismatch() -> None:
    predictions = [_make_predictions_of("aab", [0, 0, 1]), _make_predictions_of("ab", [0, 1])]
    message = describe_mismatch(["first", "second"], predictions)
    assert message == "first and second were evaluated on different images, such as a"


def test_runs_that_share_no_image_are_joined_and_others_stay_separate() -> None:
    folds = {"fold0": _make_predictions_of("ab", [0, 1]), "fold1": _make_predictions_of("cd", [1, 1])}
    ((name, joined),) = join_folds("cells", folds)
    assert (name, joined.ids, joined.groups) == ("cells", tuple("abcd"), tuple("ABCD"))
    assert joined.truth.tolist() == [0, 1, 1, 1]
    assert len(joined.probabilities) == 4
    seeds = {"seed0": folds["fold0"], "seed1": folds["fold0"]}
    assert [name for name, _ in join_folds("cells", seeds)] == ["seed0", "seed1"]
    # Two seeds of each fold are two whole cross-validations.
    seeds_and_folds = {f"{seed} {fold}": predictions for fold, predictions in folds.items() for seed in ("a", "b")}
    assert [(name, predictions.ids) for name, predictions in join_folds("cells", seeds_and_folds)] == [
        ("a fold0, a fold1", tuple("abcd")),
        ("b fold0, b fold1", tuple("abcd")),
    ]
