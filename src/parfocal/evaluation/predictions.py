"""Predictions of a split as a table (id, group, truth, predicted class, probabilities), the basis of every evaluation.

They are read and written as CSV, matched by image between runs, and combined over the folds of a cross-validation.
"""

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
_REQUIRED_COLUMNS = ("id", "group", "truth", "predicted")
# Single-precision rounding can push a probability this far above 1.
_ROUNDING_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Predictions:
    """The class probabilities of every image of a split, with its true class (-1 if unknown).

    `labels` are the classes that a decision rule predicts; None for the most probable ones.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    truth: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        is_finite = np.isfinite(self.probabilities).all(axis=1)
        if not is_finite.all():
            image = self.ids[int(np.flatnonzero(~is_finite)[0])]
            raise ParfocalError(f"The probabilities of {image} are not finite. Train with a lower learning_rate.")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def predicted(self) -> np.ndarray:
        """The predicted class of each image."""
        return self.probabilities.argmax(axis=1) if self.labels is None else self.labels

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the predicted class of each image."""
        return self.probabilities[np.arange(len(self)), self.predicted]

    @property
    def labeled(self) -> bool:
        """Whether there are images and the true class of each is known."""
        return len(self) > 0 and bool((self.truth != UNKNOWN).all())

    @classmethod
    def from_table(cls, table: Table, split: str, probabilities: np.ndarray) -> Self:
        """Combine probabilities with the rows of a split, which are in the same order."""
        rows = table.get_rows(split)
        return cls(tuple(rows["id"]), tuple(rows["group"]), table.get_labels(split), probabilities, table.classes)

    def save(self, path: Path) -> None:
        """Write id, group, truth, predicted class and a probability per class as CSV."""
        names = np.array(self.classes, dtype=object)
        truth = [self.classes[label] if label != UNKNOWN else "" for label in self.truth]
        rows = pd.DataFrame({"id": self.ids, "group": self.groups, "truth": truth, "predicted": names[self.predicted]})
        for label, name in enumerate(self.classes):
            rows[_PROBABILITY_PREFIX + name] = self.probabilities[:, label].astype(np.float64)
        with atomic_write(path) as temporary_path:
            rows.to_csv(temporary_path, index=False, float_format="%.9g")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read predictions written by `save`."""
        if not path.is_file():
            raise ParfocalError(f"{path} is missing. Create it with `parfocal evaluate {path.parent.parent}`.")
        remedy = f"Recreate it with `parfocal evaluate {path.parent.parent}`."
        try:
            rows = pd.read_csv(path, dtype=dict.fromkeys(_REQUIRED_COLUMNS, str), keep_default_na=False)
        except pd.errors.EmptyDataError:
            raise ParfocalError(f"{path} is empty. {remedy}") from None
        except (pd.errors.ParserError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise ParfocalError(f"{path} is not a predictions file: {reason}. {remedy}") from None
        columns = [name for name in rows.columns if name.startswith(_PROBABILITY_PREFIX)]
        missing = [name for name in _REQUIRED_COLUMNS if name not in rows.columns]
        if not columns:
            missing.append(f"{_PROBABILITY_PREFIX}CLASS for each class")
        if missing:
            raise ParfocalError(f"{path} is not a predictions file: it has no column {', '.join(missing)}. {remedy}")

        classes = tuple(name.removeprefix(_PROBABILITY_PREFIX) for name in columns)
        labels = {name: label for label, name in enumerate(classes)} | {"": UNKNOWN}
        is_valid = rows["truth"].isin(labels)
        _check_values(path, rows["truth"], is_valid, f"Allowed: {', '.join(classes)}, or empty if unknown")
        _check_values(path, rows["predicted"], rows["predicted"].isin(classes), f"Allowed: {', '.join(classes)}")
        truth, predicted = (
            np.array([labels[name] for name in rows[column]], dtype=np.int64) for column in ("truth", "predicted")
        )
        values = [pd.to_numeric(rows[name], errors="coerce").to_numpy(np.float64) for name in columns]
        probabilities = np.stack(values, axis=1)
        is_valid = (probabilities >= 0) & (probabilities <= 1 + _ROUNDING_TOLERANCE)
        for label, name in enumerate(columns):
            _check_values(path, rows[name], is_valid[:, label], "Allowed: numbers from 0 to 1")
        return cls(tuple(rows["id"]), tuple(rows["group"]), truth, probabilities, classes, predicted)


def _check_values(path: Path, column: pd.Series, is_valid: np.ndarray | pd.Series, allowed: str) -> None:
    """Raise an error with the line of the first invalid value of a column, if any."""
    invalid = np.flatnonzero(~is_valid)
    if len(invalid):
        # Line 1 is the header.
        raise ParfocalError(
            f"{path}, line {invalid[0] + 2}: the value in column {column.name!r} is {str(column.iloc[invalid[0]])!r}. "
            f"{allowed}. Correct the file, or recreate it with `parfocal evaluate {path.parent.parent}`."
        )


def index_groups(groups: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct groups, sorted, and for each image the index of its group among them."""
    return np.unique(np.array(groups, dtype=str), return_inverse=True)


