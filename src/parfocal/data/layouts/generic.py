"""Label layouts of any data set: a sheet with columns of images and labels, or a folder for each class."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from parfocal.data.findings import Finding
from parfocal.data.grouping import find_groups, group_by_sheet
from parfocal.data.labels import parse_labels, resolve_class_names
from parfocal.data.layouts.image_finder import IMAGE_SUFFIXES, ImageFinder, find_images
from parfocal.data.layouts.patients_file import PATIENTS_FILES
from parfocal.data.layouts.sheets import SHEET_SUFFIXES, read_column_names, read_sheet
from parfocal.data.table import SPLITS, Table, build_rows, natural_sort_key
from parfocal.errors import ParfocalError, did_you_mean, join_limited
from parfocal.recipe_schema import ColumnsConfig, DataConfig

SPLIT_ALIASES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
"""Common names of the splits, in lower case."""

# Common names of each column, the most likely first, in lower case.
_COMMON_NAMES = {
    "path": ("path", "image_path", "file_path", "filepath", "filename", "file_name", "file", "image", "image_id",
             "image name", "img", "id_code", "name", "id"),
    "label": ("label", "labels", "class", "target", "diagnosis", "level", "grade", "retinopathy grade", "category"),
    "split": ("split", "set", "subset", "partition", "fold"),
    "file_hash": ("digest", "sha256", "md5", "hash", "checksum"),
}  # fmt: skip


def recognize_columns(source: Path) -> str:
    """Return the sheet of a folder, with its columns of images and labels; an empty string if there is none."""
    file = _find_sheet(source)
    if file is None:
        return ""
    if file.suffix.lower() not in (".csv", ".tsv"):
        return file.name
    names = read_column_names(file)
    if not names and (file == source or file.stem.lower() == "labels"):
        # Reading the sheet raises an error that says what is wrong with it.
        return file.name
    path = _guess_column(names, "path")
    label = _guess_column(names, "label")
    return f"{file.name} with {' and '.join(filter(None, (path, label)))}" if path else ""


def read_columns(source: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read a sheet. Images are paths or bare names; labels are codes, names or one-hot columns."""
    file = _find_sheet(source)
    if file is None:
        raise ParfocalError(
            f"{source} does not contain exactly one sheet ({', '.join(SHEET_SUFFIXES)}). Give the file itself."
        )
    rows = read_sheet(file)
    roles = ("path", "split", "file_hash")
    path, split, file_hash = (_find_column(rows, file, role, getattr(columns, role)) for role in roles)
    if path is None:
        raise ParfocalError(
            f"{file} has no column with a common name for images. Set columns.path=… {_list_columns(rows)}"
        )
    label_texts, label = _read_labels(rows, file, columns.label)
    labels, codes = parse_labels(label_texts, lambda position: f"{file}, line {position + 2}")
    classes = resolve_class_names(codes, data.classes)
    ids = rows[path].tolist()
    if split:
        splits, folds = _parse_splits(rows[split].tolist(), file, split)
    else:
        splits, folds = ["train"] * len(ids), [""] * len(ids)
    finder = ImageFinder(Path(columns.folder) if columns.folder else file.parent)
    table_rows = build_rows(
        ids,
        [finder.find(name, split_name) for name, split_name in zip(ids, splits, strict=True)],
        labels,
        splits,
        ids,
        folds,
        rows[file_hash].tolist() if file_hash else None,
    )
    if columns.group:
        _find_column(rows, file, "group", columns.group)
    others = {path, label, *label.split("+"), split, file_hash} - {None}
    table = group_by_sheet(Table(table_rows, classes, codes, ""), rows, others, columns.group)
    groups = find_groups(rows, others, columns.group) if table.groups_are != "images" else None
    used = {"path": path, "label": label, "group": groups and groups.column, "split": split}
    description = ", ".join(f"{role}={name}" for role, name in used.items() if name)
    findings = (*table.findings, *_find_unread_sheets(file, split))
    return replace(table, source=f"columns of {file} ({description})", findings=findings)


