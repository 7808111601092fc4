"""Label layouts of medical data sets: the two labs of the source documents, C-NMC, EyePACS and APTOS."""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from parfocal.data.findings import Finding
from parfocal.data.grouping import PERSONS, Groups, group_by_sheet, with_groups
from parfocal.data.labels import find_class_index, normalize_label, resolve_class_names
from parfocal.data.layouts.image_finder import ImageFinder, is_existing_file
from parfocal.data.layouts.misnamed_files import FUNDUS_LAB_FILES, LEUKEMIA_LAB_FILES, find_misnamed_files
from parfocal.data.layouts.sheets import read_column_by_path, read_column_names, read_sheet, read_single_column
from parfocal.data.table import UNKNOWN, Table, build_rows
from parfocal.errors import ParfocalError, join_limited
from parfocal.recipe_schema import ColumnsConfig, DataConfig

DR_GRADES = ("no DR", "mild", "moderate", "severe", "proliferative")
"""Names of the grades 0 to 4 of diabetic retinopathy."""

_GRADE_CODES = ("0", "1", "2", "3", "4")
_CELL_WORDS = {"normal cell": "0", "hem": "0", "leukemia blast": "1", "all": "1"}
"""What the leukemia lab's assignment and C-NMC call the two codes, in lower case."""

_PRELIMINARY_LABELS = "C-NMC_test_prelim_phase_data_labels.csv"
_EYE_NAME = re.compile(r"(?:.*/)?([^/]+)_(?:left|right)(?:\.[a-z]+)?", re.IGNORECASE)
_CELL_NAME = re.compile(r"uid_(?P<patient>h?\d+)_(?P<image>\d+)_(?P<cell>\d+)_(?P<label>all|hem)", re.IGNORECASE)


def recognize_leukemia_lab(folder: Path) -> str:
    """Return what identifies a folder as the leukemia lab's, or an empty string."""
    file = folder / "train.csv"
    return "train.csv with Path,label" if file.is_file() and "id_code" not in read_column_names(file) else ""


def is_leukemia_lab_file(file: Path) -> bool:
    """Return whether a sheet is the train or valid file of the leukemia lab: its columns, labels and neighbors fit."""
    others = [path for path in (file.parent / "train.csv", file.parent / "valid.csv") if path != file]
    has_neighbors = any(path.is_file() for path in others) or any(file.parent.glob("resnet_*_test.csv"))
    if not has_neighbors or not {"Path", "label"} <= set(read_column_names(file)):
        return False
    labels = {normalize_label(_translate_cell_word(label)).lower() for label in read_sheet(file)["label"]}
    return labels <= {"0", "1", "normal", "blast"}


