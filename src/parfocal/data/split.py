"""Who trains, validates and tests: as the data says, as an earlier run did, or made anew, whole patients only."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from parfocal.data.layouts.classes import natural
from parfocal.data.readers import read
from parfocal.data.table import SPLITS, UNKNOWN, Table
from parfocal.errors import ParfocalError, UsageError, listing
from parfocal.parts import SplitPart
from parfocal.recipe import Recipe

_ROUNDS = 4


def read_with_splits(source: Path | str, recipe: Recipe) -> Table:
    """Read the labels of a folder or file, and split them as the recipe says."""
    return with_splits(read(source, recipe), recipe.split, recipe.seed)


def with_splits(table: Table, part: SplitPart, seed: int) -> Table:
    """Return the table with train, valid and, where asked for, test, the same for the same seed."""
    if part.file:
        return _as_before(table, Path(part.file))
    if not part.keep:
        table = _pooled(table, SPLITS, f"{table.source}; its own splits set aside")
    if part.folds:
        return _folded(_pooled(table, ("train", "valid"), table.source), part, seed)
    if part.test and "test" not in table.splits:
        table = _carved(table, "test", part.test, seed)
    if "valid" in table.splits:
        return table
    folds = sorted(set(table.rows["fold"]) - {""}, key=natural)
    if len(folds) > 1:
        if part.fold >= len(folds):
            raise UsageError(f"fold={part.fold}, but the data has {len(folds)} folds, counted from 0.")
        chosen = np.flatnonzero(table.rows["fold"] == folds[part.fold])
        return _moved(table, chosen, "valid", f"{folds[part.fold]} of {len(folds)} is valid")
    return _carved(table, "valid", part.valid / (1 - part.test), seed)


def _as_before(table: Table, file: Path) -> Table:
    try:
        before = pd.read_csv(file, dtype=str, keep_default_na=False)
        sides = dict(zip(before["id"], before["split"], strict=True))
    except (OSError, ValueError, KeyError):
        raise UsageError(f"split.file={file} is not the table.csv of a run.") from None
    missing = [one for one in table.rows["id"] if one not in sides]
    if missing:
        raise ParfocalError(f"{file} has no split for {len(missing)} images of {table.source}: {listing(missing)}.")
    rows = table.rows.assign(split=table.rows["id"].map(sides))
    return replace(table, rows=rows, source=f"{table.source}; splits of {file}")


def _pooled(table: Table, splits: tuple[str, ...], source: str) -> Table:
    """Bring the labelled rows of some splits back into train."""
    pooled = table.rows["split"].isin(splits) & (table.rows["label"] != UNKNOWN)
    return replace(table, rows=table.rows.assign(split=table.rows["split"].mask(pooled, "train")), source=source)


def _carved(table: Table, split: str, share: float, seed: int) -> Table:
    """Move whole groups that make up a share of train, and of each of its classes, into another split."""
    train = table.positions("train")
    names, group = np.unique(table.rows["group"].to_numpy(str)[train], return_inverse=True)
    counts = np.zeros((len(names), len(table.classes) + 1))
    np.add.at(counts, (group, table.labels("train")), 1)
    counts = np.column_stack([counts, counts.sum(axis=1)])
    chosen = _choose(counts / np.maximum(counts.sum(axis=0), 1), share, np.random.default_rng([seed, len(names)]))
    if not chosen.any() or chosen.all():
        raise ParfocalError(
            f"{table.source} has no {split} split and only {len(names)} groups (patients) in train, too few to carve "
            f"{share:.0%} from. Give a {split} split, or change split.{split}."
        )
    rows = train[chosen[group]]
    return _moved(table, rows, split, f"{len(rows)} rows of train, by group, are {split}")


def _choose(shares: np.ndarray, share: float, dice: np.random.Generator) -> np.ndarray:
    """Choose groups whose shares of each class, and of all rows, sum to about `share`."""
    chosen = np.zeros(len(shares), dtype=bool)
    missing = np.where(shares.sum(axis=0) > 0, share, 0.0)
    # In random order, so that a split does not come to consist of the few patients with the most images; once more
    # over all of them, because an early choice may turn out to be one too many.
    for _ in range(_ROUNDS):
        before = chosen.copy()
        for number in dice.permutation(len(shares)):
            step = -shares[number] if chosen[number] else shares[number]
            if np.linalg.norm(missing - step) < np.linalg.norm(missing):
                chosen[number] = not chosen[number]
                missing = missing - step
        if (chosen == before).all():
            break
    return chosen


def _folded(table: Table, part: SplitPart, seed: int) -> Table:
    groups = table.of("train")["group"].nunique()
    if groups < part.folds:
        raise ParfocalError(f"{table.source} has {groups} groups (patients), too few for folds={part.folds}.")
    names = table.rows["fold"].to_numpy(object, copy=True)
    names[:] = ""
    for number, fold in enumerate(_folds(table, part.folds, seed)):
        names[fold] = f"fold_{number}"
    folded = replace(table, rows=table.rows.assign(fold=names))
    chosen = np.flatnonzero(names == f"fold_{part.fold}")
    return _moved(folded, chosen, "valid", f"fold {part.fold} of {part.folds}, by group, is valid")


def _folds(table: Table, count: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the row numbers of each of `count` folds of train."""
    train = table.positions("train")
    chooser = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            for _, fold in chooser.split(train, table.labels("train"), table.rows["group"].to_numpy()[train]):
                yield train[fold]
        except ValueError as error:
            raise ParfocalError(f"{table.source} cannot be split into {count} folds: {error}.") from None


def _moved(table: Table, rows: np.ndarray, split: str, words: str) -> Table:
    sides = table.rows["split"].to_numpy(object, copy=True)
    sides[rows] = split
    return replace(table, rows=table.rows.assign(split=sides), source=f"{table.source}; {words}")
