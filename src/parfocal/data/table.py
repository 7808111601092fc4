"""Table: rows of (id, path, label, split, group, fold) and the class names; the group is the patient."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from parfocal.errors import ParfocalError
from parfocal.io import atomic_write
from parfocal.run import Run

SPLITS = ("train", "valid", "test")
UNKNOWN = -1
_COLUMNS = ["id", "path", "label", "split", "group", "fold", "digest"]


@dataclass(frozen=True)
class Table:
    """Labelled images.

    `rows` has the columns id, path, label, split, group, fold and digest. A label is the index of its class, or -1
    where the data says none; fold and digest (of the file) are empty where the data has none. `classes` are the names
    people read, `codes` what the data writes for each. `lists` are ordered lists of ids that the data asks to be
    answered, such as a competition's test file, by name.
    """

    rows: pd.DataFrame
    classes: tuple[str, ...]
    codes: tuple[str, ...]
    source: str
    submission_lists: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that hold at least one row, in their natural order."""
        present = set(self.rows["split"])
        return tuple(split for split in SPLITS if split in present)

    @property
    def paths(self) -> list[str]:
        """The different files of all rows, in the order in which they first come."""
        return list(dict.fromkeys(self.rows["path"]))

    def find_positions_in(self, index: pd.DataFrame) -> np.ndarray:
        """Return for each row the place of its file in an index, which has one row a file."""
        place = {path: number for number, path in enumerate(index["path"])}
        return np.array([place[path] for path in self.rows["path"]], dtype=np.int64)

    def get_positions(self, split: str) -> np.ndarray:
        """Return the row numbers of one split."""
        return np.flatnonzero(self.rows["split"].to_numpy() == split)

    def get_rows(self, split: str) -> pd.DataFrame:
        """Return the rows of one split."""
        return self.rows.iloc[self.get_positions(split)]

    def get_labels(self, split: str) -> np.ndarray:
        """Return the labels of one split, -1 where unknown."""
        return self.rows["label"].to_numpy()[self.get_positions(split)].astype(np.int64)

    def is_labeled(self, split: str) -> bool:
        """Say whether the split has rows and every one of them has a label."""
        labels = self.get_labels(split)
        return len(labels) > 0 and bool((labels != UNKNOWN).all())

    def count_classes(self, split: str) -> dict[str, int]:
        """Return how many rows of each class a split has."""
        labels = self.get_labels(split)
        return {name: int((labels == index).sum()) for index, name in enumerate(self.classes)}

    def drop_ids(self, ids: set[str]) -> Self:
        """Return the table less the rows with these ids."""
        lists = {name: tuple(one for one in wanted if one not in ids) for name, wanted in self.submission_lists.items()}
        return replace(self, rows=self.rows[~self.rows["id"].isin(ids)].reset_index(drop=True), submission_lists=lists)

    def save(self, path: Path) -> None:
        """Write the rows as CSV; each list becomes a column that holds the place of its ids."""
        rows = self.rows[_COLUMNS].copy()
        rows.insert(3, "class", [self.classes[label] if label != UNKNOWN else "" for label in rows["label"]])
        for name, wanted in self.submission_lists.items():
            places = {one: place for place, one in enumerate(wanted)}
            rows[f"order:{name}"] = rows["id"].map(places).astype("Int64")
        with atomic_write(path) as beside:
            rows.to_csv(beside, index=False)

    @classmethod
    def load(cls, run: Run) -> Self:
        """Read the table that a run was made with."""
        path, about = run.table_path, run.read_environment()["data"]
        if not path.is_file():
            raise ParfocalError(f"{path} is missing; the run folder is not whole.")
        text = {"id": str, "path": str, "group": str, "split": str, "fold": str, "digest": str}
        rows = pd.read_csv(path, dtype=text, keep_default_na=False)
        lists: dict[str, tuple[str, ...]] = {}
        for column in (name for name in rows.columns if name.startswith("order:")):
            placed = rows[rows[column].astype(str) != ""]
            placed = placed.iloc[placed[column].astype(int).argsort()]
            lists[column.removeprefix("order:")] = tuple(placed["id"])
        return cls(rows[_COLUMNS], tuple(about["classes"]), tuple(about["codes"]), about["source"], lists)


def build_rows(
    ids: list[str],
    paths: list[Path],
    labels: list[int] | np.ndarray,
    splits: list[str],
    groups: list[str],
    folds: list[str] | None = None,
    digests: list[str] | None = None,
) -> pd.DataFrame:
    """Return the rows of a table from its columns."""
    places = [str(path) for path in paths]
    columns = [ids, places, np.asarray(labels, dtype=np.int64), splits, groups]
    columns += [folds or [""] * len(ids), digests or [""] * len(ids)]
    return pd.DataFrame(dict(zip(_COLUMNS, columns, strict=True)))
