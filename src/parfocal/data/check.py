"""Finding a data set's faults before an hour is spent on it: each with the rows and the way to mend or waive it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from parfocal.data.arrays import file_of
from parfocal.data.store import examine
from parfocal.data.table import UNKNOWN, Table
from parfocal.errors import ParfocalError, listing
from parfocal.recipe import WAIVERS, ImagesPart

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One fault or fact: its code, what it says, the ids it is about, and what to do."""

    severity: Severity
    code: str
    text: str
    ids: tuple[str, ...] = ()
    mend: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def check(table: Table, images: ImagesPart | None = None) -> list[Finding]:
    """Find every fault of a table and its images, in one pass over the files."""
    return [*check_table(table), *check_pixels(table, examine(table, images or ImagesPart()))]


def check_table(table: Table) -> list[Finding]:
    """Judge what the label files alone can show: missing files, doubled rows, patients, splits and classes."""
    return [*_missing(table), *_doubled(table), *_patients(table), *_splits(table), *_classes(table)]


def check_pixels(table: Table, index: pd.DataFrame) -> list[Finding]:
    """Judge what decoding shows, from a Store's index: unreadable files and identical images."""
    facts = table.rows.merge(index, on="path", how="left")
    bad = facts[facts["error"] != ""]
    findings: list[Finding] = []
    if len(bad):
        reasons = [f"{one} ({reason})" for one, reason in zip(bad["path"], bad["error"], strict=True)]
        text = f"{len(bad)} of {len(table)} images cannot be read: {listing(reasons)}."
        findings.append(_fault("unreadable_images", text, bad["id"], "Replace the files"))
    return findings + _identical(facts[facts["error"] == ""])


def waived(findings: list[Finding], allow: tuple[str, ...]) -> list[Finding]:
    """Return the findings with those accepted knowingly turned from errors to warnings that say so."""
    return [
        Finding("warning", one.code, f"{one.text} Waived by allow={one.code}.", one.ids)
        if one.severity == "error" and one.code in allow
        else one
        for one in findings
    ]


def refuse(findings: list[Finding]) -> None:
    """Raise one error that lists every finding that training must not start with."""
    errors = [one for one in findings if one.severity == "error"]
    if errors:
        raise ParfocalError("\n".join(f"{one.text} {one.mend}" for one in errors))


def _fault(code: str, text: str, ids: pd.Series | list[str], mend: str) -> Finding:
    waiver = f", or accept it with allow={code}." if code in WAIVERS else "."
    return Finding("error", code, text, tuple(ids), mend + waiver)


def _missing(table: Table) -> list[Finding]:
    gone = [not file_of(path).is_file() for path in table.rows["path"]]
    if not any(gone):
        return []
    rows = table.rows[gone]
    text = f"{len(rows)} of {len(table)} images are missing: {listing(rows['path'])}."
    return [_fault("missing_files", text, rows["id"], "Put the files there, or take the rows out")]


def _doubled(table: Table) -> list[Finding]:
    rows = table.rows[table.rows.duplicated("id", keep=False)]
    if rows.empty:
        return []
    names = rows["id"].unique()
    text = f"{len(names)} images stand in more than one row: {listing(names)}."
    return [_fault("duplicate_rows", text, list(names), "Keep one row of each")]


def _patients(table: Table) -> list[Finding]:
    spread = table.rows.groupby("group")["split"].nunique()
    both = spread[spread > 1].index
    if len(both) == 0:
        return []
    rows = table.rows[table.rows["group"].isin(both)]
    text = f"{len(both)} patients are in more than one split: {listing(both)}."
    return [_fault("patient_overlap", text, rows["id"], "Give every patient one split")]


def _splits(table: Table) -> list[Finding]:
    findings: list[Finding] = []
    for split in ("train", "valid"):
        if split not in table.splits:
            findings.append(_fault("empty_split", f"The {split} split of {table.source} is empty.", [], "Fill it"))
        elif not table.labelled(split):
            rows = table.rows[(table.rows["split"] == split) & (table.rows["label"] == UNKNOWN)]
            text = f"{len(rows)} rows of {split} have no label: {listing(rows['id'])}."
            findings.append(_fault("unlabelled_rows", text, rows["id"], "Label them, or take them out"))
    if "test" in table.splits and not table.labelled("test"):
        findings.append(
            Finding("note", "unlabelled_test", "The test split has no labels; it is predicted, not judged.")
        )
    return findings


def _classes(table: Table) -> list[Finding]:
    findings: list[Finding] = []
    for split in table.splits:
        if not table.labelled(split):
            continue
        counts = table.counts(split)
        absent = [name for name, count in counts.items() if count == 0]
        if len(absent) >= len(counts) - 1 and split == "train":
            findings.append(_fault("one_class", "The train split has one class only.", [], "Give it at least two"))
        elif absent:
            text = f"The {split} split has no image of {listing(absent)}."
            findings.append(Finding("warning", "class_absent", text))
        largest = max(counts, key=lambda name: counts[name])
        share = counts[largest] / sum(counts.values())
        text = f"{split}: {', '.join(f'{count} {name}' for name, count in counts.items())}; always saying "
        findings.append(Finding("note", "class_counts", f"{text}{largest!r} is right in {share:.1%}."))
    return findings


def _identical(facts: pd.DataFrame) -> list[Finding]:
    """Report files with equal pixels: with labels that differ, on two sides of a split, or merely twice."""
    alike = facts[facts.duplicated("digest", keep=False) & ~facts.duplicated("id", keep=False)]
    if alike.empty:
        return []
    groups = alike[alike["label"] != UNKNOWN].groupby("digest")
    torn = groups["label"].nunique()
    across = alike.groupby("digest")["split"].nunique()
    findings: list[Finding] = []
    for code, digests, what, mend in (
        ("conflicting_labels", torn[torn > 1].index, "carry different labels", "Settle the label"),
        (
            "identical_across_splits",
            across[across > 1].index,
            "are in more than one split",
            "Keep one of each",
        ),
    ):
        rows = alike[alike["digest"].isin(digests)]
        if len(rows):
            sets = [" = ".join(same["id"]) for _, same in rows.groupby("digest", sort=False)]
            text = f"{len(sets)} sets of identical images {what}: {listing(sets)}."
            findings.append(_fault(code, text, rows["id"], mend))
    within = np.setdiff1d(alike["digest"].unique(), across[across > 1].index)
    if len(within):
        rows = alike[alike["digest"].isin(within)]
        text = f"{len(within)} sets of identical images lie within one split: {listing(rows['id'])}."
        findings.append(Finding("warning", "identical_within_split", text, tuple(rows["id"])))
    return findings
