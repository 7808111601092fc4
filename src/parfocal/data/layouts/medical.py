"""The two labs' label files, as the documents describe them."""
# MERGED: """Data sets as they are published: C-NMC, EyePACS and APTOS."""

import re
from pathlib import Path

from parfocal.data.layouts.classes import DR_GRADES, find_class_index, resolve_class_names
from parfocal.data.layouts.image_finder import ImageFinder
from parfocal.data.layouts.sheets import read_column_by_path, read_column_names, read_sheet, read_single_column
from parfocal.data.table import UNKNOWN, Table, build_rows
from parfocal.errors import ParfocalError
from parfocal.schema import ColumnsConfig, DataConfig


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


_PRELIMINARY_LABELS = "C-NMC_test_prelim_phase_data_labels.csv"
_CELL_NAME = re.compile(r"uid_(?P<patient>h?\d+)_(?P<image>\d+)_(?P<cell>\d+)_(?P<label>all|hem)", re.IGNORECASE)


def parse_cell_patient(name: str) -> str:
    """Return the patient in a name such as `UID_H12_3_1_hem.bmp`, its case folded; nothing if it is no such name."""
    found = _CELL_NAME.match(name)
    return found["patient"].lower() if found else ""


def recognize_cnmc(folder: Path) -> str:
    """Say why a folder is C-NMC as Kaggle hands it out, or nothing."""
    fold = next((path for path in _find_folds(folder)), None)
    return f"{fold.relative_to(folder)}/all and /hem" if fold else ""


def read_cnmc(folder: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read `fold_*/{all,hem}/UID_<patient>_<image>_<cell>_{all,hem}.bmp` and the preliminary test set if there."""
    codes = ("0", "1")
    classes = resolve_class_names(codes, data.classes or ("hem", "all"))
    ids: list[str] = []
    paths: list[Path] = []
    labels: list[int] = []
    folds: list[str] = []
    groups: list[str] = []
    for fold in _find_folds(folder):
        for path in sorted([*fold.glob("all/*"), *fold.glob("hem/*")]):
            found = _CELL_NAME.match(path.name)
            if not found:
                raise ParfocalError(f"{path} is not named UID_<patient>_<image>_<cell>_all or _hem. Take it out.")
            if found["label"].lower() != path.parent.name:
                raise ParfocalError(f"{path} says {found['label']} in its name but lies in {path.parent.name}/.")
            ids.append(path.name)
            paths.append(path)
            labels.append(int(path.parent.name == "all"))
            folds.append(fold.name)
            groups.append(parse_cell_patient(path.name))
    splits = ["train"] * len(ids)
    preliminary = next(iter(sorted(folder.rglob(_PRELIMINARY_LABELS))), None)
    lists: dict[str, tuple[str, ...]] = {}
    if preliminary:
        rows, places = read_sheet(preliminary, ("Patient_ID", "new_names", "labels")), ImageFinder(preliminary.parent)
        names = rows["new_names"].tolist()
        ids += names
        paths += [places.find(name) for name in names]
        labels += [
            find_class_index(one, codes, classes, preliminary, line) for line, one in enumerate(rows["labels"], start=2)
        ]
        groups += [parse_cell_patient(one) or one for one in rows["Patient_ID"]]
        folds += [""] * len(names)
        splits += ["test"] * len(names)
        lists["preliminary_test"] = tuple(names)
    table_rows = build_rows(ids, paths, labels, splits, groups, folds)
    return Table(table_rows, classes, codes, f"cnmc at {folder} ({len(set(folds) - {''})} folds)", lists)


def recognize_eyepacs(folder: Path) -> str:
    """Say why a folder is EyePACS, or nothing."""
    return "trainLabels.csv with image,level" if (folder / "trainLabels.csv").is_file() else ""


def read_eyepacs(folder: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read `trainLabels.csv` (image,level), where the name before `_left` or `_right` is the patient."""
    return _read_grades(folder, "eyepacs", "trainLabels.csv", "image", "level", data)


def recognize_aptos(folder: Path) -> str:
    """Say why a folder is APTOS, or nothing."""
    file = folder / "train.csv"
    return "train.csv with id_code,diagnosis" if file.is_file() and "id_code" in read_column_names(file) else ""


def read_aptos(folder: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read `train.csv` (id_code,diagnosis) and, where it is there, the unlabelled `test.csv` (id_code)."""
    return _read_grades(folder, "aptos", "train.csv", "id_code", "diagnosis", data)


def _read_grades(folder: Path, layout: str, name: str, id_column: str, label_column: str, data: DataConfig) -> Table:
    codes = ("0", "1", "2", "3", "4")
    classes, file, places = resolve_class_names(codes, data.classes or DR_GRADES), folder / name, ImageFinder(folder)
    rows = read_sheet(file, (id_column, label_column))
    ids = rows[id_column].tolist()
    labels = [
        find_class_index(text, codes, classes, file, line) for line, text in enumerate(rows[label_column], start=2)
    ]
    splits = ["train"] * len(ids)
    test, lists = folder / "test.csv", {}
    if test.is_file():
        wanted = read_sheet(test, (id_column,))[id_column].tolist()
        lists["test"] = tuple(wanted)
        ids, labels, splits = ids + wanted, labels + [UNKNOWN] * len(wanted), splits + ["test"] * len(wanted)
    paths = [places.find(one, split) for one, split in zip(ids, splits, strict=True)]
    table_rows = build_rows(ids, paths, labels, splits, [parse_eye_patient(one) for one in ids])
    return Table(table_rows, classes, codes, f"{layout} at {folder} ({name})", lists)


def _find_folds(folder: Path) -> list[Path]:
    """Return the folders called fold_N that hold both classes, however deep they lie."""
    found = (path for depth in ("", "*/", "*/*/", "*/*/*/") for path in folder.glob(f"{depth}fold_*"))
    return sorted({path for path in found if (path / "all").is_dir() and (path / "hem").is_dir()})
