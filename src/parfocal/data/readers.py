"""Label files of every known layout in, one Table out. A layout is recognised by its files, or named."""

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from parfocal.data.table import UNKNOWN, Table, assemble
from parfocal.errors import ParfocalError, UsageError, nearest

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Layout:
    """One way in which labels lie on disk: the file that gives it away, and the function that reads it."""

    mark: str
    about: str
    read: Callable[[Path], Table]


def read(source: Path | str, format: str = "auto") -> Table:  # noqa: A002
    """Read the labels below the folder `source`; `Table.source` says which layout was taken and why."""
    folder = Path(source)
    if not folder.is_dir():
        raise ParfocalError(f"{folder} is not a folder. Give the folder that holds the label files.")
    if format != "auto":
        if format not in LAYOUTS:
            raise UsageError(f"There is no label format {format!r}. {nearest(format, LAYOUTS)}")
        return LAYOUTS[format].read(folder)
    for layout in LAYOUTS.values():
        if (folder / layout.mark).is_file():
            return layout.read(folder)
    known = "; ".join(f"{name} ({layout.about})" for name, layout in LAYOUTS.items())
    raise ParfocalError(f"{folder} holds no label files that are known. Known layouts: {known}.")


def _leukemia_lab(folder: Path) -> Table:
    classes, codes = ("normal", "blast"), ("0", "1")
    patients = _pairs(folder / "patients.csv", "patient")
    truths = _pairs(folder / "test_truth.csv", "label")
    ids: list[str] = []
    labels: list[int] = []
    splits: list[str] = []
    for split in ("train", "valid"):
        file = folder / f"{split}.csv"
        if split == "valid" and not file.exists():
            continue
        rows = _csv(file, ("Path", "label"))
        ids += rows["Path"].tolist()
        labels += [_code(text, codes, classes, file, line) for line, text in enumerate(rows["label"], start=2)]
        splits += [split] * len(rows)
    lists: dict[str, tuple[str, ...]] = {}
    for file in sorted(folder.glob("resnet_*_test.csv")):
        lists[file.stem] = tuple(_csv(file, ("Path",))["Path"])
    asked = list(dict.fromkeys(one for wanted in lists.values() for one in wanted))
    ids += asked
    labels += [_truth(one, truths, codes, classes, folder) for one in asked]
    splits += ["test"] * len(asked)
    rows = assemble(ids, [folder / one for one in ids], labels, splits, [patients.get(one, one) for one in ids])
    files = ["train.csv", *(["valid.csv"] if "valid" in splits else []), *(f"{name}.csv" for name in lists)]
    return Table(rows, classes, codes, f"leukemia-lab at {folder} ({', '.join(files)})", lists)


def _fundus_lab(folder: Path) -> Table:
    classes, codes = ("no DR", "mild", "moderate", "severe", "proliferative"), ("0", "1", "2", "3", "4")
    known = _images_by_name(folder)
    ids: list[str] = []
    paths: list[Path] = []
    labels: list[int] = []
    splits: list[str] = []
    for split in ("train", "test"):
        name_file, label_file = folder / f"{split}_img.csv", folder / f"{split}_label.csv"
        if split == "test" and not name_file.exists():
            continue
        names, texts = _column(name_file), _column(label_file)
        if len(names) != len(texts):
            raise ParfocalError(
                f"{name_file} has {len(names)} rows, {label_file.name} has {len(texts)}; they must match."
            )
        ids += names
        paths += [_place(name, split, known, folder) for name in names]
        labels += [_code(text, codes, classes, label_file, line) for line, text in enumerate(texts, start=1)]
        splits += [split] * len(names)
    groups = [re.sub(r"_(left|right)$", "", name) for name in ids]
    rows = assemble(ids, paths, labels, splits, groups)
    return Table(rows, classes, codes, f"fundus-lab at {folder} (train_img.csv, train_label.csv, …)")


LAYOUTS: dict[str, Layout] = {
    "fundus-lab": Layout("train_img.csv", "train_img.csv and train_label.csv without headers", _fundus_lab),
    "leukemia-lab": Layout("train.csv", "train.csv and valid.csv with Path,label", _leukemia_lab),
}


def _csv(file: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read the named columns as text; say plainly what is wrong with the file."""
    rows = _readable(file, header=0)
    for column in columns:
        if column not in rows.columns:
            found = ", ".join(map(repr, rows.columns))
            raise ParfocalError(
                f"{file} has no column {column!r}; it has {found}. {nearest(column, map(str, rows.columns))} "
                f"The first line must be {','.join(columns)}."
            )
    if rows.empty:
        raise ParfocalError(f"{file} has no rows below its header. Fill the split, or delete the file.")
    return rows


def _column(file: Path) -> list[str]:
    """Read a file of one column without a header."""
    rows = _readable(file, header=None)
    if rows.shape[1] != 1:
        raise ParfocalError(f"{file} has {rows.shape[1]} columns; this layout has one value a line and no header.")
    return rows[0].str.strip().tolist()


def _readable(file: Path, header: int | None) -> pd.DataFrame:
    try:
        return pd.read_csv(file, header=header, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise ParfocalError(f"{file} is missing.") from None
    except pd.errors.EmptyDataError:
        raise ParfocalError(f"{file} is empty.") from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ParfocalError(f"{file} is not a readable CSV file: {error}".strip()) from None
    except OSError as error:
        raise ParfocalError(f"{file} cannot be read: {error.strerror}.") from None


def _pairs(file: Path, column: str) -> dict[str, str]:
    if not file.exists():
        return {}
    rows = _csv(file, ("Path", column))
    return dict(zip(rows["Path"], rows[column], strict=True))


def _code(text: str, codes: tuple[str, ...], classes: tuple[str, ...], file: Path, line: int) -> int:
    """Turn what the data writes into the index of a class; it may write the code or the name."""
    word = text.strip().removesuffix(".0")
    if word in codes:
        return codes.index(word)
    lowered = [name.lower() for name in classes]
    if word.lower() in lowered:
        return lowered.index(word.lower())
    meanings = ", ".join(f"{code} ({name})" for code, name in zip(codes, classes, strict=True))
    shown = repr(text) if text.strip() else "empty"
    raise ParfocalError(f"{file}, line {line}: the label is {shown}. Valid are {meanings}.")


def _truth(one: str, truths: dict[str, str], codes: tuple[str, ...], classes: tuple[str, ...], folder: Path) -> int:
    if not truths:
        return UNKNOWN
    if one not in truths:
        raise ParfocalError(f"{folder / 'test_truth.csv'} has no row for {one}. Add it, or delete the file.")
    return _code(truths[one], codes, classes, folder / "test_truth.csv", list(truths).index(one) + 2)


def _images_by_name(folder: Path) -> dict[str, list[Path]]:
    """Index the images below a folder by their names without suffix, JPEGs first."""
    known: dict[str, list[Path]] = defaultdict(list)
    for path in folder.rglob("*"):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            known[path.stem].append(path)
    for paths in known.values():
        paths.sort(key=lambda path: (IMAGE_SUFFIXES.index(path.suffix.lower()), str(path)))
    return known


def _place(name: str, split: str, known: dict[str, list[Path]], folder: Path) -> Path:
    """Choose the file of a name: the one below a folder called after the split, else the only one."""
    paths = known.get(name, [])
    beside = [path for path in paths if any(split in part for part in path.relative_to(folder).parts[:-1])]
    if beside or paths:
        return (beside or paths)[0]
    return folder / f"new_{split}" / f"{name}.jpeg"
