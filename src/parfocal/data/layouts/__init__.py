"""Label layouts: read the label files of any known layout into a Table. A new layout needs a module and a row here."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from parfocal.data.dicom import read_patient_id
from parfocal.data.group_patterns import extract_groups, propose_patterns
from parfocal.data.grouping import PERSONS, Groups, ignore_groups, warn_of_images, with_groups
from parfocal.data.image_header import SUFFIXES
from parfocal.data.labels import order_classes
from parfocal.data.layouts import arrays, generic, medical
from parfocal.data.layouts.misnamed_files import (
    EYEPACS_FILES,
    FUNDUS_LAB_FILES,
    LEUKEMIA_LAB_FILES,
    list_misnamed_files,
)
from parfocal.data.layouts.patients_file import find_path_column, find_patients_file, group_by_patients_file
from parfocal.data.layouts.sheets import read_column_names
from parfocal.data.parallel import map_ordered
from parfocal.data.table import Table
from parfocal.errors import ParfocalError, UsageError, did_you_mean, join_limited
from parfocal.recipe import Recipe, load_recipe
from parfocal.recipe_schema import ColumnsConfig, DataConfig

# As many folders below a source without labels are searched for labels, so that the error comes soon.
_MAX_FOLDERS = 50


@dataclass(frozen=True)
class Layout:
    """How labels are laid out. `recognize` returns what identifies a source as this layout, or an empty string.

    `accepts_file`: the source can be a single file instead of a folder. `label_files` are the names of files that stand
    for their folder, if `is_label_file` agrees.
    """

    description: str
    recognize: Callable[[Path], str]
    read: Callable[[Path, DataConfig, ColumnsConfig], Table]
    accepts_file: bool = False
    label_files: tuple[str, ...] = ()
    is_label_file: Callable[[Path], bool] = Path.is_file


LAYOUTS: dict[str, Layout] = {
    "fundus-lab": Layout(
        "train_img.csv and train_label.csv without headers",
        medical.recognize_fundus_lab,
        medical.read_fundus_lab,
        label_files=("train_img.csv", "train_label.csv"),
    ),
    "eyepacs": Layout(
        "trainLabels.csv with image,level",
        medical.recognize_eyepacs,
        medical.read_eyepacs,
        label_files=("trainLabels.csv", "trainLabels_cropped.csv"),
    ),
    "aptos": Layout(
        "train.csv with id_code,diagnosis",
        medical.recognize_aptos,
        medical.read_aptos,
        label_files=("train.csv",),
    ),
    "leukemia-lab": Layout(
        "train.csv and valid.csv with Path,label",
        medical.recognize_leukemia_lab,
        medical.read_leukemia_lab,
        label_files=("train.csv", "valid.csv"),
        is_label_file=medical.is_leukemia_lab_file,
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
        if source.is_file() and not LAYOUTS[name].accepts_file:
            note += f", of which {source.name} is a part; format=columns reads that file alone"
            source = source.parent
    elif name not in LAYOUTS:
        raise UsageError(f"data.format={name} is not a layout. {did_you_mean(name, ('auto', *LAYOUTS))}")
    elif source.is_file() and not LAYOUTS[name].accepts_file:
        raise UsageError(f"{source} is a file, but the layout {name} needs a folder.")
    table = order_classes(LAYOUTS[name].read(source, loaded.data, loaded.columns), loaded.data.classes)
    if table.rows.empty:
        raise ParfocalError(f"{source} contains no images in the layout {name} ({LAYOUTS[name].description}).")
    folders = _find_folders(source, loaded.columns.folder, table)
    table = replace(table, source=f"{table.source}{note}", folders=folders)
    return _resolve_groups(table, source, name, loaded)


def _find_folders(source: Path, images: str, table: Table) -> tuple[str, ...]:
    """Return the folders of the data: those that the caller named, and the images' folder next to a sheet."""
    named = [path for path in (source, Path(images)) if images or path == source]
    folders = {str(folder) for folder in named if folder.is_dir()}
    if not folders and not any(".npz#" in path for path in table.paths):
        # The folder of a sheet can be a home folder, so only the folder below it that has all its images counts.
        parents = [Path(path).parent for path in table.paths]
        inside = [parent for parent in parents if ".." not in parent.parts and parent.is_relative_to(source.parent)]
        folders = {os.path.commonpath(inside)} if inside else set()
    return tuple(sorted(folders))


