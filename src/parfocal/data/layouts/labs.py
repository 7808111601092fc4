"""The two labs' label files, as the documents describe them."""

import re
from pathlib import Path

from parfocal.data.layouts.classes import GRADES, index_of, named
from parfocal.data.layouts.places import Places
from parfocal.data.layouts.sheets import header, pairs, sheet, single_column
from parfocal.data.table import UNKNOWN, Table, assemble
from parfocal.errors import ParfocalError
from parfocal.parts import ColumnsPart, DataPart


def recognise_leukemia_lab(folder: Path) -> str:
    """Say why a folder is the leukemia lab's, or nothing."""
    file = folder / "train.csv"
    if file.is_file() and "id_code" not in header(file):
        return "train.csv with Path,label"
    return ""


def read_leukemia_lab(folder: Path, data: DataPart, columns: ColumnsPart) -> Table:
    """Read `train.csv` and `valid.csv` (Path,label), `resnet_*_test.csv` (Path), truth and patients if there."""
    codes = ("0", "1")
    classes = named(codes, data.classes or ("normal", "blast"))
    patients = pairs(folder / "patients.csv", "patient")
    truths = pairs(folder / "test_truth.csv", "label")
    ids: list[str] = []
    labels: list[int] = []
    splits: list[str] = []
    for split in ("train", "valid"):
        file = folder / f"{split}.csv"
        if split == "valid" and not file.exists():
            continue
        rows = sheet(file, ("Path", "label"))
        ids += rows["Path"].tolist()
        labels += [index_of(text, codes, classes, file, line) for line, text in enumerate(rows["label"], start=2)]
        splits += [split] * len(rows)
    lists: dict[str, tuple[str, ...]] = {}
    for file in sorted(folder.glob("resnet_*_test.csv")):
        lists[file.stem] = tuple(sheet(file, ("Path",))["Path"])
    asked = list(dict.fromkeys(one for wanted in lists.values() for one in wanted))
    ids += asked
    labels += [_truth(one, truths, codes, classes, folder) for one in asked]
    splits += ["test"] * len(asked)
    rows = assemble(ids, [folder / one for one in ids], labels, splits, [patients.get(one, one) for one in ids])
    files = ["train.csv", *(["valid.csv"] if "valid" in splits else []), *(f"{name}.csv" for name in lists)]
    return Table(rows, classes, codes, f"leukemia-lab at {folder} ({', '.join(files)})", lists)


def recognise_fundus_lab(folder: Path) -> str:
    """Say why a folder is the fundus lab's, or nothing."""
    return "train_img.csv and train_label.csv" if (folder / "train_img.csv").is_file() else ""


def read_fundus_lab(folder: Path, data: DataPart, columns: ColumnsPart) -> Table:
    """Read pairs of files without headers; names without suffix; the name before `_left` or `_right` is the patient."""
    codes = ("0", "1", "2", "3", "4")
    classes, places = named(codes, data.classes or GRADES), Places(folder)
    ids: list[str] = []
    paths: list[Path] = []
    labels: list[int] = []
    splits: list[str] = []
    for split in ("train", "test"):
        name_file, label_file = folder / f"{split}_img.csv", folder / f"{split}_label.csv"
        if split == "test" and not name_file.exists():
            continue
        names, texts = single_column(name_file), single_column(label_file)
        if len(names) != len(texts):
            raise ParfocalError(
                f"{name_file} has {len(names)} rows, {label_file.name} has {len(texts)}; they must match."
            )
        ids += names
        paths += [_place(places, name, split) for name in names]
        labels += [index_of(text, codes, classes, label_file, line) for line, text in enumerate(texts, start=1)]
        splits += [split] * len(names)
    rows = assemble(ids, paths, labels, splits, [patient_of_eye(name) for name in ids])
    return Table(rows, classes, codes, f"fundus-lab at {folder} (train_img.csv, train_label.csv, …)")


def patient_of_eye(name: str) -> str:
    """Return the patient in a name such as `123_left`."""
    return re.sub(r"_(left|right)$", "", name)


def _place(places: Places, name: str, split: str) -> Path:
    found = places.find(name, split)
    return found if found.is_file() else places.folder / f"new_{split}" / f"{name}.jpeg"


def _truth(one: str, truths: dict[str, str], codes: tuple[str, ...], classes: tuple[str, ...], folder: Path) -> int:
    if not truths:
        return UNKNOWN
    if one not in truths:
        raise ParfocalError(f"{folder / 'test_truth.csv'} has no row for {one}. Add it, or delete the file.")
    return index_of(truths[one], codes, classes, folder / "test_truth.csv", list(truths).index(one) + 2)
