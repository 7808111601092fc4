"""Splits: whole patients, the class mix kept, the same for the same seed, or those of an earlier run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data.split import split_table
from parfocal.data.table import Table, build_rows
from parfocal.errors import ParfocalError, UsageError
from parfocal.schema import SplitConfig


def _build_table(
    n_patients: int, images_per_patient: int, splits: tuple[str, ...] = ("train",), n_folds: int = 0
) -> Table:
    count = n_patients * images_per_patient
    groups = [str(number // images_per_patient) for number in range(count)]
    names = [str(number) for number in range(count)]
    sides = [splits[(number // images_per_patient) % len(splits)] for number in range(count)]
    numbers = [f"fold_{(number // images_per_patient) % n_folds}" if n_folds else "" for number in range(count)]
    labels = np.random.default_rng(0).integers(0, 2, count)
    rows = build_rows(names, [Path(one) for one in names], labels, sides, groups, numbers)
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
    before, part = _build_table(patients, images), SplitConfig(valid=valid, test=test)
    after = split_table(before, part, seed)
    assert after.rows["id"].tolist() == before.rows["id"].tolist()
    assert after.rows.groupby("group")["split"].nunique().max() == 1
    assert len(after.get_positions("valid")) / len(after) == pytest.approx(valid, abs=0.05)
    assert len(after.get_positions("test")) / len(after) == pytest.approx(test, abs=0.05)
    assert after.rows.equals(split_table(before, part, seed).rows)


def test_the_class_mix_is_kept() -> None:
    after = split_table(_build_table(200, 2), SplitConfig(valid=0.2, test=0.2), seed=0)
    shares = [after.get_labels(split).mean() for split in ("train", "valid", "test")]
    assert max(shares) - min(shares) < 0.06


def test_splits_the_data_brings_are_kept_unless_set_aside() -> None:
    table = _build_table(40, 2, ("train", "train", "train", "valid", "test"))
    assert split_table(table, SplitConfig(valid=0.5, test=0.3), seed=1) is table
    anew = split_table(table, SplitConfig(keep=False, valid=0.25), seed=1)
    assert anew.splits == ("train", "valid")
    assert len(anew.get_positions("valid")) == pytest.approx(20, abs=3)
    assert "its own splits set aside" in anew.source


@given(folds=st.integers(2, 6), seed=st.integers(0, 5))
def test_folds_divide_the_patients_and_each_validates_once(folds: int, seed: int) -> None:
    table = _build_table(30, 2, ("train", "train", "valid", "test"))
    tables = [split_table(table, SplitConfig(folds=folds, fold=fold), seed) for fold in range(folds)]
    valid = np.concatenate([one.get_positions("valid") for one in tables])
    assert sorted(valid) == sorted(np.flatnonzero(table.rows["split"] != "test"))
    for one in tables:
        assert one.rows.groupby("group")["split"].nunique().max() == 1
        assert one.rows["fold"].equals(tables[0].rows["fold"])
        assert (one.rows["split"] == "test").equals(table.rows["split"] == "test")


def test_the_datas_own_folds_are_taken() -> None:
    table = _build_table(30, 2, n_folds=3)
    after = split_table(table, SplitConfig(fold=2), seed=0)
    assert set(after.rows.loc[after.get_positions("valid"), "fold"]) == {"fold_2"}
    with pytest.raises(UsageError, match="fold=3, but the data has 3 folds"):
        split_table(table, SplitConfig(fold=3), seed=0)


def test_the_splits_of_an_earlier_run_are_taken_again(tmp_path: Path) -> None:
    table = _build_table(30, 2)
    before = split_table(table, SplitConfig(valid=0.3), seed=5)
    before.save(tmp_path / "table.csv")
    after = split_table(table, SplitConfig(file=str(tmp_path / "table.csv")), seed=0)
    assert after.rows["split"].equals(before.rows["split"])
    pd.read_csv(tmp_path / "table.csv").iloc[1:].to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(ParfocalError, match="has no split for 1 images of drawn: 0"):
        split_table(table, SplitConfig(file=str(tmp_path / "table.csv")), seed=0)
    with pytest.raises(UsageError, match=r"is not the table\.csv of a run"):
        split_table(table, SplitConfig(file=str(tmp_path / "nowhere.csv")), seed=0)


def test_too_few_patients_are_an_error_that_says_how_many() -> None:
    with pytest.raises(ParfocalError, match=r"only 1 groups \(patients\)"):
        split_table(_build_table(1, 10), SplitConfig(), seed=0)
    with pytest.raises(ParfocalError, match=r"has 3 groups \(patients\), too few for folds=5"):
        split_table(_build_table(3, 10), SplitConfig(folds=5), seed=0)
