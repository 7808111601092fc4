"""A folder for each class, with or without train, valid and test above it."""

from pathlib import Path

from parfocal.data.layouts.classes import natural_sort_key, resolve_class_names
from parfocal.data.layouts.places import IMAGE_SUFFIXES, find_images
from parfocal.data.table import SPLITS, Table, build_rows
from parfocal.parts import ColumnsConfig, DataConfig

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
