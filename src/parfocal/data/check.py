"""Finding a data set's faults before an hour is spent on it: each with the rows and the way to mend or waive it."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from parfocal.data.arrays import file_of
from parfocal.data.check_images import check_looks, check_pixels, identical
from parfocal.data.examine import examine
from parfocal.data.finding import Finding, fault, gravest_first, left_out
from parfocal.data.layouts.places import images_below
from parfocal.data.table import UNKNOWN, Table
from parfocal.errors import listing
from parfocal.parts import ImagesPart

_UNEVEN = 0.6
"""From this share of the largest class on, it is said what accuracy would mean."""


def check(table: Table, images: ImagesPart | None = None, seed: int = 0) -> list[Finding]:
    """Find every fault of a table and its images, in one pass over the files; the gravest first."""
    findings = [*check_table(table), *_unnamed(table)]
    there = left_out(table, findings, "missing_files")
    if len(there):
        examined = examine(there, images or ImagesPart())
        findings += [*check_pixels(there, examined.index), *check_looks(there, examined, seed)]
    return gravest_first(findings)


def check_table(table: Table) -> list[Finding]:
    """Judge what the label files alone can show: missing files, doubled rows, patients, splits and classes."""
    gone = table.rows[np.array([not file_of(path).is_file() for path in table.rows["path"]], dtype=bool)]
    findings = [*_missing(table, gone), *_doubled(table), *_patients(table), *_splits(table), *_classes(table)]
    # Digests that the labels bring, of images that are not there to be compared themselves.
    return [*findings, *identical(gone)]


def _missing(table: Table, gone: pd.DataFrame) -> list[Finding]:
    if gone.empty:
        return []
    text = f"{len(gone)} of {len(table)} images are missing: {listing(gone['path'])}."
    return [fault("missing_files", text, gone["id"], "Put the files there, or take the rows out")]


def _doubled(table: Table) -> list[Finding]:
    rows = table.rows[table.rows.duplicated("id", keep=False)]
    if rows.empty:
        return []
    names = rows["id"].unique()
    text = f"{len(names)} images stand in more than one row: {listing(names)}."
    return [fault("duplicate_rows", text, list(names), "Keep one row of each")]


def _patients(table: Table) -> list[Finding]:
    spread = table.rows.groupby("group")["split"].nunique()
    both = spread[spread > 1].index
    if len(both) == 0:
        return []
    rows = table.rows[table.rows["group"].isin(both)]
    text = f"{len(both)} patients are in more than one split: {listing(both)}."
    return [fault("patient_overlap", text, rows["id"], "Give every patient one split")]


def _splits(table: Table) -> list[Finding]:
    findings: list[Finding] = []
    for split in ("train", "valid"):
        if split not in table.splits:
            findings.append(fault("empty_split", f"The {split} split of {table.source} is empty.", [], "Fill it"))
        elif not table.labelled(split):
            rows = table.rows[(table.rows["split"] == split) & (table.rows["label"] == UNKNOWN)]
            text = f"{len(rows)} rows of {split} have no label: {listing(rows['id'])}."
            findings.append(fault("unlabelled_rows", text, rows["id"], "Label them, or take them out"))
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
            findings.append(fault("one_class", "The train split has one class only.", [], "Give it at least two"))
        elif absent:
            text = f"The {split} split has no image of {listing(absent)}."
            findings.append(Finding("warning", "class_absent", text))
        largest = max(counts, key=lambda name: counts[name])
        share = counts[largest] / sum(counts.values())
        text = f"{split}: {', '.join(f'{count} {name}' for name, count in counts.items())}; always saying "
        text += f"{largest!r} is right in {share:.1%}"
        uneven = share >= _UNEVEN
        text += ", so that is what an accuracy of as much would mean; look at balanced accuracy." if uneven else "."
        findings.append(Finding("note", "class_counts", text))
    return findings


def _unnamed(table: Table) -> list[Finding]:
    """Find images beside the named ones that no row names."""
    named = {str(file_of(path)) for path in table.rows["path"]}
    if any(path.endswith(".npz") for path in named):
        return []
    folder = os.path.commonpath([Path(path).parent for path in named])
    if not folder or not Path(folder).is_dir():
        return []
    others = [str(path) for path in images_below(Path(folder)) if str(path) not in named]
    if not others:
        return []
    text = f"{len(others)} images below {folder} are named by no row: {listing(others)}."
    return [Finding("note", "unnamed_files", text, tuple(others), "Nothing is done with them.")]
