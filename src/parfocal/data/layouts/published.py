"""Data sets as they are published: C-NMC, EyePACS and APTOS."""

import re
from pathlib import Path

from parfocal.data.layouts.classes import DR_GRADES, find_class_index, resolve_class_names
from parfocal.data.layouts.labs import parse_eye_patient
from parfocal.data.layouts.places import ImageFinder
from parfocal.data.layouts.sheets import read_column_names, read_sheet
from parfocal.data.table import UNKNOWN, Table, build_rows
from parfocal.errors import ParfocalError
from parfocal.parts import ColumnsConfig, DataConfig

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
