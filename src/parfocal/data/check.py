"""Finding a data set's faults before an hour is spent on it: each with the rows and the way to mend or waive it."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from parfocal.data.arrays import get_container_file
from parfocal.data.check_images import check_appearance, check_pixels, find_identical_images
from parfocal.data.examine import compute_image_stats
from parfocal.data.finding import Finding, drop_rows, make_error, sort_by_severity
from parfocal.data.layouts.places import find_images
from parfocal.data.table import UNKNOWN, Table
from parfocal.errors import join_limited
from parfocal.parts import ImagesConfig

_MIN_MAJORITY_SHARE = 0.6
"""From this share of the largest class on, it is said what accuracy would mean."""


def check(table: Table, config: ImagesConfig | None = None, seed: int = 0) -> list[Finding]:
    """Find every fault of a table and its images, in one pass over the files; the gravest first."""
    findings = [*check_table(table), *_find_unlisted_files(table)]
    there = drop_rows(table, findings, "missing_files")
    if len(there):
        examined = compute_image_stats(there, config or ImagesConfig())
        findings += [*check_pixels(there, examined.index), *check_appearance(there, examined, seed)]
    return sort_by_severity(findings)


def check_table(table: Table) -> list[Finding]:
    """Judge what the label files alone can show: missing files, doubled rows, patients, splits and classes."""
    gone = table.rows[np.array([not get_container_file(path).is_file() for path in table.rows["path"]], dtype=bool)]
    findings = [
        *_find_missing_files(table, gone),
        *_find_duplicate_rows(table),
        *_find_patient_overlap(table),
        *_check_splits(table),
        *_check_classes(table),
    ]
    # Digests that the labels bring, of images that are not there to be compared themselves.
    return [*findings, *find_identical_images(gone)]


def _find_missing_files(table: Table, missing: pd.DataFrame) -> list[Finding]:
    if missing.empty:
        return []
    text = f"{len(missing)} of {len(table)} images are missing: {join_limited(missing['path'])}."
    return [make_error("missing_files", text, missing["id"], "Put the files there, or take the rows out")]


def _find_duplicate_rows(table: Table) -> list[Finding]:
    rows = table.rows[table.rows.duplicated("id", keep=False)]
    if rows.empty:
        return []
    names = rows["id"].unique()
    text = f"{len(names)} images stand in more than one row: {join_limited(names)}."
    return [make_error("duplicate_rows", text, list(names), "Keep one row of each")]


def _find_patient_overlap(table: Table) -> list[Finding]:
    spread = table.rows.groupby("group")["split"].nunique()
    both = spread[spread > 1].index
    if len(both) == 0:
        return []
    rows = table.rows[table.rows["group"].isin(both)]
    text = f"{len(both)} patients are in more than one split: {join_limited(both)}."
    return [make_error("patient_overlap", text, rows["id"], "Give every patient one split")]


def _check_splits(table: Table) -> list[Finding]:
    findings: list[Finding] = []
    for split in ("train", "valid"):
        if split not in table.splits:
            findings.append(make_error("empty_split", f"The {split} split of {table.source} is empty.", [], "Fill it"))
        elif not table.is_labeled(split):
            rows = table.rows[(table.rows["split"] == split) & (table.rows["label"] == UNKNOWN)]
            text = f"{len(rows)} rows of {split} have no label: {join_limited(rows['id'])}."
            findings.append(make_error("unlabelled_rows", text, rows["id"], "Label them, or take them out"))
    if "test" in table.splits and not table.is_labeled("test"):
        findings.append(
            Finding("note", "unlabelled_test", "The test split has no labels; it is predicted, not judged.")
        )
    return findings


def _check_classes(table: Table) -> list[Finding]:
    findings: list[Finding] = []
    for split in table.splits:
        if not table.is_labeled(split):
            continue
        counts = table.count_classes(split)
        absent = [name for name, count in counts.items() if count == 0]
        if len(absent) >= len(counts) - 1 and split == "train":
            findings.append(make_error("one_class", "The train split has one class only.", [], "Give it at least two"))
        elif absent:
            text = f"The {split} split has no image of {join_limited(absent)}."
            findings.append(Finding("warning", "class_absent", text))
        largest = max(counts, key=lambda name: counts[name])
        share = counts[largest] / sum(counts.values())
        text = f"{split}: {', '.join(f'{count} {name}' for name, count in counts.items())}; always saying "
        text += f"{largest!r} is right in {share:.1%}"
        uneven = share >= _MIN_MAJORITY_SHARE
        text += ", so that is what an accuracy of as much would mean; look at balanced accuracy." if uneven else "."
        findings.append(Finding("note", "class_counts", text))
    return findings


def _find_unlisted_files(table: Table) -> list[Finding]:
    """Find images beside the named ones that no row names."""
    named = {str(get_container_file(path)) for path in table.rows["path"]}
    if any(path.endswith(".npz") for path in named):
        return []
    folder = os.path.commonpath([Path(path).parent for path in named])
    if not folder or not Path(folder).is_dir():
        return []
    others = [str(path) for path in find_images(Path(folder)) if str(path) not in named]
    if not others:
        return []
    text = f"{len(others)} images below {folder} are named by no row: {join_limited(others)}."
    return [Finding("note", "unnamed_files", text, tuple(others), "Nothing is done with them.")]
