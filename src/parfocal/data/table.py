"""Table: a row for each labeled image (id, path, label, split, group, fold), and class names; a group is a patient."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from parfocal.data.findings import Finding
from parfocal.errors import ParfocalError
from parfocal.groups import GroupKind
from parfocal.manifest import verify_file, write_listed_file
from parfocal.run import Run
from parfocal.run_files import DamagedFileError, read_csv_file

SPLITS = ("train", "valid", "test")
UNKNOWN = -1
_COLUMNS = ["id", "path", "label", "split", "group", "fold", "digest"]


@dataclass(frozen=True)
class Table:
    """Labeled images.

    `rows` has the columns id, path, label, split, group, fold and digest. A label is the index of its class, or -1 if
    it is unknown. The fold and the digest (a hash of the file) are empty if the data does not have them.
    `classes` are the names of the classes; `codes` are what the data writes for them. `submission_lists` are, by name,
    ordered lists of ids to predict, such as the test file of a competition. `groups_are` is what a group is, and
    `groups_from` says where its name comes from. `repeated_columns` are columns of the data of which one may name the
    patient. `findings` are what reading the labels found. `folders` are the folders of the data, in which there may be
    images without a row.
    """

    rows: pd.DataFrame
    classes: tuple[str, ...]
    codes: tuple[str, ...]
    source: str
    submission_lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    groups_are: GroupKind = "images"
    groups_from: str = ""
    repeated_columns: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    folders: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have rows, in the order train, valid, test."""
        present = set(self.rows["split"])
        return tuple(split for split in SPLITS if split in present)

    @property
    def paths(self) -> list[str]:
        """The distinct files of all rows, in order of first appearance."""
        return list(dict.fromkeys(self.rows["path"]))

    def find_positions_in(self, index: pd.DataFrame) -> np.ndarray:
        """Return the position of each row's file in an index, which has a row for each file."""
        positions = {path: position for position, path in enumerate(index["path"])}
        return np.array([positions[path] for path in self.rows["path"]], dtype=np.int64)

    def get_positions(self, split: str) -> np.ndarray:
        """Return the row numbers of a split."""
        return np.flatnonzero(self.rows["split"].to_numpy() == split)

    def get_rows(self, split: str) -> pd.DataFrame:
        """Return the rows of a split."""
        return self.rows.iloc[self.get_positions(split)]

    def get_labels(self, split: str) -> np.ndarray:
        """Return the labels of a split, -1 where unknown."""
        return self.rows["label"].to_numpy()[self.get_positions(split)].astype(np.int64)

    def is_labeled(self, split: str) -> bool:
        """Return whether the split has rows and all of them have a label."""
        labels = self.get_labels(split)
        return len(labels) > 0 and bool((labels != UNKNOWN).all())

    def count_classes(self, split: str) -> dict[str, int]:
        """Return the number of rows of each class in a split."""
        labels = self.get_labels(split)
        return {name: int((labels == index).sum()) for index, name in enumerate(self.classes)}

    def drop_ids(self, ids: set[str]) -> Self:
        """Return the table without the rows with these ids."""
        rows = self.rows[~self.rows["id"].isin(ids)].reset_index(drop=True)
        lists = {
            name: tuple(image_id for image_id in listed if image_id not in ids)
            for name, listed in self.submission_lists.items()
        }
        return replace(self, rows=rows, submission_lists=lists)

    def save(self, path: Path, pixel_digests: pd.Series | None = None) -> None:
        """Write the rows as CSV, with a column of digests of the decoded pixels if they are given.

        Each submission list becomes a column with the positions of its ids.
        """
        rows = self.rows[_COLUMNS].copy()
        rows.insert(3, "class", [self.classes[label] if label != UNKNOWN else "" for label in rows["label"]])
        if pixel_digests is not None:
            rows[pixel_digests.name] = pixel_digests.to_numpy()
        for name, listed in self.submission_lists.items():
            positions = {image_id: position for position, image_id in enumerate(listed)}
            rows[f"order:{name}"] = rows["id"].map(positions).astype("Int64")
        with write_listed_file(path) as temporary:
            rows.to_csv(temporary, index=False)

    @classmethod
    def load(cls, run: Run) -> Self:
        """Read the table of a run."""
        path = run.table_path
        data = run.read_environment()["data"]
        if not verify_file(path):
            raise ParfocalError(f"{path} is missing; the run folder is incomplete.")
        rows = read_csv_file(path, tuple(name for name in _COLUMNS if name != "label"), ("label",))
        if not rows["label"].isin(range(UNKNOWN, len(data["classes"]))).all():
            raise DamagedFileError(path, f"a label is not the index of one of {len(data['classes'])} classes")
        if not rows["split"].isin(SPLITS).all():
            raise DamagedFileError(path, f"a split is not {', '.join(SPLITS)}")
        lists: dict[str, tuple[str, ...]] = {}
        for column in (name for name in rows.columns if name.startswith("order:")):
            listed = rows[rows[column].astype(str) != ""]
            order = pd.to_numeric(listed[column], errors="coerce")
            if order.isna().any():
                raise DamagedFileError(path, f"the column {column} does not only have numbers")
            lists[column.removeprefix("order:")] = tuple(listed.iloc[order.argsort()]["id"])
        return cls(rows[_COLUMNS], tuple(data["classes"]), tuple(data["codes"]), data["source"], lists, run.groups_are)


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
    columns = {
        "id": ids,
        "path": [str(path) for path in paths],
        "label": np.asarray(labels, dtype=np.int64),
        "split": splits,
        "group": groups,
        "fold": folds or [""] * len(ids),
        "digest": digests or [""] * len(ids),
    }
    return pd.DataFrame(columns)


def natural_sort_key(text: str) -> list[tuple[int, float, str]]:
    """Return a key that sorts numbers in a text by value: 1, 2, 10."""
    pieces = re.split(r"(\d+)", text.casefold())
    return [(0, float(piece), "") if piece.isdecimal() else (1, 0.0, piece) for piece in pieces if piece]
