"""Submissions as competitions want them: the rows that were asked for, in their order, and none missing."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Self

import pandas as pd

from parfocal.data.layouts.image_finder import IMAGE_SUFFIXES
from parfocal.data.layouts.sheets import read_sheet
from parfocal.data.table import Table
from parfocal.errors import ParfocalError, join_limited
from parfocal.io import atomic_write


@dataclass(frozen=True)
class SampleSubmission:
    """A sample submission: what its two columns are called, and which ids it asks for, in their order."""

    columns: tuple[str, str]
    ids: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a sample submission, such as `ID,label`."""
        rows = read_sheet(path)
        if rows.shape[1] < 2:
            raise ParfocalError(f"{path} has one column; a sample submission has two, such as ID,label.")
        doubled = rows.iloc[:, 0][rows.iloc[:, 0].duplicated()]
        if len(doubled):
            raise ParfocalError(f"{path} asks more than once for {join_limited(doubled.unique())}.")
        return cls((str(rows.columns[0]), str(rows.columns[1])), tuple(rows.iloc[:, 0]))

    def write(self, path: Path, predicted: Mapping[str, str], unreadable: Mapping[str, str] | None = None) -> None:
        """Write the answer of each id, which are all of those asked for; say which are missing otherwise."""
        missing = [one for one in self.ids if one not in predicted]
        if missing:
            reasons = [f"{one} ({reason})" for one, reason in (unreadable or {}).items()]
            unread = f" Images that cannot be read: {join_limited(reasons)}." if reasons else ""
            raise ParfocalError(
                f"{len(missing)} ids that are asked for have no prediction: {join_limited(missing)}.{unread}"
            )
        with atomic_write(path) as beside:
            labels = [predicted[one] for one in self.ids]
            pd.DataFrame(dict(zip(self.columns, (self.ids, labels), strict=True))).to_csv(beside, index=False)

    def match_files(self, predicted: Mapping[str, str]) -> dict[str, str]:
        """Return the answers for files by the ids they are asked for: the end of a path, with or without the suffix.

        `test/3` is asked of `cells/test/3.bmp`; where another file's path ends so too, that is an error.
        """
        lengths = {len(PurePath(one).parts) for one in self.ids}
        ends: dict[str, set[str]] = defaultdict(set)
        for path in predicted:
            bare = path[: -len(PurePath(path).suffix)] if PurePath(path).suffix.lower() in IMAGE_SUFFIXES else path
            for end in {_last_components(name, length) for name in (path, bare) for length in lengths}:
                ends[end].add(path)
        found = {one: ends.get(str(PurePath(one)), set()) for one in self.ids if one not in predicted}
        for one, paths in found.items():
            if len(paths) > 1:
                raise ParfocalError(
                    f"{one} is asked for, and {len(paths)} images are called so: {join_limited(sorted(paths))}. "
                    "Name only the folder that is meant."
                )
        by_end = {one: predicted[path] for one, paths in found.items() for path in paths}
        return {**by_end, **predicted}


def write_submission(path: Path, table: Table, predicted: Mapping[str, int], model: str) -> None:
    """Write the answers, classes by id, for the test file that is named after the network, or else for all ids."""
    wanted = table.submission_lists.get(_find_list(model, table), tuple(predicted))
    SampleSubmission(("ID", "label"), wanted).write(path, {one: table.codes[label] for one, label in predicted.items()})


def _last_components(path: str, n_components: int) -> str:
    return str(PurePath(*PurePath(path).parts[-n_components:]))


def _find_list(model: str, table: Table) -> str:
    """Find the list meant for a network: `resnet_18_test` for `resnet18`."""
    return next((name for name in table.submission_lists if re.sub(r"_test$|[^a-z0-9]", "", name.lower()) == model), "")
