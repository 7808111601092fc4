"""Any sheet with a column of images and a column (or several) of labels; names are guessed, or given in the recipe."""
# MERGED: """A folder for each class, with or without train, valid and test above it."""

import re
from pathlib import Path

import pandas as pd

from parfocal.data.layouts.classes import find_class_index, find_codes, natural_sort_key, resolve_class_names
from parfocal.data.layouts.image_finder import IMAGE_SUFFIXES, ImageFinder, find_images
from parfocal.data.layouts.sheets import SHEET_SUFFIXES, read_column_names, read_sheet
from parfocal.data.table import SPLITS, UNKNOWN, Table, build_rows
from parfocal.errors import ParfocalError, did_you_mean
from parfocal.schema import ColumnsConfig, DataConfig

# What a column is usually called, the likeliest first; compared in lower case.
_COMMON_NAMES = {
    "path": ("path", "image_path", "file_path", "filepath", "filename", "file_name", "file", "image", "image_id",
             "image name", "img", "id_code", "name", "id"),
    "label": ("label", "labels", "class", "target", "diagnosis", "level", "grade", "retinopathy grade", "category"),
    "group": ("group", "patient", "patient_id", "subject", "subject_id", "case"),
    "split": ("split", "set", "subset", "partition", "fold"),
    "file_hash": ("digest", "sha256", "md5", "hash", "checksum"),
}  # fmt: skip


def recognize_columns(source: Path) -> str:
    """Say which sheet of a folder, or which columns of a file, say where images are and what they show; or nothing."""
    file = _find_sheet(source)
    if file is None:
        return ""
    if file.suffix.lower() not in (".csv", ".tsv"):
        return file.name
    names = read_column_names(file)
    found = [_guess_column(names, kind) for kind in ("path", "label")]
    return f"{file.name} with {' and '.join(filter(None, found))}" if found[0] else ""


