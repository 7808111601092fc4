"""Splits: by patient, stratified by class, the same for the same seed, or copied from an earlier run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data.split import split_table
from parfocal.data.table import Table, build_rows
from parfocal.errors import ParfocalError, UsageError
from parfocal.recipe_schema import SplitConfig


def _build_table(
    n_patients: int, images_per_patient: int, splits: tuple[str, ...] = ("train",), n_folds: int = 0
) -> Table:
    patients = [row // images_per_patient for row in range(n_patients * images_per_patient)]
    names = [str(row) for row in range(len(patients))]
    rows = build_rows(
        names,
        [Path(name) for name in names],
        np.random.default_rng(0).integers(0, 2, len(names)),
        [splits[patient % len(splits)] for patient in patients],
        [str(patient) for patient in patients],
        [f"fold_{patient % n_folds}" if n_folds else "" for patient in patients],
    )
    return Table(rows, ("a", "b"), ("0", "1"), "synthetic", groups_are="patients")


@given(
    patients=st.integers(21, 80),
    images=st.integers(1, 4),
    seed=st.integers(0, 9),
    valid=st.sampled_from([0.1, 0.15, 0.3]),
    test=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_no_patient_is_in_two_splits_and_no_row_is_lost(
    patients: int, images: int, seed: int, valid: float, test: float
) -> None:
    table = _build_table(patients, images)
    # The images of a patient are not next to each other.
    table = replace(table, rows=table.rows.sample(frac=1, random_state=seed).reset_index(drop=True))
    config = SplitConfig(valid=valid, test=test)
    split = split_table(table, config, seed)
    assert split.rows["id"].tolist() == table.rows["id"].tolist()
    assert split.rows.groupby("group")["split"].nunique().max() == 1
    assert len(split.get_positions("valid")) / len(split) == pytest.approx(valid, abs=0.05)
    assert len(split.get_positions("test")) / len(split) == pytest.approx(test, abs=0.05)
    assert split.rows.equals(split_table(table, config, seed).rows)


def test_splits_are_stratified_by_class() -> None:
    split = split_table(_build_table(200, 2), SplitConfig(valid=0.2, test=0.2), seed=0)
    fractions = [split.get_labels(name).mean() for name in ("train", "valid", "test")]
    assert max(fractions) - min(fractions) < 0.06


def test_splits_of_the_data_are_kept_unless_the_config_ignores_them() -> None:
    table = _build_table(40, 2, ("train", "train", "train", "valid", "test"))
    assert split_table(table, SplitConfig(valid=0.5, test=0.3), seed=1) is table
    split = split_table(table, SplitConfig(keep=False, valid=0.25), seed=1)
    assert split.splits == ("train", "valid")
    assert len(split.get_positions("valid")) == pytest.approx(20, abs=3)
    assert "its splits are ignored" in split.source


@given(folds=st.integers(2, 6), seed=st.integers(0, 5))
def test_folds_partition_the_patients_and_each_is_valid_once(folds: int, seed: int) -> None:
    table = _build_table(30, 2, ("train", "train", "valid", "test"))
    tables = [split_table(table, SplitConfig(folds=folds, fold=fold), seed) for fold in range(folds)]
    valid = np.concatenate([split.get_positions("valid") for split in tables])
    assert sorted(valid) == sorted(np.flatnonzero(table.rows["split"] != "test"))
    for split in tables:
        assert split.rows.groupby("group")["split"].nunique().max() == 1
        assert split.rows["fold"].equals(tables[0].rows["fold"])
        assert (split.rows["split"] == "test").equals(table.rows["split"] == "test")


def test_folds_of_the_data_are_used() -> None:
    table = _build_table(30, 2, n_folds=3)
    split = split_table(table, SplitConfig(fold=2), seed=0)
    assert set(split.rows.loc[split.get_positions("valid"), "fold"]) == {"fold_2"}
    with pytest.raises(UsageError, match="fold=3, but the data has 3 folds"):
        split_table(table, SplitConfig(fold=3), seed=0)


def test_splits_of_an_earlier_run_are_copied(tmp_path: Path) -> None:
    table = _build_table(30, 2)
    earlier = split_table(table, SplitConfig(valid=0.3), seed=5)
    file = tmp_path / "table.csv"
    earlier.save(file)
    copied = split_table(table, SplitConfig(file=str(file)), seed=0)
    assert copied.rows["split"].equals(earlier.rows["split"])
    pd.read_csv(file).iloc[1:].to_csv(file, index=False)
    with pytest.raises(ParfocalError, match="has no split for 1 images of synthetic: 0"):
        split_table(table, SplitConfig(file=str(file)), seed=0)
    with pytest.raises(UsageError, match=r"is not the table\.csv of a run"):
        split_table(table, SplitConfig(file=str(tmp_path / "nowhere.csv")), seed=0)


def test_too_few_patients_are_an_error_with_their_number() -> None:
    with pytest.raises(ParfocalError, match=r"only 1 patient in train"):
        split_table(_build_table(1, 10), SplitConfig(), seed=0)
    with pytest.raises(ParfocalError, match=r"has 3 patients, too few for folds=5"):
        split_table(_build_table(3, 10), SplitConfig(folds=5), seed=0)