def number_duplicates(predictions: Predictions) -> list[tuple[str, int]]:
    """Return each image's id with the number of earlier rows of that id, so that duplicated rows stay distinct."""
    ids = pd.Series(predictions.ids, dtype=object)
    return list(zip(predictions.ids, ids.groupby(ids).cumcount().tolist(), strict=True))


def align_predictions(predictions: Predictions, reference: Predictions) -> Predictions:
    """Return predictions of the same images in the order of a reference, with the groups of the reference."""
    row_of = {image: row for row, image in enumerate(number_duplicates(predictions))}
    rows = [row_of[image] for image in number_duplicates(reference)]
    return replace(
        predictions,
        ids=reference.ids,
        groups=reference.groups,
        truth=predictions.truth[rows],
        probabilities=predictions.probabilities[rows],
        labels=predictions.predicted[rows],
    )


def describe_mismatch(names: Sequence[str], predictions: Sequence[Predictions]) -> str:
    """Say which predictions have other images or labels than the first; empty if all match.

    Predictions with other classes cannot be compared at all and are rejected.
    """
    reference = predictions[0]
    expected = dict(zip(number_duplicates(reference), reference.truth, strict=True))
    for name, candidate in zip(names[1:], predictions[1:], strict=True):
        if candidate.classes != reference.classes:
            raise ParfocalError(
                f"The classes differ: {names[0]} has {', '.join(reference.classes)}; "
                f"{name} has {', '.join(candidate.classes)}. Compare runs with the same classes."
            )
        actual = dict(zip(number_duplicates(candidate), candidate.truth, strict=True))
        unmatched = sorted({image_id for image_id, _ in actual.keys() ^ expected.keys()})
        if unmatched:
            return f"{names[0]} and {name} were evaluated on different images, such as {join_limited(unmatched, 2)}"
        relabeled = [image[0] for image, truth in actual.items() if expected[image] != truth]
        if relabeled:
            return f"{names[0]} and {name} were evaluated with different labels for {join_limited(relabeled, 2)}"
    return ""


def join_folds(family_name: str, predictions_by_run: Mapping[str, Predictions]) -> list[tuple[str, Predictions]]:
    """Combine the predictions of runs that share no image, such as the folds of a cross-validation.

    Returns the combined predictions with their names: the family's name if they hold all its runs, else the names of
    the runs. Runs with common images, such as those of different seeds, stay separate.
    """
    fold_sets: list[dict[str, Predictions]] = []
    for run, predictions in predictions_by_run.items():
        for folds in fold_sets:
            ids = {image_id for fold in folds.values() for image_id in fold.ids}
            has_same_classes = all(fold.classes == predictions.classes for fold in folds.values())
            if has_same_classes and ids.isdisjoint(predictions.ids):
                folds[run] = predictions
                break
        else:
            fold_sets.append({run: predictions})
    is_complete = len(fold_sets) == 1 and len(predictions_by_run) > 1
    return [
        (
            family_name if is_complete else join_limited(folds, 2),
            replace(
                next(iter(folds.values())),
                ids=tuple(image_id for fold in folds.values() for image_id in fold.ids),
                groups=tuple(group for fold in folds.values() for group in fold.groups),
                truth=np.concatenate([fold.truth for fold in folds.values()]),
                probabilities=np.concatenate([fold.probabilities for fold in folds.values()]),
                labels=np.concatenate([fold.predicted for fold in folds.values()]),
            ),
        )
        for folds in fold_sets
    ]
