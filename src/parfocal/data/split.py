"""Split a table into train, valid and test by patient: as in the data, as in an earlier run, at random, or in folds."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from parfocal.data.grouping import count_groups
from parfocal.data.layouts import read
from parfocal.data.table import SPLITS, UNKNOWN, Table, natural_sort_key
from parfocal.errors import ParfocalError, UsageError, join_limited
from parfocal.recipe import Recipe
from parfocal.recipe_schema import SplitConfig

_MAX_ROUNDS = 4


def read_and_split(source: Path | str, recipe: Recipe) -> Table:
    """Read the labels of a folder or file, and split them as the recipe says."""
    return split_table(read(source, recipe), recipe.split, recipe.seed)


def split_table(table: Table, config: SplitConfig, seed: int) -> Table:
    """Return the table with the splits train, valid and, if the config says so, test; the same for the same seed."""
    if config.file:
        return _copy_splits(table, Path(config.file))
    if not config.keep:
        table = _merge_into_train(table, SPLITS, f"{table.source}; its splits are ignored")
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
        positions = np.flatnonzero(table.rows["fold"] == folds[config.fold])
        return _move_rows(table, positions, "valid", f"{folds[config.fold]} of {len(folds)} is valid")
    return _hold_out(table, "valid", config.valid / (1 - config.test), seed)


def _copy_splits(table: Table, file: Path) -> Table:
    try:
        earlier = pd.read_csv(file, dtype=str, keep_default_na=False)
        splits = dict(zip(earlier["id"], earlier["split"], strict=True))
    except (OSError, ValueError, KeyError):
        raise UsageError(f"split.file={file} is not the table.csv of a run.") from None
    missing = [image_id for image_id in table.rows["id"] if image_id not in splits]
    if missing:
        raise ParfocalError(
            f"{file} has no split for {len(missing)} images of {table.source}: {join_limited(missing)}."
        )
    rows = table.rows.assign(split=table.rows["id"].map(splits))
    return replace(table, rows=rows, source=f"{table.source}; splits of {file}")


def _merge_into_train(table: Table, splits: tuple[str, ...], source: str) -> Table:
    """Move the labeled rows of some splits back into train."""
    moved = table.rows["split"].isin(splits) & (table.rows["label"] != UNKNOWN)
    return replace(table, rows=table.rows.assign(split=table.rows["split"].mask(moved, "train")), source=source)


def _hold_out(table: Table, split: str, fraction: float, seed: int) -> Table:
    """Move whole groups, about `fraction` of the rows of train and of each of its classes, into another split."""
    train = table.get_positions("train")
    groups, group_index = np.unique(table.rows["group"].to_numpy(str)[train], return_inverse=True)
    counts = np.zeros((len(groups), len(table.classes) + 1))
    np.add.at(counts, (group_index, table.get_labels("train")), 1)
    counts = np.column_stack([counts, counts.sum(axis=1)])
    class_fractions = counts / np.maximum(counts.sum(axis=0), 1)
    chosen = _choose_groups(class_fractions, fraction, np.random.default_rng([seed, len(groups)]))
    if not chosen.any() or chosen.all():
        raise ParfocalError(
            f"{table.source} has no {split} split and only {count_groups(len(groups), table.groups_are)} in train, "
            f"too few to hold out {fraction:.0%}. Add a {split} split to the data, or change split.{split}."
        )
    positions = train[chosen[group_index]]
    return _move_rows(table, positions, split, f"{len(positions)} rows of train, by group, are {split}")


def _choose_groups(class_fractions: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Choose groups whose fractions of each class, and of all rows, sum to about `fraction`."""
    chosen = np.zeros(len(class_fractions), dtype=bool)
    missing = np.where(class_fractions.sum(axis=0) > 0, fraction, 0.0)
    # The order is random, so that the split does not end up with the few patients who have the most images. Further
    # rounds can undo an early choice that turns out to be too much.
    for _ in range(_MAX_ROUNDS):
        before = chosen.copy()
        for group in rng.permutation(len(class_fractions)):
            step = -class_fractions[group] if chosen[group] else class_fractions[group]
            if np.linalg.norm(missing - step) < np.linalg.norm(missing):
                chosen[group] = not chosen[group]
                missing = missing - step
        if (chosen == before).all():
            break
    return chosen


def _assign_folds(table: Table, config: SplitConfig, seed: int) -> Table:
    n_groups = table.get_rows("train")["group"].nunique()
    if n_groups < config.folds:
        number = count_groups(n_groups, table.groups_are)
        raise ParfocalError(f"{table.source} has {number}, too few for folds={config.folds}.")
    folds = np.full(len(table), "", dtype=object)
    train = table.get_positions("train")
    splitter = StratifiedGroupKFold(config.folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            groups = table.rows["group"].to_numpy()[train]
            for number, (_, fold) in enumerate(splitter.split(train, table.get_labels("train"), groups)):
                folds[train[fold]] = f"fold_{number}"
        except ValueError as error:
            raise ParfocalError(f"{table.source} cannot be split into {config.folds} folds: {error}.") from None
    table = replace(table, rows=table.rows.assign(fold=folds))
    positions = np.flatnonzero(folds == f"fold_{config.fold}")
    return _move_rows(table, positions, "valid", f"fold {config.fold} of {config.folds}, by group, is valid")


def _move_rows(table: Table, positions: np.ndarray, split: str, note: str) -> Table:
    splits = table.rows["split"].to_numpy(object, copy=True)
    splits[positions] = split
    return replace(table, rows=table.rows.assign(split=splits), source=f"{table.source}; {note}")
