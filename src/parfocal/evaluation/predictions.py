"""Predictions: id, group, truth and one probability for each class, for one split. All judgement starts from them."""
# MERGED: """Which images predictions are of: brought into one order, and joined from the folds of a cross-validation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from parfocal.data.table import UNKNOWN, Table
from parfocal.errors import ParfocalError, join_limited
from parfocal.io import atomic_write

_PROBABILITY_PREFIX = "probability:"
_REQUIRED_COLUMNS = ("id", "group", "truth")
# Probabilities of single precision may be so much above 1.
_ROUNDING_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Predictions:
    """What a network said about every image of a split; truth is -1 where nobody knows it."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    truth: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not np.isfinite(self.probabilities).all():
            worst = self.ids[int(np.flatnonzero(~np.isfinite(self.probabilities).all(axis=1))[0])]
            raise ParfocalError(
                f"The network gives no finite probability for {worst}. Train with a lower learning_rate."
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each image."""
        return self.probabilities.argmax(axis=1)

    @property
    def labeled(self) -> bool:
        """Whether there are images and the truth of every one is known."""
        return len(self) > 0 and bool((self.truth != UNKNOWN).all())

    @classmethod
    def from_table(cls, table: Table, split: str, probabilities: np.ndarray) -> Self:
        """Join what a network said to the rows of a split."""
        rows = table.get_rows(split)
        return cls(tuple(rows["id"]), tuple(rows["group"]), table.get_labels(split), probabilities, table.classes)

    def save(self, path: Path) -> None:
        """Write id, group, truth, predicted and one probability for each class as CSV."""
        names = np.array(self.classes, dtype=object)
        truth = [self.classes[label] if label != UNKNOWN else "" for label in self.truth]
        rows = pd.DataFrame({"id": self.ids, "group": self.groups, "truth": truth, "predicted": names[self.predicted]})
        for number, name in enumerate(self.classes):
            rows[_PROBABILITY_PREFIX + name] = self.probabilities[:, number].astype(np.float64)
        with atomic_write(path) as beside:
            rows.to_csv(beside, index=False, float_format="%.9g")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read predictions written by `save`."""
        if not path.is_file():
            raise ParfocalError(f"{path} is missing. Make it with `parfocal evaluate {path.parent.parent}`.")
        rows = _read_rows(path)
        classes = tuple(
            name.removeprefix(_PROBABILITY_PREFIX) for name in rows.columns if name.startswith(_PROBABILITY_PREFIX)
        )
        labels = {name: number for number, name in enumerate(classes)} | {"": UNKNOWN}
        for row in np.flatnonzero(~rows["truth"].isin(labels)):
            told = f"Valid are {', '.join(classes)}, or nothing where it is unknown"
            raise _build_value_error(path, int(row), "truth", rows["truth"].iloc[row], told)
        truth = np.array([labels[name] for name in rows["truth"]], dtype=np.int64)
        probabilities = np.stack(
            [_parse_probabilities(path, rows[_PROBABILITY_PREFIX + name]) for name in classes], axis=1
        )
        return cls(tuple(rows["id"]), tuple(rows["group"]), truth, probabilities, classes)


def _read_rows(path: Path) -> pd.DataFrame:
    """Read the rows of a predictions file, which has all columns that are needed."""
    remedy = f"Make it anew with `parfocal evaluate {path.parent.parent}`."
    try:
        rows = pd.read_csv(path, dtype=dict.fromkeys(_REQUIRED_COLUMNS, str), keep_default_na=False)
    except pd.errors.EmptyDataError:
        raise ParfocalError(f"{path} is empty. {remedy}") from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ParfocalError(f"{path} is not a predictions file: {error}. {remedy}") from None
    missing = [name for name in _REQUIRED_COLUMNS if name not in rows.columns]
    if not any(name.startswith(_PROBABILITY_PREFIX) for name in rows.columns):
        missing.append(f"{_PROBABILITY_PREFIX}CLASS for each class")
    if missing:
        raise ParfocalError(f"{path} is not a predictions file: it has no column {', '.join(missing)}. {remedy}")
    return rows


def _parse_probabilities(path: Path, column: pd.Series) -> np.ndarray:
    """Return a column's probabilities; one that is none is refused."""
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    for row in np.flatnonzero(~((values >= 0) & (values <= 1 + _ROUNDING_TOLERANCE))):
        raise _build_value_error(path, int(row), str(column.name), column.iloc[row], "Valid are numbers from 0 to 1")
    return values


