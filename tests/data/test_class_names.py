"""Class names that differ between splits or in case, and grades without a 0, are errors that list them by split."""

from pathlib import Path

import pytest

from parfocal.data.checks import check_table
from parfocal.data.findings import Finding
from parfocal.data.labels import parse_labels
from parfocal.data.table import Table, build_rows


def _check(**labels: list[str]) -> dict[str, Finding]:
    """Return the errors of a table with these labels in each split, by code."""
    texts = [text for split_texts in labels.values() for text in split_texts]
    splits = [split for split, split_texts in labels.items() for _ in split_texts]
    indices, codes = parse_labels(texts, str)
    return _check_codes(indices, splits, codes)


def _check_codes(labels: list[int], splits: list[str], codes: tuple[str, ...]) -> dict[str, Finding]:
    ids = [str(number) for number in range(len(labels))]
    table = Table(build_rows(ids, list(map(Path, ids)), labels, splits, ids), codes, codes, "a sheet")
    return {finding.code: finding for finding in check_table(table) if finding.severity == "error"}


def test_codes_mixed_with_names_are_an_error_that_lists_them_by_split() -> None:
    errors = _check(train=["normal", "blast"], valid=["0", "1"])
    assert "numbers mixed with words: train: blast, normal; valid: 0, 1." in errors["mixed_class_names"].message
    assert "unseen_classes" not in errors


def test_names_that_differ_only_in_case_are_an_error() -> None:
    errors = _check(train=["normal", "blast"], valid=["Normal", "blast"])
    assert "differ only in upper and lower case" in errors["mixed_class_names"].message


def test_a_class_that_train_lacks_is_an_error() -> None:
    error = _check(train=["a", "b"], valid=["a", "c"], test=["b"])["unseen_classes"]
    assert error.message.startswith("The train split has no image of c, but valid has.")
    assert error.message.endswith("The classes are train: a, b; valid: a, c; test: b.")
    assert error.ids == ("3",)


def test_a_class_that_only_train_has_is_no_error() -> None:
    assert not {"unseen_classes", "mixed_class_names"} & set(_check(train=["a", "b"], valid=["a"]))


@pytest.mark.parametrize(("labels", "is_error"), [([1, 2, 3, 4], True), ([0, 2, 3, 4], False)])
def test_grades_without_a_0_may_be_counted_from_1(labels: list[int], is_error: bool) -> None:
    errors = _check_codes(labels * 2, ["train"] * 4 + ["valid"] * 4, tuple("01234"))
    assert ("no_grade_0" in errors) == is_error
