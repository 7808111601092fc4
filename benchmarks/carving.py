"""Carve a test split from the training split of a data set that has none, so that the test images choose nothing."""

from pathlib import Path

import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from parfocal.errors import ParfocalError

_COLUMNS = ("path", "label", "split", "group")


def carve_test(rows: pd.DataFrame, n_parts: int = 5) -> pd.DataFrame:
    """Return the rows with one of `n_parts` parts of the training split as split `test`.

    Rows of a group stay together, the classes have about the same shares in all parts, and the same rows always give
    the same split. A group with images in another split stays in training.
    """
    rows = rows.reset_index(drop=True)
    is_elsewhere = rows["group"].isin(rows.loc[rows["split"] != "train", "group"])
    candidates = rows[(rows["split"] == "train") & ~is_elsewhere].sort_values(["group", "path"])
    folds = StratifiedGroupKFold(n_parts, shuffle=True, random_state=0)
    _, test = next(folds.split(candidates, candidates["label"], candidates["group"]))
    carved = rows.copy()
    carved.loc[candidates.index[test], "split"] = "test"
    return carved


def write_carved_labels(folder: Path, path: Path, n_parts: int = 5) -> Path:
    """Write the labels of a data folder with a carved test split and absolute paths of its images; return the file."""
    rows = pd.read_csv(folder / "labels.csv", dtype=str)
    if missing := [name for name in _COLUMNS if name not in rows]:
        raise ParfocalError(f"{folder / 'labels.csv'} has no column {missing[0]!r}; it needs {', '.join(_COLUMNS)}.")
    carved = carve_test(rows, n_parts)
    carved["path"] = [str((folder / name).resolve()) for name in carved["path"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    carved.to_csv(path, index=False)
    return path