def read_leukemia_lab(folder: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read `train.csv` and `valid.csv` (Path,label) and `resnet_*_test.csv` (Path).

    `patients.csv` (Path,patient) and `test_truth.csv` (Path,label) are optional.
    """
    codes = ("0", "1")
    classes = resolve_class_names(codes, data.classes, ("normal", "blast"))
    ids: list[str] = []
    labels: list[int] = []
    splits: list[str] = []
    sheets: list[pd.DataFrame] = []
    for split in ("train", "valid"):
        file = folder / f"{split}.csv"
        if split == "valid" and not file.exists():
            continue
        rows = read_sheet(file, ("Path", "label"))
        ids += rows["Path"].tolist()
        labels += _find_class_indices(map(_translate_cell_word, rows["label"]), codes, classes, file)
        splits += [split] * len(rows)
        sheets.append(rows)
    list_sheets = {file.stem: read_sheet(file, ("Path",)) for file in sorted(folder.glob("resnet_*_test.csv"))}
    lists = {name: tuple(rows["Path"]) for name, rows in list_sheets.items()}
    if lists:
        sheets.append(pd.concat(list_sheets.values()).drop_duplicates("Path"))
    test_ids = sheets[-1]["Path"].tolist() if lists else []
    truth_file = folder / "test_truth.csv"
    truth = read_column_by_path(truth_file, "label")
    missing = next((image_id for image_id in test_ids if truth and image_id not in truth), None)
    if missing is not None:
        raise ParfocalError(f"{truth_file} has no row for {missing}. Add it, or delete the file.")
    lines = {image_id: line for line, image_id in enumerate(truth, start=2)}
    ids += test_ids
    labels += [
        find_class_index(_translate_cell_word(truth[image_id]), codes, classes, truth_file, lines[image_id])
        if truth
        else UNKNOWN
        for image_id in test_ids
    ]
    splits += ["test"] * len(test_ids)
    table_rows = build_rows(ids, [folder / image_id for image_id in ids], labels, splits, ids)
    files = ["train.csv", *(["valid.csv"] if "valid" in splits else []), *(f"{name}.csv" for name in lists)]
    findings = find_misnamed_files(folder, LEUKEMIA_LAB_FILES)
    source = f"leukemia-lab at {folder} ({', '.join(files)})"
    table = Table(table_rows, classes, codes, source, lists, findings=findings)
    return _group_by_sheets(table, sheets, "Path", "label", columns)


def _translate_cell_word(label: str) -> str:
    return _CELL_WORDS.get(label.strip().lower(), label)


def recognize_fundus_lab(folder: Path) -> str:
    """Return what identifies a folder as the fundus lab's, or an empty string."""
    return "train_img.csv and train_label.csv" if (folder / "train_img.csv").is_file() else ""


def read_fundus_lab(folder: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read `{train,test}_img.csv` and `{train,test}_label.csv`: a value per line, no header, names without suffix."""
    classes = resolve_class_names(_GRADE_CODES, data.classes, DR_GRADES)
    finder = ImageFinder(folder)
    ids: list[str] = []
    paths: list[Path] = []
    labels: list[int] = []
    splits: list[str] = []
    for split in ("train", "test"):
        name_file = folder / f"{split}_img.csv"
        label_file = folder / f"{split}_label.csv"
        if split == "test" and not name_file.exists():
            continue
        names = read_single_column(name_file)
        label_texts = read_single_column(label_file)
        if len(names) != len(label_texts):
            raise ParfocalError(
                f"{name_file} has {len(names)} rows, but {label_file.name} has {len(label_texts)}. They must match."
            )
        for name in names:
            path = finder.find(name, split)
            paths.append(path if is_existing_file(path) else folder / f"new_{split}" / f"{name}.jpeg")
        ids += names
        labels += _find_class_indices(label_texts, _GRADE_CODES, classes, label_file, first_line=1)
        splits += [split] * len(names)
    rows = build_rows(ids, paths, labels, splits, ids)
    findings = (*find_misnamed_files(folder, FUNDUS_LAB_FILES), *_find_misplaced_images(folder, ids, paths, splits))
    source = f"fundus-lab at {folder} (train_img.csv, train_label.csv, …)"
    table = Table(rows, classes, _GRADE_CODES, source, findings=findings)
    return _group_by_eye_names(table)


def _find_misplaced_images(folder: Path, ids: list[str], paths: list[Path], splits: list[str]) -> tuple[Finding, ...]:
    """Name the images of train or test that are only in the folder of the other split."""
    findings: list[Finding] = []
    for split, other in (("train", "new_test"), ("test", "new_train")):
        misplaced = [
            image_id
            for image_id, path, image_split in zip(ids, paths, splits, strict=True)
            if image_split == split and path.is_relative_to(folder / other)
        ]
        if misplaced:
            message = f"{len(misplaced)} images of {split} are only in {other}/: {join_limited(misplaced)}."
            remedy = f"Check {split}_img.csv, or move them to new_{split}/."
            findings.append(Finding("warning", "misplaced_images", message, tuple(misplaced), remedy))
    return tuple(findings)


def recognize_cnmc(folder: Path) -> str:
    """Return what identifies a folder as C-NMC, as Kaggle publishes it, or an empty string."""
    fold = next(iter(_find_folds(folder)), None)
    return f"{fold.relative_to(folder)}/all and /hem" if fold else ""


def read_cnmc(folder: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read `fold_*/{all,hem}/UID_<patient>_<image>_<cell>_{all,hem}.bmp` and the optional preliminary test set."""
    codes = ("0", "1")
    classes = resolve_class_names(codes, data.classes, ("hem", "all"))
    ids: list[str] = []
    paths: list[Path] = []
    labels: list[int] = []
    folds: list[str] = []
    groups: list[str] = []
    for fold in _find_folds(folder):
        for path in sorted([*fold.glob("all/*"), *fold.glob("hem/*")]):
            match = _CELL_NAME.match(path.name)
            if not match:
                raise ParfocalError(
                    f"{path} is not named UID_<patient>_<image>_<cell>_all or _hem. Move it out of the folder."
                )
            if match["label"].lower() != path.parent.name:
                raise ParfocalError(f"{path} is named {match['label']}, but it is in the folder {path.parent.name}/.")
            ids.append(path.name)
            paths.append(path)
            labels.append(int(path.parent.name == "all"))
            folds.append(fold.name)
            groups.append(parse_cell_patient(path.name))
    splits = ["train"] * len(ids)
    lists: dict[str, tuple[str, ...]] = {}
    preliminary = next(iter(sorted(folder.rglob(_PRELIMINARY_LABELS))), None)
    if preliminary:
        rows = read_sheet(preliminary, ("Patient_ID", "new_names", "labels"))
        finder = ImageFinder(preliminary.parent)
        names = rows["new_names"].tolist()
        ids += names
        paths += [finder.find(name) for name in names]
        labels += _find_class_indices(rows["labels"], codes, classes, preliminary)
        groups += [parse_cell_patient(name) for name in rows["Patient_ID"]]
        folds += [""] * len(names)
        splits += ["test"] * len(names)
        lists["preliminary_test"] = tuple(names)
    table_rows = build_rows(ids, paths, labels, splits, ids, folds)
    table = Table(table_rows, classes, codes, f"cnmc at {folder} ({len(set(folds) - {''})} folds)", lists)
    return with_groups(table, Groups(groups, "patients", "the names of the files"))


def recognize_eyepacs(folder: Path) -> str:
    """Return what identifies a folder as EyePACS, or an empty string."""
    file = _find_eyepacs_sheet(folder)
    return f"{file.name} with image,level" if file.is_file() else ""


def read_eyepacs(folder: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read the grades of EyePACS; see `read_grades`."""
    return read_grades("eyepacs", _find_eyepacs_sheet(folder), "image", "level", data, columns)


def _find_eyepacs_sheet(folder: Path) -> Path:
    """Return the sheet of grades, which Kaggle also publishes with the cropped photographs under another name."""
    sheets = [folder / "trainLabels.csv", folder / "trainLabels_cropped.csv"]
    return next((file for file in sheets if file.is_file()), sheets[0])


def recognize_aptos(folder: Path) -> str:
    """Return what identifies a folder as APTOS, or an empty string."""
    file = folder / "train.csv"
    return "train.csv with id_code,diagnosis" if file.is_file() and "id_code" in read_column_names(file) else ""


def read_aptos(folder: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read the grades of APTOS; see `read_grades`."""
    return read_grades("aptos", folder / "train.csv", "id_code", "diagnosis", data, columns)


def parse_eye_patient(name: str) -> str:
    """Return the patient in a name such as `123_left` or `new_train/123_left.jpeg`; an empty string for other names."""
    match = _EYE_NAME.fullmatch(name)
    return match[1] if match else ""


def parse_cell_patient(name: str) -> str:
    """Return the patient in a name such as `UID_H12_3_1_hem.bmp`, in lower case; an empty string for other names."""
    match = _CELL_NAME.match(name)
    return match["patient"].lower() if match else ""


def _find_class_indices(
    labels: Iterable[str], codes: tuple[str, ...], classes: tuple[str, ...], file: Path, first_line: int = 2
) -> list[int]:
    return [find_class_index(label, codes, classes, file, line) for line, label in enumerate(labels, start=first_line)]


def read_grades(
    layout: str, file: Path, id_column: str, label_column: str, data: DataConfig, columns: ColumnsConfig
) -> Table:
    """Read the grades of EyePACS or APTOS from a sheet, and the optional, unlabeled `test.csv`.

    Without a column of the patient, the name before `_left` or `_right` is the patient.
    """
    classes = resolve_class_names(_GRADE_CODES, data.classes, DR_GRADES)
    folder = file.parent
    rows = read_sheet(file, (id_column, label_column))
    sheets = [rows]
    ids = rows[id_column].tolist()
    labels = _find_class_indices(rows[label_column], _GRADE_CODES, classes, file)
    splits = ["train"] * len(ids)
    lists: dict[str, tuple[str, ...]] = {}
    if (folder / "test.csv").is_file():
        sheets.append(read_sheet(folder / "test.csv", (id_column,)))
        test_ids = sheets[-1][id_column].tolist()
        lists["test"] = tuple(test_ids)
        ids += test_ids
        labels += [UNKNOWN] * len(test_ids)
        splits += ["test"] * len(test_ids)
    finder = ImageFinder(folder)
    paths = [finder.find(image_id, split) for image_id, split in zip(ids, splits, strict=True)]
    table_rows = build_rows(ids, paths, labels, splits, ids)
    table = Table(table_rows, classes, _GRADE_CODES, f"{layout} at {folder} ({file.name})", lists)
    table = _group_by_sheets(table, sheets, id_column, label_column, columns)
    return table if table.groups_are in PERSONS else _group_by_eye_names(table)


def _group_by_sheets(
    table: Table, sheets: list[pd.DataFrame], id_column: str, label_column: str, columns: ColumnsConfig
) -> Table:
    """Return the table with the groups that a column of its sheets names, if there is such a column."""
    rows = pd.concat(sheets).fillna("")
    if columns.group and columns.group not in rows.columns:
        return table
    return group_by_sheet(table, rows, {id_column, label_column}, columns.group)


def _group_by_eye_names(table: Table) -> Table:
    """Return the table with the patients of names such as `123_left`, if most names are such."""
    names = [parse_eye_patient(image_id) for image_id in table.rows["id"]]
    if 2 * names.count("") > len(names):
        return table
    return with_groups(table, Groups(names, "patients", "the names before _left and _right"))


def _find_folds(folder: Path) -> list[Path]:
    """Return the folders named fold_N, up to three levels deep, that contain both classes."""
    candidates = (path for depth in ("", "*/", "*/*/", "*/*/*/") for path in folder.glob(f"{depth}fold_*"))
    return sorted({path for path in candidates if (path / "all").is_dir() and (path / "hem").is_dir()})
