"""Looking at every image once, to judge a data set: facts, fingerprint and trivia, keeping no pixels."""
# MERGED: """What the images themselves show: unreadable and unusual, identical and alike ones, and shortcuts to the label."""
# MERGED: """Finding a data set's faults before an hour is spent on it: each with the rows and the way to mend or waive it."""
# MERGED: """Data that is ready to train on or to judge: checked, prepared, and less what its recipe leaves out knowingly."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from parfocal.data.decode import ImageInfo, build_index_row, get_container_file, read_image
from parfocal.data.findings import (
    Finding,
    Severity,
    apply_waivers,
    drop_rows,
    make_error,
    raise_errors,
    sort_by_severity,
)
from parfocal.data.layouts.image_finder import find_images
from parfocal.data.near_duplicates import find_near_duplicates, perceptual_hash
from parfocal.data.parallel import map_ordered
from parfocal.data.shortcuts import ALL_FEATURES, SHORTCUT_FEATURES, compute_shortcut_features, find_shortcuts
from parfocal.data.store import Store, prepare
from parfocal.data.table import UNKNOWN, Table
from parfocal.errors import UnreadableImageError, join_limited
from parfocal.progress import print_line
from parfocal.recipe import Recipe
from parfocal.schema import ImagesConfig


@dataclass(frozen=True)
class ImageStats:
    """What was seen, one row a file: the index of facts, fingerprints (0 for none), and trivia (NaN for none)."""

    index: pd.DataFrame
    perceptual_hashes: np.ndarray
    shortcut_features: np.ndarray


def compute_image_stats(table: Table, config: ImagesConfig, *, workers: int | None = None) -> ImageStats:
    """Decode every file of the table once and note what it shows."""
    paths = table.paths
    unknown = np.full(sum(map(len, SHORTCUT_FEATURES.values())), np.nan, np.float32)

    def look(path: str) -> tuple[ImageInfo | str, int, np.ndarray]:
        try:
            picture, facts = read_image(Path(path), config)
        except UnreadableImageError as reason:
            return str(reason), 0, unknown
        return (
            facts,
            perceptual_hash(picture),
            compute_shortcut_features(picture, facts.bytes, facts.width, facts.height),
        )

    seen = list(map_ordered(paths, look, "Checking", workers))
    index = pd.DataFrame([build_index_row(path, outcome) for path, (outcome, _, _) in zip(paths, seen, strict=True)])
    prints = np.array([one for _, one, _ in seen], dtype=np.uint64)
    return ImageStats(index, prints, np.stack([one for _, _, one in seen]))


def check_pixels(table: Table, index: pd.DataFrame) -> list[Finding]:
    """Judge what decoding shows, from an index: unreadable, unusual and identical images."""
    facts = table.rows.drop(columns="digest").merge(index, on="path", how="left")
    bad = facts[facts["error"] != ""]
    findings: list[Finding] = []
    if len(bad):
        reasons = [f"{one} ({reason})" for one, reason in zip(bad["path"], bad["error"], strict=True)]
        text = f"{len(bad)} of {len(table)} images cannot be read: {join_limited(reasons)}."
        findings.append(make_error("unreadable_images", text, bad["id"], "Replace the files"))
    good = facts[facts["error"] == ""]
    return [*findings, *find_identical_images(good), *_find_unusual_formats(good)]


def check_appearance(table: Table, stats: ImageStats, seed: int) -> list[Finding]:
    """Judge what the pictures look like: nearly identical ones, and trivia that predict the label."""
    rows = table.find_positions_in(stats.index)
    return [*_find_near_duplicates(table, stats, rows), *_find_shortcuts(table, stats.shortcut_features[rows], seed)]


def find_identical_images(records: pd.DataFrame) -> list[Finding]:
    """Report rows that share a digest: with labels that differ, on two sides of a split or fold, or merely twice."""
    doubled = records.duplicated("digest", keep=False) & ~records.duplicated("id", keep=False)
    same = records[doubled & (records["digest"] != "")]
    if same.empty:
        return []
    labels = same[same["label"] != UNKNOWN].groupby("digest")["label"].nunique()
    splits, folds = (same.groupby("digest")[side].nunique() for side in ("split", "fold"))
    torn, across = _find_repeated(labels), _find_repeated(splits)
    between = _find_repeated(folds) - across
    within = set(same["digest"]) - across - between
    findings: list[Finding] = []
    for code, digests, text, mend in (
        ("conflicting_labels", torn, "carry different labels", "Settle the label"),
        ("identical_across_splits", across, "are in more than one split", "Keep one of each"),
    ):
        if digests:
            rows, sets = _describe_sets(same, digests)
            findings.append(
                make_error(code, f"{len(sets)} sets of identical images {text}: {join_limited(sets)}.", rows, mend)
            )
    for code, digests, text in (
        ("identical_across_folds", between, "are in more than one fold"),
        ("identical_within_split", within, "lie within one split"),
    ):
        if digests:
            rows, sets = _describe_sets(same, digests)
            text = f"{len(sets)} sets of identical images {text}: {join_limited(sets)}."
            findings.append(Finding("warning", code, text, tuple(rows)))
    return findings