def _find_unread_sheets(file: Path, split_column: str | None) -> tuple[Finding, ...]:
    """Warn of the sheets of other splits beside that of a split: valid.csv beside train.csv."""
    is_split = file.stem.lower() in SPLIT_ALIASES and not split_column
    others = [path for path in sorted(file.parent.iterdir()) if path.suffix.lower() in SHEET_SUFFIXES and path != file]
    unread = [path.name for path in others if path.stem.lower() in SPLIT_ALIASES]
    if not is_split or not unread:
        return ()
    message = f"Only {file.name} is read; the sheets of other splits beside it are not: {join_limited(unread)}."
    remedy = "Put all rows into one sheet with a column split (train, valid, test)."
    return (Finding("warning", "unread_sheets", message, (), remedy),)


def _find_sheet(source: Path) -> Path | None:
    """Return the source itself, or the only sheet of a folder, or its only sheet called `labels`."""
    if source.suffix.lower() in SHEET_SUFFIXES:
        return source
    sheets = [path for path in sorted(source.iterdir()) if path.suffix.lower() in SHEET_SUFFIXES]
    named_labels = [path for path in sheets if path.stem.lower() == "labels"]
    others = [
        path for path in sheets if path.name not in PATIENTS_FILES or _guess_column(read_column_names(path), "label")
    ]
    for candidates in (named_labels, others):
        if len(candidates) == 1:
            return candidates[0]
    return None


def _guess_column(names: list[str], role: str) -> str | None:
    by_lowercase = {name.strip().lower(): name for name in reversed(names)}
    return next((by_lowercase[common] for common in _COMMON_NAMES[role] if common in by_lowercase), None)


def _find_column(rows: pd.DataFrame, file: Path, role: str, name: str) -> str | None:
    if not name:
        return _guess_column(list(rows.columns), role)
    if name not in rows.columns:
        raise ParfocalError(f"{file} has no column {name!r} (columns.{role}). {did_you_mean(name, rows.columns)}")
    return name


def _read_labels(rows: pd.DataFrame, file: Path, names: tuple[str, ...]) -> tuple[list[str], str]:
    """Return the label of each row and the name of its column; one-hot columns are named after the classes."""
    for name in names:
        _find_column(rows, file, "label", name)
    one_hot = list(names) if len(names) > 1 else []
    column = names[0] if len(names) == 1 else None if one_hot else _guess_column(list(rows.columns), "label")
    if column:
        return rows[column].tolist(), column
    one_hot = one_hot or [name for name in rows.columns if set(rows[name].map(_to_float)) == {0.0, 1.0}]
    if len(one_hot) < 2:
        raise ParfocalError(
            f"{file} has no column with a common name for labels. Set columns.label=… {_list_columns(rows)}"
        )
    is_one = rows[one_hot].map(_to_float) == 1
    is_invalid = is_one.sum(axis=1) != 1
    if is_invalid.any():
        line = int(is_invalid.to_numpy().argmax()) + 2
        raise ParfocalError(f"{file}, line {line}: exactly one of {', '.join(one_hot)} must be 1.")
    return [str(name) for name in is_one.idxmax(axis=1)], "+".join(one_hot)


def _parse_splits(texts: list[str], file: Path, column: str) -> tuple[list[str], list[str]]:
    """Return the split and the fold of each row; rows with a fold are in train."""
    splits: list[str] = []
    folds: list[str] = []
    for line, text in enumerate(texts, start=2):
        name = text.strip().lower()
        fold = re.fullmatch(r"(?:fold)?[_ -]?(\d+)", name)
        if name not in SPLIT_ALIASES and not fold:
            raise ParfocalError(
                f"{file}, line {line}: the split in column {column!r} is {text!r}. "
                f"Valid are train, valid, test, or a fold such as fold_0. {did_you_mean(name, SPLIT_ALIASES)}"
            )
        splits.append("train" if fold else SPLIT_ALIASES[name])
        folds.append(f"fold_{fold[1]}" if fold else "")
    return splits, folds


def _to_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


def _list_columns(rows: pd.DataFrame) -> str:
    return f"Its columns are {', '.join(map(repr, rows.columns))}."


