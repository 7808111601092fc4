"""Checks of a data set: everything that is wrong with its labels and images, found before training starts.

A Finding is an error, a warning or a note. `check` looks at the labels and decodes every image; `check_and_prepare` is
what training and evaluation do with their data: check it, prepare the Store, and leave out what the recipe accepts as
faulty.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from parfocal.data.class_names import check_class_names
from parfocal.data.decode import ImageInfo, build_index_row, get_container_file, open_image
from parfocal.data.findings import SEVERITIES, Finding, Severity, make_error
from parfocal.data.labels import MISSING_WORDS
from parfocal.data.layouts.image_finder import find_images, is_existing_file
from parfocal.data.near_duplicates import N_COEFFICIENTS, compute_descriptor, find_near_duplicates
from parfocal.data.parallel import catch_unreadable, map_ordered
from parfocal.data.shortcuts import ALL_FEATURES, SHORTCUT_FEATURES, compute_shortcut_features, find_shortcuts
from parfocal.data.store import Store, prepare
from parfocal.data.table import UNKNOWN, Table
from parfocal.errors import ParfocalError, join_limited
from parfocal.groups import SINGULAR
from parfocal.progress import print_warning
from parfocal.recipe import Recipe
from parfocal.recipe_schema import ImagesConfig

_MIN_MAJORITY_SHARE = 0.6
"""Accuracy is misleading, and the note on the classes says so, if the largest class has at least this share."""

_MAX_SIZE_FACTOR = 2
_MAX_UNUSUAL_SHARE = 0.1
"""Images are listed for their size if a side differs from the median by this factor, and if they are this few."""


def sort_by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Sort the findings, the most severe first; equally severe findings keep their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def apply_waivers(findings: Sequence[Finding], allow: tuple[str, ...]) -> list[Finding]:
    """Turn the errors that the recipe accepts (`allow`) into warnings that say so."""
    return [
        Finding("warning", finding.code, f"{finding.message} Waived by allow={finding.code}.", finding.ids)
        if finding.severity == "error" and finding.code in allow
        else finding
        for finding in findings
    ]


def raise_errors(findings: Sequence[Finding]) -> None:
    """Raise a ParfocalError that lists every error among the findings, if there is any."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise ParfocalError("\n".join(f"{finding.message} {finding.remedy}" for finding in errors))


def _drop_rows(table: Table, findings: Sequence[Finding], code: str) -> Table:
    """Return the table without the rows that findings with this code are about."""
    return table.drop_ids({image_id for finding in findings if finding.code == code for image_id in finding.ids})


def check(table: Table, config: ImagesConfig | None = None, seed: int = 0) -> list[Finding]:
    """Find everything that is wrong with a table and its images in a pass over the files; the most severe first."""
    findings = [*check_table(table), *_find_unlisted_files(table)]
    existing = _drop_rows(table, findings, "missing_files")
    if len(existing):
        index, descriptors, features = _decode_files(existing, config or ImagesConfig())
        rows = existing.find_positions_in(index)
        digests = index["digest"].to_numpy()[rows]
        findings += check_pixels(existing, index)
        findings += _find_near_duplicates(existing, digests, descriptors[rows])
        findings += _find_shortcuts(existing, features[rows], seed)
    return sort_by_severity(findings)


@dataclass(frozen=True)
class PreparedData:
    """Data that is checked and prepared: its rows, its Store, and the findings."""

    table: Table
    store: Store
    findings: tuple[Finding, ...]


def check_and_prepare(table: Table, recipe: Recipe) -> PreparedData:
    """Check and prepare a table, and print every warning.

    Raise a ParfocalError for errors that the recipe does not accept (`allow`); leave out the missing and unreadable
    images that it accepts.
    """
    allow = recipe.data.allow
    table_findings = apply_waivers(check_table(table), allow)
    raise_errors(table_findings)
    # Before the pixels are prepared, which can take minutes.
    _print_warnings(table_findings)
    table = _drop_waived_rows(table, table_findings, "missing_files", allow)
    store = prepare(table, recipe.images)
    pixel_findings = apply_waivers(check_pixels(table, store.index), allow)
    raise_errors(pixel_findings)
    table = _drop_waived_rows(table, pixel_findings, "unreadable_images", allow)
    _print_warnings(pixel_findings)
    return PreparedData(table, store, (*table_findings, *pixel_findings))


def _print_warnings(findings: Iterable[Finding]) -> None:
    for finding in findings:
        if finding.severity == "warning":
            print_warning(f"{finding.message} {finding.remedy}".rstrip())