def _recognize(source: Path, columns: ColumnsConfig) -> tuple[str, str]:
    """Return the name of the first layout that recognizes the source, and by what."""
    if columns.path or columns.label:
        return "columns", "the columns in the recipe"
    for name, layout in LAYOUTS.items():
        if source.name in layout.label_files and source.is_file() and layout.is_label_file(source):
            reason = layout.recognize(source.parent)
            if reason:
                return name, reason
        if (layout.accepts_file or source.is_dir()) and (reason := layout.recognize(source)):
            return name, reason
    known = "; ".join(f"{name} ({layout.description})" for name, layout in LAYOUTS.items())
    hint = _suggest_source(source) if source.is_dir() else ""
    raise ParfocalError(f"{source} contains no labels in a known layout. {hint}Known layouts: {known}.")


def _suggest_source(folder: Path) -> str:
    """Say which folder near this one holds labels, or which label file would be read under another name."""
    misnamed = list_misnamed_files(folder, {**FUNDUS_LAB_FILES, **EYEPACS_FILES, **LEUKEMIA_LAB_FILES})
    if misnamed:
        return f"Rename {join_limited(f'{name} to {right}' for name, right in misnamed.items())}. "
    below = [path for pattern in ("*/", "*/*/") for path in sorted(folder.glob(pattern)) if path.is_dir()]
    candidates = [(path, layout) for path in below[:_MAX_FOLDERS] for layout in LAYOUTS.values()]
    # The folder above can be a home folder, so it is searched for names of label files only.
    candidates += [(folder.resolve().parent, layout) for layout in LAYOUTS.values() if layout.label_files]
    for candidate, layout in candidates:
        with suppress(OSError):
            if reason := layout.recognize(candidate):
                return f"Did you mean {candidate}, with {reason}? "
    return ""


def _resolve_groups(table: Table, source: Path, layout: str, recipe: Recipe) -> Table:
    """Return the table with the groups that the recipe, patients.csv or DICOM name; else with those of the layout.

    A column of persons in the label file comes before patients.csv, and names of files after it. Where nothing says
    which patient an image belongs to, the table warns of it.
    """
    columns = recipe.columns
    home = source if source.is_dir() else source.parent
    folder = Path(columns.folder) if columns.folder else home
    prefix = f"{folder}{os.sep}"
    locations = [path.removeprefix(prefix).replace(os.sep, "/") for path in table.rows["path"]]
    patients_file = find_patients_file(home)
    is_in_sheet = table.groups_from.startswith(f"column {columns.group!r}" if columns.group else "column ")
    is_known = is_in_sheet and (bool(columns.group) or table.groups_are in PERSONS)
    if columns.group_from:
        names, pattern = extract_groups(columns.group_from, table.rows["id"].tolist(), locations)
        origin = f"columns.group_from={columns.group_from}"
        table = with_groups(table, Groups(names, pattern.kind, origin, pattern.is_narrow))
    elif not is_known and patients_file != source and _has_patients_file(patients_file, layout):
        table = group_by_patients_file(table, patients_file, locations, columns.group)
    elif columns.group and not is_known:
        raise ParfocalError(f"{source} has no column {columns.group!r} (columns.group).")
    elif table.groups_are not in PERSONS:
        table = _group_by_dicom(table)
    if recipe.split.by == "image":
        return ignore_groups(table)
    return warn_of_images(table, propose_patterns(locations)) if table.groups_are == "images" else table


def _has_patients_file(file: Path, layout: str) -> bool:
    """Return whether a file gives the patient of each image; a table of patients without images does not.

    In the leukemia lab it can be nothing else.
    """
    return file.is_file() and (layout == "leukemia-lab" or find_path_column(read_column_names(file)) is not None)


def _group_by_dicom(table: Table) -> Table:
    """Return the table with the patients that DICOM files name, unless they tell no patients apart."""
    if not any(Path(path).suffix.lower() in SUFFIXES["DICOM"] for path in table.paths):
        return table
    names = dict(zip(table.paths, map_ordered(table.paths, read_patient_id, "Reading patients"), strict=True))
    known = [name for name in names.values() if name]
    is_distinct = len(set(known)) == len(known)
    if len(set(known)) < 2 or (is_distinct and table.groups_are != "images"):
        return table
    return with_groups(table, Groups([names[path] for path in table.rows["path"]], "patients", "PatientID of DICOM"))
