"""Decide the groups of a table: which images belong to the same patient, how that is known, and what is unknown."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from parfocal.data.findings import Finding
from parfocal.data.group_columns import find_group_columns, find_heading, list_repeated_columns, normalize_name
from parfocal.data.table import Table
from parfocal.errors import join_limited
from parfocal.groups import SINGULAR, GroupKind

GROUP_CODES = ("no_patients", "narrow_groups", "missing_patients", "patient_spelling", "patients_ignored")
"""The codes of the findings on groups."""

PERSONS: tuple[GroupKind, ...] = ("patients", "animals")
"""The kinds of groups that hold all images of a person, or of an animal."""


@dataclass(frozen=True)
class Groups:
    """The name of each row's group as the data writes it, what the groups are, and where the names come from.

    `column` is the column of a sheet that names them, if there is one. `is_narrow`: a patient can have more than 1 of
    these groups. `is_broad`: such a group holds many patients, as a hospital does.
    """

    names: Sequence[str]
    kind: GroupKind
    origin: str
    is_narrow: bool = False
    column: str = ""
    is_broad: bool = False


def find_groups(rows: pd.DataFrame, used: Collection[str], column: str = "") -> Groups | None:
    """Return the groups that a column of a sheet names; `column` is the recipe's choice, else headings decide.

    A column that the recipe names is taken for patients, unless its heading says something else.
    """
    if column:
        heading = find_heading(column)
        kind = heading.kind if heading else "patients"
        is_narrow = bool(heading and heading.is_narrow)
        return Groups(rows[column].tolist(), kind, f"column {column!r}", is_narrow, column)
    for found in find_group_columns(rows, used)[:1]:
        heading = found.heading
        origin = f"column {found.name!r}"
        return Groups(rows[found.name].tolist(), heading.kind, origin, heading.is_narrow, found.name, heading.is_broad)
    return None


def group_by_sheet(table: Table, rows: pd.DataFrame, used: Collection[str], column: str = "") -> Table:
    """Return the table with the groups that a column of its sheet names, if there is such a column.

    Families and hospitals are not taken if the splits of the data divide them. The table also lists the columns that
    may be the patient's.
    """
    groups = find_groups(rows, used, column)
    if groups and not (groups.is_broad and _are_divided(groups.names, table.rows["split"].tolist())):
        table = with_groups(table, groups)
    return replace(table, repeated_columns=list_repeated_columns(rows, used))


def _are_divided(names: Sequence[str], splits: Sequence[str]) -> bool:
    """Return whether a group has rows in more than 1 split."""
    pairs = {(normalize_name(name), split) for name, split in zip(names, splits, strict=True)}
    return len({name for name, _ in pairs}) < len(pairs)


def with_groups(table: Table, groups: Groups) -> Table:
    """Return the table with these groups, and with findings on what they leave unknown.

    Spellings that differ in case, spaces, leading zeros or `.0` are the same group. A row without a name is a separate
    group. Names that differ in every row say nothing about groups: each image is then a group.
    """
    keys = [normalize_name(name) for name in groups.names]
    known = [key for key in keys if key]
    findings = tuple(finding for finding in table.findings if finding.code not in GROUP_CODES)
    if len(set(known)) == len(known):
        origin = f"{groups.origin} has a different value in each row" if known else ""
        names = table.rows["id"].tolist()
        return replace(
            table, rows=table.rows.assign(group=names), groups_are="images", groups_from=origin, findings=findings
        )
    spellings: dict[str, dict[str, None]] = defaultdict(dict)
    for key, name in zip(keys, groups.names, strict=True):
        spellings[key][name] = None
    labels = {key: _get_label(key, next(iter(names))) for key, names in spellings.items() if key}
    taken = set(labels.values())
    ids = table.rows["id"].tolist()
    # An id can be equal to the name of a patient, of whom it may not be.
    separate = [f"image {image_id}" if image_id in taken else image_id for image_id in ids]
    names = [labels[key] if key else image for key, image in zip(keys, separate, strict=True)]
    missing = [image_id for image_id, key in zip(ids, keys, strict=True) if not key]
    findings += tuple(_find_faults(groups, spellings, labels, missing, len(ids)))
    return replace(
        table,
        rows=table.rows.assign(group=names),
        groups_are=groups.kind,
        groups_from=groups.origin,
        findings=findings,
    )


def _get_label(key: str, first_spelling: str) -> str:
    """Return the name of a group as it is written first, but whole numbers without `.0`."""
    text = first_spelling.strip()
    return key if text.endswith(".0") and key.isdecimal() else text


def _find_faults(
    groups: Groups, spellings: dict[str, dict[str, None]], labels: dict[str, str], missing: list[str], n_rows: int
) -> list[Finding]:
    """Find rows without a group, groups that are written in different ways, and groups smaller than a patient."""
    name = SINGULAR[groups.kind]
    findings: list[Finding] = []
    if missing:
        message = (
            f"{len(missing)} of {n_rows} rows have no {name} ({groups.origin}): {join_limited(missing)}. Each is a "
            f"separate group, so images of one {name} can be on both sides of a split."
        )
        findings.append(Finding("warning", "missing_patients", message, tuple(missing), f"Add the {name} of each row."))
    varied = [" = ".join(map(repr, names)) for key, names in spellings.items() if key in labels and len(names) > 1]
    if varied:
        message = f"{len(varied)} {groups.kind} are written in more than one way: {join_limited(varied)}."
        remedy = f"Each is taken as one {name}. If they are different, rename them."
        findings.append(Finding("warning", "patient_spelling", message, (), remedy))
    if groups.is_narrow:
        message = (
            f"The groups are {groups.kind} ({groups.origin}), and no patient is known. A patient can have more than "
            "one of them, on both sides of a split."
        )
        remedy = "Add a column of the patient, or name it with columns.group."
        findings.append(Finding("warning", "narrow_groups", message, (), remedy))
    return findings


def ignore_groups(table: Table) -> Table:
    """Return the table with each image as a group, as split.by=image asks, and a finding on what that means."""
    findings = tuple(finding for finding in table.findings if finding.code not in GROUP_CODES)
    if table.groups_are == "images":
        message = "No patient is known, and each image is split by itself, as split.by=image accepts."
        finding = Finding("note", "no_patients", message)
    else:
        n_shared = sum(size > 1 for size in Counter(table.rows["group"]).values())
        message = (
            f"split.by=image ignores the {table.groups_are} of the data ({table.groups_from}). Images of one "
            f"{SINGULAR[table.groups_are]} can be on both sides of a split: {n_shared} have more than one image."
        )
        finding = Finding("warning", "patients_ignored", message, (), "Set split.by=patient for honest results.")
    rows = table.rows.assign(group=table.rows["id"])
    return replace(table, rows=rows, groups_are="images", groups_from="split.by=image", findings=(*findings, finding))


def warn_of_images(table: Table, patterns: Sequence[str]) -> Table:
    """Return the table with the warning that no patient is known, and with the remedies that this data offers.

    `patterns` say how to set columns.group_from, where the names of the files look like those of patients.
    """
    origin = f" ({table.groups_from})" if table.groups_from else ""
    message = (
        f"No patient is known{origin}. Each of the {len(table)} images is split by itself, so images of one patient "
        "may be on both sides, and every result is then too optimistic."
    )
    remedies = list(patterns)
    if table.repeated_columns:
        names = ", ".join(map(repr, table.repeated_columns))
        remedies.append(f"If a column names the patient, set columns.group=…; columns with repeated values: {names}.")
    elif not patterns:
        remedies.append("Name the patient in a column of the label file or in patients.csv (Path,patient).")
    remedies.append("If each image is of another patient, accept this with split.by=image.")
    finding = Finding("warning", "no_patients", message, (), " ".join(remedies))
    return replace(table, findings=(*table.findings, finding))


def describe_groups(table: Table) -> str:
    """Say what the groups of a table are, and by what they are known: `35 patients (column 'PatientID')`."""
    if table.groups_are == "images":
        reason = table.groups_from or "no patient is known"
        return f"Groups: each image by itself ({reason})."
    return f"Groups: {count_groups(table.rows['group'].nunique(), table.groups_are)} ({table.groups_from})."


def count_groups(number: int, kind: GroupKind) -> str:
    """Return a number of groups in words: `1 patient`, `35 patients`."""
    return f"{number} {SINGULAR[kind] if number == 1 else kind}"
