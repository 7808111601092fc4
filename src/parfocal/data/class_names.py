"""Checks of class names: spellings that make one class two, classes that train lacks, grades that start at 1."""

from parfocal.data.findings import Finding, make_error
from parfocal.data.labels import MISSING_WORDS, is_number
from parfocal.data.table import UNKNOWN, Table
from parfocal.errors import join_limited


def check_class_names(table: Table) -> list[Finding]:
    """Find class names that differ between splits or in case, codes mixed with names, and grades without a 0."""
    return _find_mixed_names(table) or [*_find_unseen_classes(table), *_find_missing_grade(table)]


def _find_mixed_names(table: Table) -> list[Finding]:
    """Find names that differ only in case, and numbers beside words: they are likely the same classes twice."""
    codes = [code for code in table.codes if code.casefold() not in MISSING_WORDS]
    differ_in_case = len({code.casefold() for code in codes}) < len(codes)
    are_mixed = 0 < sum(map(is_number, codes)) < len(codes)
    if not differ_in_case and not are_mixed:
        return []
    fault = "differ only in upper and lower case" if differ_in_case else "are numbers mixed with words"
    message = f"Some class names {fault}: {_list_by_split(table)}."
    remedy = "Write each class in one way in all files"
    return [make_error("mixed_class_names", message, (), remedy)]


def _find_unseen_classes(table: Table) -> list[Finding]:
    """Find classes of valid or test that train lacks: no network can learn them."""
    if "train" not in table.splits:
        return []
    present = _get_present_labels(table, "train")
    unseen = {split: sorted(_get_present_labels(table, split) - present) for split in table.splits if split != "train"}
    labels = sorted({label for split_labels in unseen.values() for label in split_labels})
    if not labels or not present:
        return []
    splits = [split for split, split_labels in unseen.items() if split_labels]
    where = f"{' and '.join(splits)} {'have' if len(splits) > 1 else 'has'}"
    names = join_limited(table.classes[label] for label in labels)
    message = f"The train split has no image of {names}, but {where}. The classes are {_list_by_split(table)}."
    ids = table.rows["id"][table.rows["label"].isin(labels)]
    remedy = "Correct the labels, or add training images of these classes"
    return [make_error("unseen_classes", message, ids, remedy)]


def _find_missing_grade(table: Table) -> list[Finding]:
    """Find grades without a 0: they may be counted from 1."""
    present = {label for split in table.splits for label in _get_present_labels(table, split)}
    is_graded = table.codes == tuple(map(str, range(len(table.codes)))) and len(table.codes) > 2
    if not is_graded or not present or 0 in present:
        return []
    grades = join_limited(table.codes[label] for label in sorted(present))
    message = f"No image has the label 0 ({table.classes[0]}); the labels are {grades}. They may be counted from 1."
    return [make_error("no_grade_0", message, (), f"Write them from 0 to {len(table.codes) - 1}")]


def _get_present_labels(table: Table, split: str) -> set[int]:
    return set(map(int, table.get_labels(split))) - {UNKNOWN}


def _list_by_split(table: Table) -> str:
    """Return the class names that each split has: `train: normal, blast; valid: 0, 1`."""
    labels = {split: sorted(_get_present_labels(table, split)) for split in table.splits}
    named = {split: ", ".join(table.classes[label] for label in present) for split, present in labels.items()}
    return "; ".join(f"{split}: {names}" for split, names in named.items() if names)
