"""Label files that a layout does not read because of their names, such as val.csv instead of valid.csv."""

import re
from collections.abc import Mapping
from pathlib import Path

from parfocal.data.findings import Finding
from parfocal.errors import join_limited

_NETWORKS = (18, 34, 50, 101, 152)

LEUKEMIA_LAB_FILES = {
    "train": "train.csv",
    **dict.fromkeys(("valid", "val", "validation", "dev"), "valid.csv"),
    **dict.fromkeys(("test", "testing"), "resnet_18_test.csv"),
    "testtruth": "test_truth.csv",
    **{f"resnet{network}test": f"resnet_{network}_test.csv" for network in _NETWORKS},
    **{f"resnet{network}": f"resnet_{network}_test.csv" for network in _NETWORKS},
}
"""The files of the leukemia lab, by the letters and digits of the names that people give them."""

FUNDUS_LAB_FILES = {
    f"{split}{word}": f"{split}_{kind}.csv"
    for split in ("train", "test")
    for kind, words in (("img", ("img", "imgs", "image", "images")), ("label", ("label", "labels")))
    for word in words
}
"""The files of the fundus lab, by the letters and digits of the names that people give them."""

EYEPACS_FILES = {"trainlabels": "trainLabels.csv"}


def list_misnamed_files(folder: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Return the name that each misnamed label file of a folder should have, unless there is a file of that name."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".csv")
    expected = {name: files.get(re.sub(r"[^a-z0-9]", "", name[:-4].lower()), name) for name in names}
    return {name: right for name, right in expected.items() if right not in names}


def find_misnamed_files(folder: Path, files: Mapping[str, str]) -> tuple[Finding, ...]:
    """Warn of the label files of a layout that are not read because of their names."""
    misnamed = list_misnamed_files(folder, files)
    if not misnamed:
        return ()
    pairs = join_limited(f"{name} (the layout reads {right})" for name, right in misnamed.items())
    message = f"{len(misnamed)} label files in {folder} are not read: {pairs}."
    return (Finding("warning", "misnamed_files", message, tuple(misnamed), "Rename them, or move them away."),)
