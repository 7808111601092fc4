"""Predictions: id, group, truth and one probability for each class, for one split. All judgement starts from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from parfocal.data.table import UNKNOWN, Table
from parfocal.errors import ParfocalError
from parfocal.files import atomic_write

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
