"""A validation split carved from train takes whole patients."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data.split import with_validation
from parfocal.data.table import Table, assemble
from parfocal.errors import ParfocalError


def _table(patients: int, images: int, seed: int = 0) -> Table:
    dice = np.random.default_rng(seed)
    groups = [str(number // images) for number in range(patients * images)]
    names = [f"{number}" for number in range(len(groups))]
    rows = assemble(
        names, [Path(one) for one in names], dice.integers(0, 2, len(groups)), ["train"] * len(groups), groups
    )
    return Table(rows, ("a", "b"), ("0", "1"), "drawn")


@given(
    patients=st.integers(12, 60),
    images=st.integers(1, 4),
    seed=st.integers(0, 9),
    share=st.sampled_from([0.1, 0.2, 0.3]),
)
def test_no_patient_is_on_both_sides_and_no_row_is_lost(patients: int, images: int, seed: int, share: float) -> None:
    before = _table(patients, images)
    after = with_validation(before, share, seed)
    assert after.rows["id"].tolist() == before.rows["id"].tolist()
    assert after.rows.groupby("group")["split"].nunique().max() == 1
    assert abs(len(after.positions("valid")) / len(after) - share) < 0.2
    assert after.rows.equals(with_validation(before, share, seed).rows)


def test_a_split_the_data_brings_is_kept() -> None:
    table = with_validation(_table(20, 2), 0.2, seed=0)
    assert with_validation(table, 0.5, seed=1) is table
    assert "by group, are valid" in table.source


def test_too_few_patients_to_carve_from_are_an_error() -> None:
    with pytest.raises(ParfocalError, match=r"only 2 groups \(patients\)"):
        with_validation(_table(2, 10), 0.2, seed=0)
