"""A test split is carved from the training split with groups together, and is the same each time."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.carving import carve_test, write_carved_labels
from parfocal.errors import ParfocalError


def _build_rows() -> pd.DataFrame:
    """Return 300 rows: grade 0 three times as often as grade 1, in pairs; a sixth of them is validation."""
    numbers = np.arange(300)
    return pd.DataFrame(
        {
            "path": [f"{number}.png" for number in numbers],
            "label": np.where(numbers // 2 % 4 == 0, "1", "0"),
            "split": np.where(numbers < 50, "valid", "train"),
            "group": numbers // 2,
        }
    )


def test_groups_stay_together_and_validation_stays_as_it_is() -> None:
    rows = _build_rows()
    carved = carve_test(rows)
    assert (carved.groupby("group")["split"].nunique() == 1).all()
    assert ((carved["split"] == "valid") == (rows["split"] == "valid")).all()


def test_the_test_split_is_stratified_and_deterministic() -> None:
    rows = _build_rows()
    carved = carve_test(rows)
    share_of_1 = {split: (carved.loc[carved["split"] == split, "label"] == "1").mean() for split in ("train", "test")}
    assert share_of_1["test"] == pytest.approx(share_of_1["train"], abs=0.05)
    assert (carved["split"] == "test").sum() == pytest.approx(50, abs=4)
    shuffled = carve_test(rows.sample(frac=1, random_state=3)).set_index("path")["split"]
    assert shuffled.sort_index().equals(carved.set_index("path")["split"].sort_index())


def test_a_group_with_images_in_validation_stays_in_training() -> None:
    rows = _build_rows()
    rows.loc[rows["split"] == "train", "group"] = np.where(rows["split"] == "train", rows["group"] % 40, 0)[50:]
    shared = rows["group"].isin(rows.loc[rows["split"] == "valid", "group"])
    assert (carve_test(rows)[shared]["split"] != "test").all()


def test_the_carved_labels_have_absolute_paths(tmp_path: Path) -> None:
    _build_rows().to_csv(tmp_path / "labels.csv", index=False)
    carved = pd.read_csv(write_carved_labels(tmp_path, tmp_path / "carved" / "labels.csv"))
    assert carved["path"][7] == str(tmp_path.resolve() / "7.png")


def test_labels_without_groups_are_refused(tmp_path: Path) -> None:
    _build_rows().drop(columns="group").to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(ParfocalError, match="has no column 'group'"):
        write_carved_labels(tmp_path, tmp_path / "carved.csv")
