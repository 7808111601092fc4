"""Competition submissions: a CSV with exactly the ids of a sample submission, in their order."""

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
    """The names of the two columns of a sample submission, and its ids in their order."""

    columns: tuple[str, str]
    ids: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a sample submission, such as a CSV with the columns `ID,label`."""
        rows = read_sheet(path)
        if rows.shape[1] < 2:
            raise ParfocalError(f"{path} has one column. A sample submission has two, such as ID,label.")
        ids = rows.iloc[:, 0]
        duplicates = ids[ids.duplicated()]
        if len(duplicates):
            raise ParfocalError(f"{path} contains the id {join_limited(duplicates.unique())} more than once.")
        return cls((str(rows.columns[0]), str(rows.columns[1])), tuple(ids))

    def write(self, path: Path, predicted: Mapping[str, str], unreadable: Mapping[str, str] | None = None) -> None:
        """Write the predicted code of each id; raise an error that lists the ids without a prediction, if any."""
        missing = [name for name in self.ids if name not in predicted]
        if missing:
            reasons = [f"{name} ({reason})" for name, reason in (unreadable or {}).items()]
            unreadable_text = f" Images that cannot be read: {join_limited(reasons)}." if reasons else ""
            raise ParfocalError(
                f"{len(missing)} ids of the submission have no prediction: {join_limited(missing)}.{unreadable_text}"
            )
        with atomic_write(path) as temporary:
            codes = [predicted[name] for name in self.ids]
            pd.DataFrame(dict(zip(self.columns, (self.ids, codes), strict=True))).to_csv(temporary, index=False)

    def match_files(self, predicted: Mapping[str, str]) -> dict[str, str]:
        """Return the predicted codes by id, also for ids that are the end of a path, with or without the suffix.

        The id `test/3` matches `cells/test/3.bmp`. If two paths end in the same id, an error is raised.
        """
        n_components = {len(PurePath(name).parts) for name in self.ids}
        paths_by_end: dict[str, set[str]] = defaultdict(set)
        for path in predicted:
            suffix = PurePath(path).suffix
            stem = path[: -len(suffix)] if suffix.lower() in IMAGE_SUFFIXES else path
            for name in {path, stem}:
                for length in n_components:
                    paths_by_end[str(PurePath(*PurePath(name).parts[-length:]))].add(path)
        matches: dict[str, str] = {}
        for name in self.ids:
            paths = paths_by_end.get(str(PurePath(name)), set()) if name not in predicted else set()
            if len(paths) > 1:
                raise ParfocalError(
                    f"The id {name} matches {len(paths)} images: {join_limited(sorted(paths))}. "
                    "Predict only the folder that is meant."
                )
            for path in paths:
                matches[name] = predicted[path]
        return {**matches, **predicted}


def write_submission(path: Path, table: Table, predicted: Mapping[str, int], model: str) -> None:
    """Write the predicted classes for the test list of a network, or for all ids if the data has no list for it.

    The list `resnet_18_test` is for the model `resnet18`.
    """
    ids = tuple(predicted)
    for name, listed in table.submission_lists.items():
        if re.sub(r"_test$|[^a-z0-9]", "", name.lower()) == model:
            ids = listed
            break
    SampleSubmission(("ID", "label"), ids).write(path, {name: table.codes[label] for name, label in predicted.items()})
