"""Carving a validation split from train: by patient, with the class mix kept, the same for the same seed."""

import warnings
from dataclasses import replace

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from parfocal.data.table import Table
from parfocal.errors import ParfocalError


def with_validation(table: Table, share: float, seed: int) -> Table:
    """Return the table with a labelled valid split; where it has none, whole groups of train become one."""
    if "valid" in table.splits:
        return table
    train = table.positions("train")
    groups = table.rows["group"].to_numpy()[train]
    largest = max(table.counts("train").values())
    folds = max(2, min(round(1 / share), largest))
    if len(np.unique(groups)) < folds:
        raise ParfocalError(
            f"{table.source} has no validation split and only {len(np.unique(groups))} groups (patients) in train, "
            f"too few to carve {share:.0%} from. Give a valid split, or raise valid_share."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        chooser = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        _, chosen = next(chooser.split(train, table.labels("train"), groups))
    rows = table.rows.copy()
    rows.loc[train[chosen], "split"] = "valid"
    return replace(table, rows=rows, source=f"{table.source}; {len(chosen)} rows of train, by group, are valid")
