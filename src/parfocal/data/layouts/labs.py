"""The two labs' label files, as the documents describe them."""

import re
from pathlib import Path

from parfocal.data.layouts.classes import DR_GRADES, find_class_index, resolve_class_names
from parfocal.data.layouts.places import ImageFinder
from parfocal.data.layouts.sheets import read_column_by_path, read_column_names, read_sheet, read_single_column
from parfocal.data.table import UNKNOWN, Table, build_rows
from parfocal.errors import ParfocalError
from parfocal.parts import ColumnsConfig, DataConfig


def recognize_leukemia_lab(folder: Path) -> str:
    """Say why a folder is the leukemia lab's, or nothing."""
    file = folder / "train.csv"
    if file.is_file() and "id_code" not in read_column_names(file):
        return "train.csv with Path,label"
    return ""


def read_leukemia_lab(folder: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read `train.csv` and `valid.csv` (Path,label), `resnet_*_test.csv` (Path), truth and patients if there."""
    codes = ("0", "1")
    classes = resolve_class_names(codes, data.classes or ("normal", "blast"))
    patients = read_column_by_path(folder / "patients.csv", "patient")
    truths = read_column_by_path(folder / "test_truth.csv", "label")
    ids: list[str] = []
    labels: list[int] = []
    splits: list[str] = []
    for split in ("train", "valid"):
        file = folder / f"{split}.csv"
        if split == "valid" and not file.exists():
            continue
        rows = read_sheet(file, ("Path", "label"))
        ids += rows["Path"].tolist()
        labels += [
            find_class_index(text, codes, classes, file, line) for line, text in enumerate(rows["label"], start=2)
        ]
        splits += [split] * len(rows)
    lists: dict[str, tuple[str, ...]] = {}
    for file in sorted(folder.glob("resnet_*_test.csv")):
        lists[file.stem] = tuple(read_sheet(file, ("Path",))["Path"])
    asked = list(dict.fromkeys(one for wanted in lists.values() for one in wanted))
    ids += asked
    labels += [_find_truth(one, truths, codes, classes, folder) for one in asked]
    splits += ["test"] * len(asked)
    rows = build_rows(ids, [folder / one for one in ids], labels, splits, [patients.get(one, one) for one in ids])
    files = ["train.csv", *(["valid.csv"] if "valid" in splits else []), *(f"{name}.csv" for name in lists)]
    return Table(rows, classes, codes, f"leukemia-lab at {folder} ({', '.join(files)})", lists)


def recognize_fundus_lab(folder: Path) -> str:
    """Say why a folder is the fundus lab's, or nothing."""
    return "train_img.csv and train_label.csv" if (folder / "train_img.csv").is_file() else ""


def read_fundus_lab(folder: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read pairs of files without headers; names without suffix; the name before `_left` or `_right` is the patient."""
    codes = ("0", "1", "2", "3", "4")
    classes, places = resolve_class_names(codes, data.classes or DR_GRADES), ImageFinder(folder)
    ids: list[str] = []
    paths: list[Path] = []
    labels: list[int] = []
    splits: list[str] = []
    for split in ("train", "test"):
        name_file, label_file = folder / f"{split}_img.csv", folder / f"{split}_label.csv"
        if split == "test" and not name_file.exists():
            continue
        names, texts = read_single_column(name_file), read_single_column(label_file)
        if len(names) != len(texts):
            raise ParfocalError(
                f"{name_file} has {len(names)} rows, {label_file.name} has {len(texts)}; they must match."
            )
        ids += names
        paths += [_find_image(places, name, split) for name in names]
        labels += [find_class_index(text, codes, classes, label_file, line) for line, text in enumerate(texts, start=1)]
        splits += [split] * len(names)
    rows = build_rows(ids, paths, labels, splits, [parse_eye_patient(name) for name in ids])
    return Table(rows, classes, codes, f"fundus-lab at {folder} (train_img.csv, train_label.csv, …)")


def parse_eye_patient(name: str) -> str:
    """Return the patient in a name such as `123_left`."""
    return re.sub(r"_(left|right)$", "", name)


def _find_image(image_finder: ImageFinder, name: str, split: str) -> Path:
    found = image_finder.find(name, split)
    return found if found.is_file() else image_finder.folder / f"new_{split}" / f"{name}.jpeg"


def _find_truth(
    image_id: str, truths: dict[str, str], codes: tuple[str, ...], classes: tuple[str, ...], folder: Path
) -> int:
    if not truths:
        return UNKNOWN
    if image_id not in truths:
        raise ParfocalError(f"{folder / 'test_truth.csv'} has no row for {image_id}. Add it, or delete the file.")
    return find_class_index(
        truths[image_id], codes, classes, folder / "test_truth.csv", list(truths).index(image_id) + 2
    )
