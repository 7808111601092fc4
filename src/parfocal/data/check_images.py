"""What the images themselves show: unreadable and unusual, identical and alike ones, and shortcuts to the label."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd

from parfocal.data.examine import ImageStats
from parfocal.data.finding import Finding, Severity, make_error
from parfocal.data.likeness import find_near_duplicates
from parfocal.data.shortcuts import ALL_FEATURES, find_shortcuts
from parfocal.data.table import UNKNOWN, Table
from parfocal.errors import join_limited


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
