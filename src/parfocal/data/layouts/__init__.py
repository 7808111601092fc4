"""Label layouts: read the label files of any known layout into a Table. A new layout needs a module and a row here."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from parfocal.data.layouts import arrays, generic, medical
from parfocal.data.table import Table
from parfocal.errors import ParfocalError, UsageError, did_you_mean, join_limited
from parfocal.recipe import Recipe, load_recipe
from parfocal.schema import ColumnsConfig, DataConfig


@dataclass(frozen=True)
class Layout:
    """How labels are laid out. `recognize` returns what identifies a source as this layout, or an empty string.

    `accepts_file`: the source can be a single file instead of a folder.
    """

    description: str
    recognize: Callable[[Path], str]
    read: Callable[[Path, DataConfig, ColumnsConfig], Table]
    accepts_file: bool = False


LAYOUTS: dict[str, Layout] = {
    "fundus-lab": Layout(
        "train_img.csv and train_label.csv without headers", medical.recognize_fundus_lab, medical.read_fundus_lab
    ),
    "eyepacs": Layout(
        "trainLabels.csv with image,level",
        medical.recognize_eyepacs,
        partial(medical.read_grades, "eyepacs", "trainLabels.csv", "image", "level"),
    ),
    "aptos": Layout(
        "train.csv with id_code,diagnosis",
        medical.recognize_aptos,
        partial(medical.read_grades, "aptos", "train.csv", "id_code", "diagnosis"),
    ),
    "leukemia-lab": Layout(
        "train.csv and valid.csv with Path,label", medical.recognize_leukemia_lab, medical.read_leukemia_lab
    ),
    "cnmc": Layout("fold_*/all and fold_*/hem", medical.recognize_cnmc, medical.read_cnmc),
    "cifar10": Layout("cifar-10-python.tar.gz", arrays.recognize_cifar10, arrays.read_cifar10, accepts_file=True),
    "medmnist": Layout("a single .npz file", arrays.recognize_medmnist, arrays.read_medmnist, accepts_file=True),
    "columns": Layout(
        "a sheet with columns of images and labels", generic.recognize_columns, generic.read_columns, accepts_file=True
    ),
    "folders": Layout("a folder for each class", generic.recognize_folders, generic.read_folders),
}
"""Every layout by name. A source is read in the first layout that recognizes it, so special layouts come first."""


def read(source: Path | str, recipe: str | Path | Recipe | None = None, **changes: Any) -> Table:
    """Read the labels of a folder or file; `Table.source` says which layout was recognized, and by what.

    The recipe sections `data` and `columns` configure it; `read("sheet.csv", group="patient")` changes a key.
    """
    loaded = load_recipe(recipe, **changes)
    source = Path(source)
    if not source.exists():
        raise ParfocalError(f"{source} does not exist. Give the folder of the label files, or a sheet or .npz file.")
    name = loaded.data.format
    note = ""
    if name == "auto":
        name, reason = _recognize(source, loaded.columns)
        note = f"; recognized by {reason}"
    elif name not in LAYOUTS:
        raise UsageError(f"data.format={name} is not a layout. {did_you_mean(name, ('auto', *LAYOUTS))}")
    elif source.is_file() and not LAYOUTS[name].accepts_file:
        raise UsageError(f"{source} is a file, but the layout {name} needs a folder.")
    table = LAYOUTS[name].read(source, loaded.data, loaded.columns)
    if table.rows.empty:
        raise ParfocalError(f"{source} contains no images in the layout {name} ({LAYOUTS[name].description}).")
    table = replace(table, source=f"{table.source}{note}")
    return _extract_groups(table, loaded.columns.group_from) if loaded.columns.group_from else table


def _recognize(source: Path, columns: ColumnsConfig) -> tuple[str, str]:
    """Return the name of the first layout that recognizes the source, and by what."""
    if columns.path or columns.label:
        return "columns", "the columns in the recipe"
    for name, layout in LAYOUTS.items():
        if (layout.accepts_file or source.is_dir()) and (reason := layout.recognize(source)):
            return name, reason
    known = "; ".join(f"{name} ({layout.description})" for name, layout in LAYOUTS.items())
    raise ParfocalError(f"{source} contains no labels in a known layout. Known layouts: {known}.")


def _extract_groups(table: Table, pattern: str) -> Table:
    """Extract the group of each row from its id by a regular expression."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"columns.group_from={pattern!r} is not a regular expression: {error}.") from None
    ids = table.rows["id"]
    matches = [expression.search(image_id) for image_id in ids]
    unmatched = [image_id for image_id, match in zip(ids, matches, strict=True) if not match]
    if unmatched:
        raise ParfocalError(
            f"columns.group_from={pattern!r} finds no group in {len(unmatched)} ids: {join_limited(unmatched)}."
        )
    groups = [match[1 if expression.groups else 0] for match in matches if match]
    return replace(table, rows=table.rows.assign(group=groups))