def _build_value_error(path: Path, row: int, column: str, value: object, valid: str) -> ParfocalError:
    # The first line is the header.
    return ParfocalError(
        f"{path}, line {row + 2}: the value in column {column!r} is {str(value)!r}. {valid}. "
        f"Mend the file, or make it anew with `parfocal evaluate {path.parent.parent}`."
    )


def number_duplicates(predictions: Predictions) -> list[tuple[str, int]]:
    """Return each image's id, and how many rows before it have the same: rows that are doubled stay two."""
    seen: Counter[str] = Counter()
    found: list[tuple[str, int]] = []
    for one in predictions.ids:
        found.append((one, seen[one]))
        seen[one] += 1
    return found


def align_predictions(predictions: Predictions, reference: Predictions) -> Predictions:
    """Return predictions of the same images in the order, and with the groups, of others."""
    place = {image: number for number, image in enumerate(number_duplicates(predictions))}
    rows = [place[image] for image in number_duplicates(reference)]
    return replace(
        predictions,
        ids=reference.ids,
        groups=reference.groups,
        truth=predictions.truth[rows],
        probabilities=predictions.probabilities[rows],
    )


def describe_mismatch(names: Sequence[str], predictions: Sequence[Predictions]) -> str:
    """Say which predictions are of other images, or judged by another truth, than the first; nothing where none is."""
    first = dict(zip(number_duplicates(predictions[0]), predictions[0].truth, strict=True))
    for name, one in zip(names[1:], predictions[1:], strict=True):
        if one.classes != predictions[0].classes:
            raise ParfocalError(
                f"{names[0]} tells {', '.join(predictions[0].classes)} apart, {name} {', '.join(one.classes)}."
            )
        own = dict(zip(number_duplicates(one), one.truth, strict=True))
        odd = sorted({image for image, _ in own.keys() ^ first.keys()})
        if odd:
            return f"{names[0]} and {name} were judged on different images, such as {join_limited(odd, 2)}"
        changed = [image for (image, number), truth in own.items() if first[image, number] != truth]
        if changed:
            return f"{names[0]} and {name} were judged by different labels, of {join_limited(changed, 2)}"
    return ""


def join_folds(family_name: str, predictions_by_run: Mapping[str, Predictions]) -> list[tuple[str, Predictions]]:
    """Return the predictions of a family's runs under names for them, those of runs that share no image as one.

    The runs of a cross-validation share none. Where all runs come together, they are called as the family is.
    """
    sets: list[dict[str, Predictions]] = []
    for run, one in predictions_by_run.items():
        own = next((several for several in sets if all(_are_disjoint(one, other) for other in several.values())), None)
        if own is None:
            sets.append({run: one})
        else:
            own[run] = one
    if len(sets) == 1 and len(predictions_by_run) > 1:
        return [(family_name, _concatenate(list(predictions_by_run.values())))]
    return [(join_limited(several, 2), _concatenate(list(several.values()))) for several in sets]


def _are_disjoint(first: Predictions, second: Predictions) -> bool:
    return first.classes == second.classes and set(first.ids).isdisjoint(second.ids)


def _concatenate(predictions: Sequence[Predictions]) -> Predictions:
    return replace(
        predictions[0],
        ids=tuple(image for one in predictions for image in one.ids),
        groups=tuple(group for one in predictions for group in one.groups),
        truth=np.concatenate([one.truth for one in predictions]),
        probabilities=np.concatenate([one.probabilities for one in predictions]),
    )