def _drop_waived_rows(table: Table, findings: list[Finding], code: str, allow: tuple[str, ...]) -> Table:
    """Drop the rows of waived findings; raise an error if the remaining rows lack a split, or have a single class."""
    remaining = _drop_rows(table, findings, code)
    if len(remaining) < len(table):
        raise_errors(apply_waivers(check_table(remaining), allow))
    return remaining


def check_table(table: Table) -> list[Finding]:
    """Check what the labels alone show: missing files, duplicate rows, patients, splits and classes."""
    findings = list(table.findings)
    ids = table.rows["id"]
    exists = np.array([is_existing_file(get_container_file(path)) for path in table.rows["path"]], dtype=bool)
    missing = table.rows[~exists]
    if len(missing):
        message = f"{len(missing)} of {len(table)} images are missing: {join_limited(missing['path'])}."
        if os.sep != "\\" and missing["path"].str.contains("\\", regex=False).any():
            message += " Their paths contain backslashes, as on Windows: write them with / instead."
        findings.append(make_error("missing_files", message, missing["id"], "Add the files, or remove the rows"))
    findings += _find_duplicate_rows(table)
    n_splits = table.rows.groupby("group")["split"].nunique()
    divided = n_splits[n_splits > 1].index
    if len(divided):
        message = f"{len(divided)} {table.groups_are} are in more than one split: {join_limited(divided)}."
        overlap = ids[table.rows["group"].isin(divided)]
        remedy = f"Keep each {SINGULAR[table.groups_are]} in one split"
        findings.append(make_error("patient_overlap", message, overlap, remedy))
    # The labels may bring file hashes, so that images that are missing can be compared too.
    return [
        *findings,
        *_check_splits(table),
        *check_class_names(table),
        *_check_classes(table),
        *_find_identical_images(missing),
    ]


def _find_duplicate_rows(table: Table) -> list[Finding]:
    """Find images with more than one row: with different labels, or with the same label."""
    repeated = table.rows[table.rows["id"].duplicated(keep=False)]
    n_labels = repeated[repeated["label"] != UNKNOWN].groupby("id", sort=False)["label"].nunique()
    conflicting = list(n_labels.index[n_labels > 1])
    duplicates = [image_id for image_id in repeated["id"].unique() if image_id not in set(conflicting)]
    findings: list[Finding] = []
    if conflicting:
        message = f"{len(conflicting)} images are in more than one row, with different labels: "
        message += f"{join_limited(conflicting)}."
        findings.append(make_error("conflicting_labels", message, conflicting, "Keep the row with the right label"))
    if duplicates:
        message = f"{len(duplicates)} images are in more than one row: {join_limited(duplicates)}."
        findings.append(make_error("duplicate_rows", message, duplicates, "Keep one row of each"))
    return findings


def _check_splits(table: Table) -> list[Finding]:
    findings: list[Finding] = []
    for split in ("train", "valid"):
        if split not in table.splits:
            message = f"The {split} split of {table.source} is empty."
            findings.append(make_error("empty_split", message, [], "Add images to it"))
        elif not table.is_labeled(split):
            ids = table.rows["id"][(table.rows["split"] == split) & (table.rows["label"] == UNKNOWN)]
            message = f"{len(ids)} rows of {split} have no label: {join_limited(ids)}."
            findings.append(make_error("unlabeled_rows", message, ids, "Label them, or remove them"))
    if "test" in table.splits and not table.is_labeled("test"):
        message = "The test split has no labels: it is predicted, but no metrics are computed."
        findings.append(Finding("note", "unlabeled_test", message))
    return findings


def _check_classes(table: Table) -> list[Finding]:
    findings: list[Finding] = []
    for label, code in enumerate(table.codes):
        if code.casefold() in MISSING_WORDS:
            ids = table.rows["id"][table.rows["label"] == label]
            message = f"The class {code!r} has {len(ids)} images; its name may mean a missing label."
            findings.append(Finding("note", "class_named_missing", message, tuple(ids), "If so, empty these cells."))
    for split in table.splits:
        if not table.is_labeled(split):
            continue
        counts = table.count_classes(split)
        absent = [name for name, count in counts.items() if count == 0]
        if split == "train" and len(absent) >= len(counts) - 1:
            message = "The train split has one class only."
            findings.append(make_error("one_class", message, [], "Add images of at least one other class"))
        elif absent:
            message = f"The {split} split has no image of {join_limited(absent)}."
            findings.append(Finding("warning", "class_absent", message))
        largest = max(counts, key=lambda name: counts[name])
        share = counts[largest] / sum(counts.values())
        sizes = ", ".join(f"{count} {name}" for name, count in counts.items())
        message = f"{split}: {sizes}. Always predicting {largest!r} would score {100 * share:.1f} % accuracy."
        # Balanced accuracy leaves out a class that is absent.
        if share >= _MIN_MAJORITY_SHARE and not absent:
            message += " Judge by balanced accuracy instead."
        findings.append(Finding("note", "class_counts", message))
    return findings


