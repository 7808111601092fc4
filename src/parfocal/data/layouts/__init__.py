"""Label files of every known layout in, one Table out. A layout is recognised by its files, or named."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from parfocal.data.layouts import arrays as cifar
from parfocal.data.layouts import arrays as medmnist
from parfocal.data.layouts import generic as columns
from parfocal.data.layouts import generic as folders
from parfocal.data.layouts import medical as labs
from parfocal.data.layouts import medical as published
from parfocal.data.table import Table
from parfocal.errors import ParfocalError, UsageError, join_limited
from parfocal.recipe import Recipe
from parfocal.recipe import load_recipe as find_recipe
from parfocal.schema import ColumnsConfig, DataConfig


@dataclass(frozen=True)
class Layout:
    """One way in which labels lie on disk: how it is recognised (the reason, or nothing), and how it is read."""

    description: str
    recognize: Callable[[Path], str]
    read: Callable[[Path, DataConfig, ColumnsConfig], Table]
    accepts_file: bool = False


LAYOUTS: dict[str, Layout] = {
    "fundus-lab": Layout(
        "train_img.csv and train_label.csv without headers", labs.recognize_fundus_lab, labs.read_fundus_lab
    ),
    "eyepacs": Layout("trainLabels.csv with image,level", published.recognize_eyepacs, published.read_eyepacs),
    "aptos": Layout("train.csv with id_code,diagnosis", published.recognize_aptos, published.read_aptos),
    "leukemia-lab": Layout(
        "train.csv and valid.csv with Path,label", labs.recognize_leukemia_lab, labs.read_leukemia_lab
    ),
    "cnmc": Layout("fold_*/all and fold_*/hem", published.recognize_cnmc, published.read_cnmc),
    "cifar10": Layout("cifar-10-python.tar.gz", cifar.recognize_cifar10, cifar.read_cifar10, accepts_file=True),
    "medmnist": Layout("one .npz file", medmnist.recognize_medmnist, medmnist.read_medmnist, accepts_file=True),
    "columns": Layout(
        "a sheet with columns of images and labels", columns.recognize_columns, columns.read_columns, accepts_file=True
    ),
    "folders": Layout("a folder for each class", folders.recognize_folders, folders.read_folders),
}


def read(source: Path | str, recipe: str | Path | Recipe | None = None, **changes: Any) -> Table:
    """Read the labels of a folder or file; `Table.source` says which layout was taken and why.

    The recipe's parts `data` and `columns` say how; `read("sheet.csv", group="patient")` changes a key of them.
    """
    chosen = find_recipe(recipe, **changes)
    place, part, wanted = Path(source), chosen.data, chosen.columns
    if not place.exists():
        raise ParfocalError(f"{place} is not there. Give the folder of the label files, or a sheet or .npz file.")
    if part.format != "auto":
        name, why = part.format, "named by format"
        if place.is_file() and not LAYOUTS[name].accepts_file:
            raise UsageError(f"{place} is a file; the layout {name} is a folder.")
    else:
        name, why = _recognize(place, wanted)
    table = LAYOUTS[name].read(place, part, wanted)
    if table.rows.empty:
        raise ParfocalError(f"{place} holds no images in the layout {name} ({LAYOUTS[name].description}).")
    table = replace(table, source=f"{table.source}; recognised by {why}" if part.format == "auto" else table.source)
    return _extract_groups(table, wanted.group_from) if wanted.group_from else table


def _recognize(source: Path, columns_config: ColumnsConfig) -> tuple[str, str]:
    """Return the first layout that knows the place, and by what; columns that are named call for a sheet."""
    if columns_config.path or columns_config.label:
        return "columns", "the columns that were named"
    for name, layout in LAYOUTS.items():
        if (layout.accepts_file or source.is_dir()) and (why := layout.recognize(source)):
            return name, why
    known = "; ".join(f"{name} ({layout.description})" for name, layout in LAYOUTS.items())
    raise ParfocalError(f"{source} holds no labels in a layout that is known. Known layouts: {known}.")


def _extract_groups(table: Table, pattern: str) -> Table:
    """Take each row's group from its id by a regular expression."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"columns.group_from={pattern!r} is not a regular expression: {error}.") from None
    found = [expression.search(one) for one in table.rows["id"]]
    missed = [one for one, match in zip(table.rows["id"], found, strict=True) if not match]
    if missed:
        raise ParfocalError(
            f"columns.group_from={pattern!r} finds no group in {len(missed)} ids: {join_limited(missed)}."
        )
    groups = [match[1 if expression.groups else 0] for match in found if match]
    return replace(table, rows=table.rows.assign(group=groups))