# Folders above the class folders are taken for patients only from this number on, if their names are numbered.
_MIN_PATIENT_FOLDERS = 6
_MIN_NUMBERED_SHARE = 0.9
_LATERALITY = {"left", "right", "l", "r", "od", "os"}


@dataclass(frozen=True)
class _ClassFolders:
    """The folders that hold class folders, each with its split; and the names of the classes."""

    parents: list[tuple[Path, str]]
    classes: tuple[str, ...]
    where: str


def recognize_folders(folder: Path) -> str:
    """Return what identifies a folder with a subfolder for each class, or an empty string."""
    found = _find_class_folders(folder)
    if len(found.classes) < 2:
        return ""
    names = f"{', '.join(found.classes[:5])}{', …' if len(found.classes) > 5 else ''}"
    return f"a folder for each class{found.where}: {names}"


def read_folders(folder: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read `[split/][patient/]class/image`, classes in natural order; each image is a group."""
    found = _find_class_folders(folder)
    ids: list[str] = []
    paths: list[Path] = []
    labels: list[int] = []
    splits: list[str] = []
    for parent, split in found.parents:
        for label, code in enumerate(found.classes):
            images = find_images(parent / code) if (parent / code).is_dir() else []
            ids += [path.relative_to(folder).as_posix() for path in images]
            paths += images
            labels += [label] * len(images)
            splits += [split] * len(images)
    rows = build_rows(ids, paths, labels, splits, ids)
    classes = resolve_class_names(found.classes, data.classes)
    source = f"folders at {folder} ({recognize_folders(folder)})"
    return Table(rows, classes, found.classes, source, findings=_find_empty_folders(folder, found))


def _find_class_folders(folder: Path) -> _ClassFolders:
    split_folders = [path for path in _list_folders(folder) if path.name.lower() in SPLIT_ALIASES]
    split_folders.sort(key=lambda path: SPLITS.index(SPLIT_ALIASES[path.name.lower()]))
    parents = [(path, SPLIT_ALIASES[path.name.lower()]) for path in split_folders] or [(folder, "train")]
    where = f" below {', '.join(path.name for path in split_folders)}" if split_folders else ""
    below = [(path, split) for parent, split in parents for path in _list_folders(parent)]
    if _are_patients([path for path, _ in below]):
        parents = below
        where += f" below each of {len(below)} folders such as {below[0][0].name}"
    folders = [path for parent, _ in parents for path in parent.iterdir() if path.is_dir()]
    names = {path.name for path in folders if any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.rglob("*"))}
    return _ClassFolders(parents, tuple(sorted(names, key=natural_sort_key)), where)


def _find_empty_folders(folder: Path, found: _ClassFolders) -> tuple[Finding, ...]:
    """Warn of empty folders beside the class folders, which may be classes whose images are missing."""
    beside = (path for parent, _ in found.parents for path in _list_folders(parent))
    empty = [path.relative_to(folder).as_posix() for path in beside if not any(path.iterdir())]
    if not empty:
        return ()
    message = f"{len(empty)} folders beside those of the classes are empty: {join_limited(empty)}."
    remedy = "If they are classes, add their images; else delete them."
    return (Finding("warning", "empty_folders", message, (), remedy),)


def _are_patients(folders: list[Path]) -> bool:
    """Return whether folders are those of patients, as in `P012/blast/x.png`, and not those of classes.

    The names of patients have numbers, and there are more patients than classes. A class folder is below two patients
    at least. Folders for splits and for left and right eyes are no class folders.
    """
    is_numbered = [any(letter.isdecimal() for letter in path.name) for path in folders]
    if len(folders) < _MIN_PATIENT_FOLDERS or sum(is_numbered) < _MIN_NUMBERED_SHARE * len(folders):
        return False
    n_above: Counter[str] = Counter()
    for folder in folders:
        content = list(folder.iterdir())
        if any(path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() for path in content):
            return False
        n_above.update(path.name for path in _list_folders(folder))
    names = {name.lower() for name in n_above}
    return (
        2 <= len(n_above) < len(folders) and min(n_above.values()) >= 2 and not names & {*SPLIT_ALIASES, *_LATERALITY}
    )


def _list_folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
