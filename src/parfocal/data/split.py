"""Who trains, validates and tests: as the data says, as an earlier run did, or made anew, whole patients only."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from parfocal.data.layouts import read
from parfocal.data.layouts.classes import natural_sort_key
from parfocal.data.table import SPLITS, UNKNOWN, Table
from parfocal.errors import ParfocalError, UsageError, join_limited
from parfocal.recipe import Recipe
from parfocal.schema import SplitConfig

_MAX_ROUNDS = 4


def read_and_split(source: Path | str, recipe: Recipe) -> Table:
    """Read the labels of a folder or file, and split them as the recipe says."""
    return split_table(read(source, recipe), recipe.split, recipe.seed)


def split_table(table: Table, config: SplitConfig, seed: int) -> Table:
    """Return the table with train, valid and, where asked for, test, the same for the same seed."""
    if config.file:
        return _copy_splits(table, Path(config.file))
    if not config.keep:
        table = _merge_into_train(table, SPLITS, f"{table.source}; its own splits set aside")
    if config.folds:
        return _assign_folds(_merge_into_train(table, ("train", "valid"), table.source), config, seed)
    if config.test and "test" not in table.splits:
        table = _hold_out(table, "test", config.test, seed)
    if "valid" in table.splits:
        return table
    folds = sorted(set(table.rows["fold"]) - {""}, key=natural_sort_key)
    if len(folds) > 1:
        if config.fold >= len(folds):
            raise UsageError(f"fold={config.fold}, but the data has {len(folds)} folds, counted from 0.")
        chosen = np.flatnonzero(table.rows["fold"] == folds[config.fold])
        return _move_rows(table, chosen, "valid", f"{folds[config.fold]} of {len(folds)} is valid")
    return _hold_out(table, "valid", config.valid / (1 - config.test), seed)


def _copy_splits(table: Table, file: Path) -> Table:
    try:
        before = pd.read_csv(file, dtype=str, keep_default_na=False)
        sides = dict(zip(before["id"], before["split"], strict=True))
    except (OSError, ValueError, KeyError):
        raise UsageError(f"split.file={file} is not the table.csv of a run.") from None
    missing = [one for one in table.rows["id"] if one not in sides]
    if missing:
        raise ParfocalError(
            f"{file} has no split for {len(missing)} images of {table.source}: {join_limited(missing)}."
        )
    rows = table.rows.assign(split=table.rows["id"].map(sides))
    return replace(table, rows=rows, source=f"{table.source}; splits of {file}")


def _merge_into_train(table: Table, splits: tuple[str, ...], source: str) -> Table:
    """Bring the labelled rows of some splits back into train."""
    pooled = table.rows["split"].isin(splits) & (table.rows["label"] != UNKNOWN)
    return replace(table, rows=table.rows.assign(split=table.rows["split"].mask(pooled, "train")), source=source)


def _hold_out(table: Table, split: str, fraction: float, seed: int) -> Table:
    """Move whole groups that make up a share of train, and of each of its classes, into another split."""
    train = table.get_positions("train")
    names, group = np.unique(table.rows["group"].to_numpy(str)[train], return_inverse=True)
    counts = np.zeros((len(names), len(table.classes) + 1))
    np.add.at(counts, (group, table.get_labels("train")), 1)
    counts = np.column_stack([counts, counts.sum(axis=1)])
    chosen = _choose_groups(
        counts / np.maximum(counts.sum(axis=0), 1), fraction, np.random.default_rng([seed, len(names)])
    )
    if not chosen.any() or chosen.all():
        raise ParfocalError(
            f"{table.source} has no {split} split and only {len(names)} groups (patients) in train, too few to carve "
            f"{fraction:.0%} from. Give a {split} split, or change split.{split}."
        )
    rows = train[chosen[group]]
    return _move_rows(table, rows, split, f"{len(rows)} rows of train, by group, are {split}")


def _choose_groups(class_fractions: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Choose groups whose shares of each class, and of all rows, sum to about `share`."""
    chosen = np.zeros(len(class_fractions), dtype=bool)
    missing = np.where(class_fractions.sum(axis=0) > 0, fraction, 0.0)
    # In random order, so that a split does not come to consist of the few patients with the most images; once more
    # over all of them, because an early choice may turn out to be one too many.
    for _ in range(_MAX_ROUNDS):
        before = chosen.copy()
        for number in rng.permutation(len(class_fractions)):
            step = -class_fractions[number] if chosen[number] else class_fractions[number]
            if np.linalg.norm(missing - step) < np.linalg.norm(missing):
                chosen[number] = not chosen[number]
                missing = missing - step
        if (chosen == before).all():
            break
    return chosen


def _assign_folds(table: Table, config: SplitConfig, seed: int) -> Table:
    groups = table.get_rows("train")["group"].nunique()
    if groups < config.folds:
        raise ParfocalError(f"{table.source} has {groups} groups (patients), too few for folds={config.folds}.")
    names = table.rows["fold"].to_numpy(object, copy=True)
    names[:] = ""
    for number, fold in enumerate(_split_into_folds(table, config.folds, seed)):
        names[fold] = f"fold_{number}"
    folded = replace(table, rows=table.rows.assign(fold=names))
    chosen = np.flatnonzero(names == f"fold_{config.fold}")
    return _move_rows(folded, chosen, "valid", f"fold {config.fold} of {config.folds}, by group, is valid")


def _split_into_folds(table: Table, n_folds: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the row numbers of each of `count` folds of train."""
    train = table.get_positions("train")
    chooser = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            for _, fold in chooser.split(train, table.get_labels("train"), table.rows["group"].to_numpy()[train]):
                yield train[fold]
        except ValueError as error:
            raise ParfocalError(f"{table.source} cannot be split into {n_folds} folds: {error}.") from None


def _move_rows(table: Table, positions: np.ndarray, split: str, note: str) -> Table:
    sides = table.rows["split"].to_numpy(object, copy=True)
    sides[positions] = split
    return replace(table, rows=table.rows.assign(split=sides), source=f"{table.source}; {note}")