def _find_unlisted_files(table: Table) -> list[Finding]:
    """Find images that no row names, only in the folders of the data: a row may name any other place of the disk."""
    if any(".npz#" in path for path in table.paths):
        return []
    get_real_folder = cache(os.path.realpath)
    listed = {(get_real_folder(path.parent), path.name) for path in map(Path, table.paths)}
    found = {
        (get_real_folder(path.parent), path.name): str(path)
        for folder in table.folders
        for path in find_images(Path(folder), follow_links=True)
        # Masks of the images, which `explain` reads, are no images of the data.
        if path.relative_to(folder).parts[0] != "masks"
    }
    unlisted = [path for place, path in found.items() if place not in listed]
    message = f"{len(unlisted)} images below {join_limited(table.folders)} are in no row: {join_limited(unlisted)}."
    return [Finding("note", "unlisted_files", message, tuple(unlisted), "They are not used.")] if unlisted else []


def _decode_files(table: Table, config: ImagesConfig) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Decode every file of the table once, without keeping its pixels: the index, descriptors, shortcut features.

    The index holds size, format and file hash, or the reason why a file cannot be read. Then the descriptor is zero,
    and the features are NaN.
    """

    def read(path: str) -> tuple[ImageInfo, np.ndarray, np.ndarray]:
        with open_image(Path(path), config) as (image, info):
            features = compute_shortcut_features(image, info.bytes, info.width, info.height)
            return info, compute_descriptor(image), features

    no_descriptor = np.zeros(N_COEFFICIENTS, np.float32)
    no_features = np.full(sum(map(len, SHORTCUT_FEATURES.values())), np.nan, np.float32)
    results = [
        (result, no_descriptor, no_features) if isinstance(result, str) else result
        for result in map_ordered(table.paths, catch_unreadable(read), "Checking")
    ]
    infos, descriptors, features = zip(*results, strict=True)
    rows = [build_index_row(path, info) for path, info in zip(table.paths, infos, strict=True)]
    return pd.DataFrame(rows), np.stack(descriptors), np.stack(features)


def check_pixels(table: Table, index: pd.DataFrame) -> list[Finding]:
    """Check what decoding shows, as recorded in an index: unreadable, unusual and identical images."""
    records = table.rows.drop(columns="digest").merge(index, on="path", how="left")
    unreadable = records[records["error"] != ""]
    readable = records[records["error"] == ""]
    findings: list[Finding] = []
    if len(unreadable):
        reasons = [f"{path} ({reason})" for path, reason in zip(unreadable["path"], unreadable["error"], strict=True)]
        message = f"{len(unreadable)} of {len(table)} images cannot be read: {join_limited(reasons)}."
        findings.append(make_error("unreadable_images", message, unreadable["id"], "Replace the files"))
    findings += [*_find_identical_images(readable), *_find_unusual_sizes(readable)]
    # Everything that is not plain 8-bit RGB is read all the same, so this is only a note.
    formats = Counter(note for notes in readable["notes"] for note in str(notes).split())
    if formats:
        message = ", ".join(f"{count} {name}" for name, count in formats.most_common())
        ids = readable["id"][readable["notes"] != ""]
        findings.append(Finding("note", "unusual_images", f"Converted to 8-bit RGB: {message}.", tuple(ids)))
    return findings


def _find_unusual_sizes(records: pd.DataFrame) -> list[Finding]:
    """Find the few images that are much smaller or larger than the rest."""
    sizes = records[["width", "height"]].to_numpy(float)
    if not len(sizes):
        return []
    typical = np.median(sizes, axis=0)
    factors = np.maximum(sizes / typical, typical / sizes).max(axis=1)
    unusual = records[factors > _MAX_SIZE_FACTOR]
    if unusual.empty or len(unusual) > _MAX_UNUSUAL_SHARE * len(records):
        return []
    width, height = map(round, typical)
    listed = [
        f"{row_id} ({row_width}×{row_height})"
        for row_id, row_width, row_height in zip(unusual["id"], unusual["width"], unusual["height"], strict=True)
    ]
    message = f"{len(unusual)} images differ much in size from the usual {width}×{height}: {join_limited(listed)}."
    return [Finding("note", "unusual_sizes", message, tuple(unusual["id"]))]


def _find_identical_images(records: pd.DataFrame) -> list[Finding]:
    """Find different rows with the same file hash: with different labels, or in the same or in different splits."""
    duplicated = records.duplicated("digest", keep=False) & ~records.duplicated("id", keep=False)
    duplicates = records[duplicated & (records["digest"] != "")]
    if duplicates.empty:
        return []
    labeled = duplicates[duplicates["label"] != UNKNOWN]
    conflicting = _find_varying_digests(labeled, "label")
    across_splits = _find_varying_digests(duplicates, "split")
    across_folds = _find_varying_digests(duplicates, "fold") - across_splits
    within_split = set(duplicates["digest"]) - across_splits - across_folds
    findings: list[Finding] = []
    for code, digests, where, remedy in (
        ("conflicting_labels", conflicting, "have different labels", "Correct the labels"),
        ("identical_across_splits", across_splits, "are in more than one split", "Keep one image of each set"),
        ("identical_across_folds", across_folds, "are in more than one fold", ""),
        ("identical_within_split", within_split, "are in one split", ""),
    ):
        if digests:
            rows = duplicates[duplicates["digest"].isin(digests)]
            sets = [" = ".join(same["id"]) for _, same in rows.groupby("digest", sort=False)]
            message = f"{len(sets)} sets of identical images {where}: {join_limited(sets)}."
            warning = Finding("warning", code, message, tuple(rows["id"]))
            findings.append(make_error(code, message, rows["id"], remedy) if remedy else warning)
    return findings


def _find_varying_digests(records: pd.DataFrame, column: str) -> set[str]:
    """Return the file hashes whose rows have different values in a column."""
    counts = records.groupby("digest")[column].nunique()
    return {str(digest) for digest in counts.index[counts > 1]}


def _find_near_duplicates(table: Table, digests: np.ndarray, descriptors: np.ndarray) -> list[Finding]:
    """Find sets of images that look nearly the same but are not identical."""
    ids = table.rows["id"].to_numpy()
    splits = table.rows["split"].to_numpy()
    across: list[np.ndarray] = []
    within: list[np.ndarray] = []
    for rows in find_near_duplicates(descriptors):
        if len(set(digests[rows])) > 1:
            (across if len(set(splits[rows])) > 1 else within).append(rows)
    findings: list[Finding] = []
    across_text = "are in more than one split; check whether they are the same"
    kinds: list[tuple[Severity, str, list[np.ndarray], str]] = [
        ("warning", "near_duplicates_across_splits", across, across_text),
        ("note", "near_duplicates_within_split", within, "are in one split"),
    ]
    for severity, code, sets, where in kinds:
        if sets:
            texts = [" ≈ ".join(map(str, ids[rows])) for rows in sets]
            message = f"{len(sets)} sets of images that look nearly the same {where}: {join_limited(texts)}."
            findings.append(Finding(severity, code, message, tuple(ids[np.concatenate(sets)])))
    return findings


def _find_shortcuts(table: Table, features: np.ndarray, seed: int) -> list[Finding]:
    """Warn where features other than the content predict the labels of patients that the model has not seen."""
    shortcuts = find_shortcuts(features, table.rows["label"].to_numpy(), table.rows["group"].to_numpy(), seed)
    if not shortcuts:
        return []
    clear = sorted((item for item in shortcuts if item.is_clear), key=lambda item: -item.balanced_accuracy)
    listed = clear or [item for item in shortcuts if item.kind == ALL_FEATURES]
    kinds = "; ".join(
        f"{item.kind} {item.accuracy:.0%} accuracy, {item.balanced_accuracy:.0%} balanced accuracy" for item in listed
    )
    message = (
        f"a linear model that sees only these features predicts the class of new {table.groups_are}: {kinds}. Always "
        f"predicting the largest class scores {listed[0].majority_accuracy:.0%} accuracy, "
        f"{listed[0].chance_level:.0%} balanced accuracy."
    )
    if not clear:
        return [Finding("note", "no_shortcut", f"No clear shortcut to the label: {message}")]
    remedy = "A network may learn this instead of the disease. Check where it looks: `parfocal explain RUN`."
    return [Finding("warning", "shortcut", f"Shortcuts to the label: {message}", (), remedy)]
