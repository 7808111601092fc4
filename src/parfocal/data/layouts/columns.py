"""Any sheet with a column of images and a column (or several) of labels; names are guessed, or given in the recipe."""

import re
from pathlib import Path

import pandas as pd

from parfocal.data.layouts.classes import codes_in, index_of, named
from parfocal.data.layouts.folders import SPLIT_WORDS
from parfocal.data.layouts.places import Places
from parfocal.data.layouts.sheets import SHEET_SUFFIXES, header, sheet
from parfocal.data.table import UNKNOWN, Table, assemble
from parfocal.errors import ParfocalError, nearest
from parfocal.parts import ColumnsPart, DataPart

# What a column is usually called, the likeliest first; compared in lower case.
_USUAL = {
    "path": ("path", "image_path", "file_path", "filepath", "filename", "file_name", "file", "image", "image_id",
             "image name", "img", "id_code", "name", "id"),
    "label": ("label", "labels", "class", "target", "diagnosis", "level", "grade", "retinopathy grade", "category"),
    "group": ("group", "patient", "patient_id", "subject", "subject_id", "case"),
    "split": ("split", "set", "subset", "partition", "fold"),
    "digest": ("digest", "sha256", "md5", "hash", "checksum"),
}  # fmt: skip


def recognise_columns(source: Path) -> str:
    """Say which sheet of a folder, or which columns of a file, say where images are and what they show; or nothing."""
    file = _file(source)
    if file is None:
        return ""
    if file.suffix.lower() not in (".csv", ".tsv"):
        return file.name
    names = header(file)
    found = [_guess(names, kind) for kind in ("path", "label")]
    return f"{file.name} with {' and '.join(filter(None, found))}" if found[0] else ""


def read_columns(source: Path, data: DataPart, columns: ColumnsPart) -> Table:
    """Read a sheet: paths or bare names, labels as codes, names or one-hot columns, and groups and splits if named."""
    file = _file(source)
    if file is None:
        raise ParfocalError(f"{source} holds no single sheet ({', '.join(SHEET_SUFFIXES)}). Name the file itself.")
    rows = sheet(file)
    kinds = ("path", "group", "split", "digest")
    path, group, split, digest = (_column(rows, file, kind, getattr(columns, kind)) for kind in kinds)
    if path is None:
        raise ParfocalError(f"{file} has no column of images that is known. Name it: columns.path=… {_has(rows)}")
    texts, label = _labels(rows, file, columns.label)
    codes = codes_in(texts)
    classes = named(codes, data.classes)
    ids = rows[path].tolist()
    labels = [
        index_of(text, codes, classes, file, line) if text.strip() else UNKNOWN
        for line, text in enumerate(texts, start=2)
    ]
    sides, folds = _sides(rows[split].tolist(), file, split) if split else (["train"] * len(ids), [""] * len(ids))
    places = Places(Path(columns.folder) if columns.folder else file.parent)
    paths = [places.find(one, side) for one, side in zip(ids, sides, strict=True)]
    table_rows = assemble(
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


def _file(source: Path) -> Path | None:
    if source.suffix.lower() in SHEET_SUFFIXES:
        return source
    found = [path for path in sorted(source.iterdir()) if path.suffix.lower() in SHEET_SUFFIXES]
    known = [path for path in found if path.stem.lower() == "labels"]
    return known[0] if len(known) == 1 else found[0] if len(found) == 1 else None


def _guess(names: list[str], kind: str) -> str | None:
    lowered = {name.strip().lower(): name for name in reversed(names)}
    return next((lowered[usual] for usual in _USUAL[kind] if usual in lowered), None)


def _column(rows: pd.DataFrame, file: Path, kind: str, given: str) -> str | None:
    if not given:
        return _guess(list(rows.columns), kind)
    if given not in rows.columns:
        raise ParfocalError(f"{file} has no column {given!r} (columns.{kind}). {nearest(given, rows.columns)}")
    return given


def _labels(rows: pd.DataFrame, file: Path, given: tuple[str, ...]) -> tuple[list[str], str]:
    """Return what each row says, and in which column; several columns are one-hot and their names are the classes."""
    for name in given:
        _column(rows, file, "label", name)
    hot = list(given) if len(given) > 1 else []
    single = given[0] if len(given) == 1 else None if hot else _guess(list(rows.columns), "label")
    if single:
        return rows[single].tolist(), single
    hot = hot or [name for name in rows.columns if set(rows[name].map(_number)) == {0.0, 1.0}]
    if len(hot) < 2:
        raise ParfocalError(f"{file} has no column of labels that is known. Name it: columns.label=… {_has(rows)}")
    ones = rows[hot].map(_number) == 1
    wrong = ones.sum(axis=1) != 1
    if wrong.any():
        line = int(wrong.to_numpy().argmax()) + 2
        raise ParfocalError(f"{file}, line {line}: exactly one of {', '.join(hot)} must be 1.")
    return [str(name) for name in ones.idxmax(axis=1)], "+".join(hot)


def _sides(texts: list[str], file: Path, column: str) -> tuple[list[str], list[str]]:
    """Return split and fold of each row; a column that numbers folds gives folds."""
    sides: list[str] = []
    folds: list[str] = []
    for line, text in enumerate(texts, start=2):
        word = text.strip().lower()
        fold = re.fullmatch(r"(?:fold)?[_ -]?(\d+)", word)
        if word not in SPLIT_WORDS and not fold:
            raise ParfocalError(
                f"{file}, line {line}: the split in column {column!r} is {text!r}. "
                f"Valid are train, valid, test, or a fold such as fold_0. {nearest(word, SPLIT_WORDS)}"
            )
        sides.append("train" if fold else SPLIT_WORDS[word])
        folds.append(f"fold_{fold[1]}" if fold else "")
    return sides, folds


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


def _has(rows: pd.DataFrame) -> str:
    return f"It has {', '.join(map(repr, rows.columns))}."