def _find_repeated(counts: pd.Series) -> set[str]:
    return {str(digest) for digest, count in counts.items() if count > 1}


def _describe_sets(records: pd.DataFrame, digests: set[str]) -> tuple[Iterable[str], list[str]]:
    """Return the ids of all rows with these digests, and each set in words."""
    rows = records[records["digest"].isin(digests)]
    return rows["id"], [" = ".join(one["id"]) for _, one in rows.groupby("digest", sort=False)]


def _find_unusual_formats(records: pd.DataFrame) -> list[Finding]:
    """Count what is not plain 8-bit RGB; all of it is read, so it is only told."""
    kinds = Counter(note for notes in records["notes"] for note in str(notes).split())
    if not kinds:
        return []
    text = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    rows = records[records["notes"] != ""]
    return [Finding("note", "unusual_images", f"Read and brought to 8-bit RGB: {text}.", tuple(rows["id"]))]


def _find_near_duplicates(table: Table, stats: ImageStats, rows: np.ndarray) -> list[Finding]:
    """Report sets of images that look nearly the same and are not identical."""
    ids, splits = table.rows["id"].to_numpy(), table.rows["split"].to_numpy()
    digests = stats.index["digest"].to_numpy()[rows]
    across: list[np.ndarray] = []
    within: list[np.ndarray] = []
    for one in find_near_duplicates(stats.perceptual_hashes[rows]):
        if len(set(digests[one])) > 1:
            (across if len(set(splits[one])) > 1 else within).append(one)
    findings: list[Finding] = []
    kinds: tuple[tuple[Severity, str, list[np.ndarray], str], ...] = (
        ("warning", "alike_across_splits", across, "are in more than one split; look whether they are the same"),
        ("note", "alike_within_split", within, "lie within one split"),
    )
    for severity, code, sets, text in kinds:
        if sets:
            words = [" ≈ ".join(map(str, ids[one])) for one in sets]
            all_rows = np.concatenate(sets)
            text = f"{len(sets)} sets of images that look nearly the same {text}: {join_limited(words)}."
            findings.append(Finding(severity, code, text, tuple(ids[all_rows])))
    return findings


def _find_shortcuts(table: Table, features: np.ndarray, seed: int) -> list[Finding]:
    """Warn where something beside the content predicts the label of patients that were not seen."""
    found = find_shortcuts(features, table.rows["label"].to_numpy(), table.rows["group"].to_numpy(), seed)
    if not found:
        return []
    clear = sorted((one for one in found if one.is_clear), key=lambda one: -one.balanced_accuracy)
    told = clear or [one for one in found if one.kind == ALL_FEATURES]
    kinds = "; ".join(f"{one.kind} {one.accuracy:.0%} (balanced {one.balanced_accuracy:.0%})" for one in told)
    text = (
        f"a linear model that sees nothing else names the class of groups it has not seen with accuracy {kinds}. "
        f"The largest class is {told[0].majority_accuracy:.0%}, chance {told[0].chance_level:.0%}."
    )
    if not clear:
        return [Finding("note", "no_shortcut", f"No clear shortcut to the label: {text}")]
    mend = "A network may learn this instead of the disease; look where it looks."
    return [Finding("warning", "shortcut", f"Shortcuts to the label: {text}", (), mend)]


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


@dataclass(frozen=True)
class PreparedData:
    """Data that is ready: its rows, its pixels, and what was found on the way."""

    table: Table
    store: Store
    findings: tuple[Finding, ...]


def check_and_prepare(table: Table, recipe: Recipe) -> PreparedData:
    """Check and prepare a table; refuse faults that the recipe does not waive, and leave out what it waives."""
    allow = recipe.data.allow
    findings = apply_waivers(check_table(table), allow)
    raise_errors(findings)
    table = _drop_waived_rows(table, findings, "missing_files", allow)
    store = prepare(table, recipe.images)
    seen = apply_waivers(check_pixels(table, store.index), allow)
    raise_errors(seen)
    table = _drop_waived_rows(table, seen, "unreadable_images", allow)
    findings += seen
    for one in findings:
        if one.severity == "warning":
            print_line(f"Warning: {one.message}")
    return PreparedData(table, store, tuple(findings))


def _drop_waived_rows(table: Table, findings: list[Finding], code: str, allow: tuple[str, ...]) -> Table:
    """Leave out the rows of waived findings; refuse what remains if it lacks a split, or all classes but one."""
    rest = drop_rows(table, findings, code)
    if len(rest) < len(table):
        raise_errors(apply_waivers(check_table(rest), allow))
    return rest