def read_columns(source: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read a sheet: paths or bare names, labels as codes, names or one-hot columns, and groups and splits if named."""
    file = _find_sheet(source)
    if file is None:
        raise ParfocalError(f"{source} holds no single sheet ({', '.join(SHEET_SUFFIXES)}). Name the file itself.")
    rows = read_sheet(file)
    kinds = ("path", "group", "split", "file_hash")
    path, group, split, digest = (_find_column(rows, file, kind, getattr(columns, kind)) for kind in kinds)
    if path is None:
        raise ParfocalError(
            f"{file} has no column of images that is known. Name it: columns.path=… {_list_columns(rows)}"
        )
    texts, label = _read_labels(rows, file, columns.label)
    codes = find_codes(texts)
    classes = resolve_class_names(codes, data.classes)
    ids = rows[path].tolist()
    labels = [
        find_class_index(text, codes, classes, file, line) if text.strip() else UNKNOWN
        for line, text in enumerate(texts, start=2)
    ]
    sides, folds = (
        _parse_splits(rows[split].tolist(), file, split) if split else (["train"] * len(ids), [""] * len(ids))
    )
    places = ImageFinder(Path(columns.folder) if columns.folder else file.parent)
    paths = [places.find(one, side) for one, side in zip(ids, sides, strict=True)]
    table_rows = build_rows(
        ids,
        paths,
        labels,
        sides,
        rows[group].tolist() if group else ids,
        folds,
        rows[digest].tolist() if digest else None,
    )
    taken = {"path": path, "label": label, "group": group, "split": split}
    said = ", ".join(f"{kind}={name}" for kind, name in taken.items() if name)
    return Table(table_rows, classes, codes, f"columns of {file} ({said})")


def _find_sheet(source: Path) -> Path | None:
    if source.suffix.lower() in SHEET_SUFFIXES:
        return source
    found = [path for path in sorted(source.iterdir()) if path.suffix.lower() in SHEET_SUFFIXES]
    known = [path for path in found if path.stem.lower() == "labels"]
    return known[0] if len(known) == 1 else found[0] if len(found) == 1 else None


def _guess_column(names: list[str], role: str) -> str | None:
    lowered = {name.strip().lower(): name for name in reversed(names)}
    return next((lowered[usual] for usual in _COMMON_NAMES[role] if usual in lowered), None)


def _find_column(rows: pd.DataFrame, file: Path, role: str, name: str) -> str | None:
    if not name:
        return _guess_column(list(rows.columns), role)
    if name not in rows.columns:
        raise ParfocalError(f"{file} has no column {name!r} (columns.{role}). {did_you_mean(name, rows.columns)}")
    return name


def _read_labels(rows: pd.DataFrame, file: Path, names: tuple[str, ...]) -> tuple[list[str], str]:
    """Return what each row says, and in which column; several columns are one-hot and their names are the classes."""
    for name in names:
        _find_column(rows, file, "label", name)
    hot = list(names) if len(names) > 1 else []
    single = names[0] if len(names) == 1 else None if hot else _guess_column(list(rows.columns), "label")
    if single:
        return rows[single].tolist(), single
    hot = hot or [name for name in rows.columns if set(rows[name].map(_to_float)) == {0.0, 1.0}]
    if len(hot) < 2:
        raise ParfocalError(
            f"{file} has no column of labels that is known. Name it: columns.label=… {_list_columns(rows)}"
        )
    ones = rows[hot].map(_to_float) == 1
    wrong = ones.sum(axis=1) != 1
    if wrong.any():
        line = int(wrong.to_numpy().argmax()) + 2
        raise ParfocalError(f"{file}, line {line}: exactly one of {', '.join(hot)} must be 1.")
    return [str(name) for name in ones.idxmax(axis=1)], "+".join(hot)


def _parse_splits(texts: list[str], file: Path, column: str) -> tuple[list[str], list[str]]:
    """Return split and fold of each row; a column that numbers folds gives folds."""
    sides: list[str] = []
    folds: list[str] = []
    for line, text in enumerate(texts, start=2):
        word = text.strip().lower()
        fold = re.fullmatch(r"(?:fold)?[_ -]?(\d+)", word)
        if word not in SPLIT_ALIASES and not fold:
            raise ParfocalError(
                f"{file}, line {line}: the split in column {column!r} is {text!r}. "
                f"Valid are train, valid, test, or a fold such as fold_0. {did_you_mean(word, SPLIT_ALIASES)}"
            )
        sides.append("train" if fold else SPLIT_ALIASES[word])
        folds.append(f"fold_{fold[1]}" if fold else "")
    return sides, folds


def _to_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


def _list_columns(rows: pd.DataFrame) -> str:
    return f"It has {', '.join(map(repr, rows.columns))}."


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
"""What people call the splits, in lower case."""


def recognize_folders(folder: Path) -> str:
    """Say why a folder holds a folder for each class, or nothing."""
    splits, classes = _find_split_folders(folder)
    if len(classes) < 2:
        return ""
    above = f" below {', '.join(split.name for split in splits)}" if splits != [folder] else ""
    return f"one folder a class{above}: {', '.join(classes[:5])}{', …' if len(classes) > 5 else ''}"


def read_folders(folder: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read `[split/]class/image`; classes in natural order; every image is its own group."""
    splits, codes = _find_split_folders(folder)
    ids: list[str] = []
    paths: list[Path] = []
    labels: list[int] = []
    sides: list[str] = []
    for split in splits:
        side = "train" if split == folder else SPLIT_ALIASES[split.name.lower()]
        for label, code in enumerate(codes):
            found = find_images(split / code) if (split / code).is_dir() else []
            ids += [path.relative_to(folder).as_posix() for path in found]
            paths += found
            labels += [label] * len(found)
            sides += [side] * len(found)
    rows = build_rows(ids, paths, labels, sides, ids)
    return Table(
        rows, resolve_class_names(codes, data.classes), codes, f"folders at {folder} ({recognize_folders(folder)})"
    )


def _find_split_folders(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Return the folders that stand for splits (or the folder itself), and the names of the class folders in them."""
    below = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    splits = [path for path in below if path.name.lower() in SPLIT_ALIASES]
    splits.sort(key=lambda path: SPLITS.index(SPLIT_ALIASES[path.name.lower()]))
    parents = splits or [folder]
    names = {path.name for parent in parents for path in parent.iterdir() if path.is_dir() and _has_images(path)}
    return parents, tuple(sorted(names, key=natural_sort_key))


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("*"))
