"""Submissions as competitions want them: the rows that were asked for, in their order, and none missing."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Self

import pandas as pd

from parfocal.data.layouts.places import IMAGE_SUFFIXES
from parfocal.data.layouts.sheets import sheet
from parfocal.data.table import Table
from parfocal.errors import ParfocalError, listing
from parfocal.files import whole


@dataclass(frozen=True)
class Sample:
    """A sample submission: what its two columns are called, and which ids it asks for, in their order."""

    columns: tuple[str, str]
    ids: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a sample submission, such as `ID,label`."""
        rows = sheet(path)
        if rows.shape[1] < 2:
            raise ParfocalError(f"{path} has one column; a sample submission has two, such as ID,label.")
        doubled = rows.iloc[:, 0][rows.iloc[:, 0].duplicated()]
        if len(doubled):
            raise ParfocalError(f"{path} asks more than once for {listing(doubled.unique())}.")
        return cls((str(rows.columns[0]), str(rows.columns[1])), tuple(rows.iloc[:, 0]))

    def write(self, path: Path, answers: Mapping[str, str], unreadable: Mapping[str, str] | None = None) -> None:
        """Write the answer of each id, which are all of those asked for; say which are missing otherwise."""
        missing = [one for one in self.ids if one not in answers]
        if missing:
            reasons = [f"{one} ({reason})" for one, reason in (unreadable or {}).items()]
            unread = f" Images that cannot be read: {listing(reasons)}." if reasons else ""
            raise ParfocalError(
                f"{len(missing)} ids that are asked for have no prediction: {listing(missing)}.{unread}"
            )
        with whole(path) as beside:
            labels = [answers[one] for one in self.ids]
            pd.DataFrame(dict(zip(self.columns, (self.ids, labels), strict=True))).to_csv(beside, index=False)

    def of_files(self, answers: Mapping[str, str]) -> dict[str, str]:
        """Return the answers for files by the ids they are asked for: the end of a path, with or without the suffix.

        `test/3` is asked of `cells/test/3.bmp`; where another file's path ends so too, that is an error.
        """
        lengths = {len(PurePath(one).parts) for one in self.ids}
        ends: dict[str, set[str]] = defaultdict(set)
        for path in answers:
            bare = path[: -len(PurePath(path).suffix)] if PurePath(path).suffix.lower() in IMAGE_SUFFIXES else path
            for end in {_end(name, length) for name in (path, bare) for length in lengths}:
                ends[end].add(path)
        found = {one: ends.get(str(PurePath(one)), set()) for one in self.ids if one not in answers}
        for one, paths in found.items():
            if len(paths) > 1:
                raise ParfocalError(
                    f"{one} is asked for, and {len(paths)} images are called so: {listing(sorted(paths))}. "
                    "Name only the folder that is meant."
                )
        by_end = {one: answers[path] for one, paths in found.items() for path in paths}
        return {**by_end, **answers}


def write_submission(path: Path, table: Table, answers: Mapping[str, int], model: str) -> None:
    """Write the answers, classes by id, for the test file that is named after the network, or else for all ids."""
    wanted = table.lists.get(_list_for(model, table), tuple(answers))
    Sample(("ID", "label"), wanted).write(path, {one: table.codes[label] for one, label in answers.items()})


def _end(path: str, length: int) -> str:
    return str(PurePath(*PurePath(path).parts[-length:]))


def _list_for(model: str, table: Table) -> str:
    """Find the list meant for a network: `resnet_18_test` for `resnet18`."""
    return next((name for name in table.lists if re.sub(r"_test$|[^a-z0-9]", "", name.lower()) == model), "")
