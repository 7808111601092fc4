"""patients.csv: the patient of each image, in a file next to the labels of any layout."""

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from parfocal.data.findings import Finding
from parfocal.data.group_columns import find_heading
from parfocal.data.grouping import Groups, find_groups, with_groups
from parfocal.data.layouts.sheets import read_sheet
from parfocal.data.table import Table
from parfocal.errors import ParfocalError, did_you_mean, join_limited

PATIENTS_FILES = ("patients.csv", "patient.csv")
"""The names that the file can have, the usual one first."""


def find_patients_file(folder: Path) -> Path:
    """Return the file of patients in a folder, under its usual name if there is none."""
    files = [folder / name for name in PATIENTS_FILES]
    return next((file for file in files if file.is_file()), files[0])


def group_by_patients_file(table: Table, file: Path, locations: Sequence[str], column: str = "") -> Table:
    """Return the table with the patients of a file with the columns Path and patient.

    A path is the id of an image, or its location below the data folder, with or without `./`.
    """
    groups, patients = _read_patients(file, column)
    ids = table.rows["id"].tolist()
    keys = [
        next((key for key in map(_normalize_path, pair) if key in patients), "")
        for pair in zip(ids, locations, strict=True)
    ]
    if not any(keys):
        raise ParfocalError(
            f"{file} names no image of the data: its first path is {next(iter(patients))!r}, that of the data "
            f"{ids[0]!r}. Write the paths as the data does, or delete the file."
        )
    table = with_groups(table, replace(groups, names=[patients.get(key, "") for key in keys]))
    unknown = [image_id for image_id, key in zip(ids, keys, strict=True) if not key]
    unused = [path for path in patients if path not in set(keys)]
    if unknown or unused:
        message = (
            f"{file}: {len(unknown)} of {len(ids)} images have no row{_parenthesize(unknown)}, and {len(unused)} of "
            f"{len(patients)} rows name no image{_parenthesize(unused)}."
        )
        others = tuple(finding for finding in table.findings if finding.code != "missing_patients")
        remedy = "Add the missing rows. Each image without a row is a separate group." if unknown else ""
        finding = Finding("warning", "missing_patients", message, tuple(unknown), remedy)
        table = replace(table, findings=(*others, finding))
    return table


def _parenthesize(names: Sequence[str]) -> str:
    return f" ({join_limited(names)})" if names else ""


def find_path_column(names: Iterable[str]) -> str | None:
    """Return the column of the paths of the images, or None."""
    return next((name for name in names if name.strip().lower() in ("path", "image", "file", "filename")), None)


def _read_patients(file: Path, column: str) -> tuple[Groups, dict[str, str]]:
    """Return the groups of the rows of a file, and the name of the group by path."""
    rows = read_sheet(file)
    path_column = find_path_column(rows.columns)
    if path_column is None:
        raise ParfocalError(f"{file} has no column 'Path'. The first line must be Path,patient.")
    if column and column not in rows.columns:
        raise ParfocalError(f"{file} has no column {column!r} (columns.group). {did_you_mean(column, rows.columns)}")
    named = [name for name in rows.columns if name != path_column and find_heading(name)]
    groups = find_groups(rows, {path_column}, column or next(iter(named), ""))
    if groups is None:
        raise ParfocalError(f"{file} has no column of patients. The first line must be Path,patient.")
    patients: dict[str, str] = {}
    for line, (path, name) in enumerate(zip(rows[path_column], groups.names, strict=True), start=2):
        key = _normalize_path(path)
        if patients.setdefault(key, name) != name:
            raise ParfocalError(
                f"{file}, line {line}: {path} has the patient {name!r}, but {patients[key]!r} in an earlier line. "
                "Keep the right line."
            )
    return replace(groups, origin=f"{groups.origin} of {file.name}"), patients


def _normalize_path(path: str) -> str:
    return posixpath.normpath(path.strip().replace("\\", "/"))
