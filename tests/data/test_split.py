"""Splits: whole patients, the class mix kept, the same for the same seed, or those of an earlier run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data.split import with_splits
from parfocal.data.table import Table, assemble
from parfocal.errors import ParfocalError, UsageError
from parfocal.parts import SplitPart


def _table(patients: int, images: int, splits: tuple[str, ...] = ("train",), folds: int = 0) -> Table:
    count = patients * images
    groups = [str(number // images) for number in range(count)]
    names = [str(number) for number in range(count)]
    sides = [splits[(number // images) % len(splits)] for number in range(count)]
    numbers = [f"fold_{(number // images) % folds}" if folds else "" for number in range(count)]
    labels = np.random.default_rng(0).integers(0, 2, count)
    rows = assemble(names, [Path(one) for one in names], labels, sides, groups, numbers)
    return Table(rows, ("a", "b"), ("0", "1"), "drawn")


@given(
    patients=st.integers(21, 80),
    images=st.integers(1, 4),
    seed=st.integers(0, 9),
    valid=st.sampled_from([0.1, 0.15, 0.3]),
    test=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_no_patient_is_on_both_sides_and_no_row_is_lost(
    patients: int, images: int, seed: int, valid: float, test: float
) -> None:
    before, part = _table(patients, images), SplitPart(valid=valid, test=test)
    after = with_splits(before, part, seed)
    assert after.rows["id"].tolist() == before.rows["id"].tolist()
    assert after.rows.groupby("group")["split"].nunique().max() == 1
    assert len(after.positions("valid")) / len(after) == pytest.approx(valid, abs=0.05)
    assert len(after.positions("test")) / len(after) == pytest.approx(test, abs=0.05)
    assert after.rows.equals(with_splits(before, part, seed).rows)


def test_the_class_mix_is_kept() -> None:
    after = with_splits(_table(200, 2), SplitPart(valid=0.2, test=0.2), seed=0)
    shares = [after.labels(split).mean() for split in ("train", "valid", "test")]
    assert max(shares) - min(shares) < 0.06


def test_splits_the_data_brings_are_kept_unless_set_aside() -> None:
    table = _table(40, 2, ("train", "train", "train", "valid", "test"))
    assert with_splits(table, SplitPart(valid=0.5, test=0.3), seed=1) is table
    anew = with_splits(table, SplitPart(keep=False, valid=0.25), seed=1)
    assert anew.splits == ("train", "valid")
    assert len(anew.positions("valid")) == pytest.approx(20, abs=3)
    assert "its own splits set aside" in anew.source


@given(folds=st.integers(2, 6), seed=st.integers(0, 5))
def test_folds_divide_the_patients_and_each_validates_once(folds: int, seed: int) -> None:
    table = _table(30, 2, ("train", "train", "valid", "test"))
    tables = [with_splits(table, SplitPart(folds=folds, fold=fold), seed) for fold in range(folds)]
    valid = np.concatenate([one.positions("valid") for one in tables])
    assert sorted(valid) == sorted(np.flatnonzero(table.rows["split"] != "test"))
    for one in tables:
        assert one.rows.groupby("group")["split"].nunique().max() == 1
        assert one.rows["fold"].equals(tables[0].rows["fold"])
        assert (one.rows["split"] == "test").equals(table.rows["split"] == "test")


def test_the_datas_own_folds_are_taken() -> None:
    table = _table(30, 2, folds=3)
    after = with_splits(table, SplitPart(fold=2), seed=0)
    assert set(after.rows.loc[after.positions("valid"), "fold"]) == {"fold_2"}
    with pytest.raises(UsageError, match="fold=3, but the data has 3 folds"):
        with_splits(table, SplitPart(fold=3), seed=0)


def test_the_splits_of_an_earlier_run_are_taken_again(tmp_path: Path) -> None:
    table = _table(30, 2)
    before = with_splits(table, SplitPart(valid=0.3), seed=5)
    before.save(tmp_path / "table.csv")
    after = with_splits(table, SplitPart(file=str(tmp_path / "table.csv")), seed=0)
    assert after.rows["split"].equals(before.rows["split"])
    pd.read_csv(tmp_path / "table.csv").iloc[1:].to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(ParfocalError, match="has no split for 1 images of drawn: 0"):
        with_splits(table, SplitPart(file=str(tmp_path / "table.csv")), seed=0)
    with pytest.raises(UsageError, match=r"is not the table\.csv of a run"):
        with_splits(table, SplitPart(file=str(tmp_path / "nowhere.csv")), seed=0)


def test_too_few_patients_are_an_error_that_says_how_many() -> None:
    with pytest.raises(ParfocalError, match=r"only 1 groups \(patients\)"):
        with_splits(_table(1, 10), SplitPart(), seed=0)
    with pytest.raises(ParfocalError, match=r"has 3 groups \(patients\), too few for folds=5"):
        with_splits(_table(3, 10), SplitPart(folds=5), seed=0)
