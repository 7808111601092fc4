"""Reading any layout: unknown sources and layout names are errors, and a layout is added by a row."""

from pathlib import Path

import pytest

from parfocal.data.layouts import LAYOUTS, Layout, read
from parfocal.data.table import Table, build_rows
from parfocal.errors import ParfocalError, UsageError
from parfocal.recipe_schema import ColumnsConfig, DataConfig


def test_a_missing_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match="nowhere does not exist"):
        read(tmp_path / "nowhere")


def test_a_folder_in_no_known_layout_is_an_error_with_the_known_layouts(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match="Known layouts: fundus-lab"):
        read(tmp_path)


def test_a_folder_whose_subfolder_holds_the_labels_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "data" / "smears" / "images").mkdir(parents=True)
    (tmp_path / "data" / "smears" / "train.csv").write_text("Path,label\na.bmp,0\n")
    for folder in (tmp_path / "data", tmp_path / "data" / "smears" / "images"):
        with pytest.raises(ParfocalError, match=r"Did you mean .*smears, with train\.csv with Path,label\?"):
            read(folder)


def test_a_label_file_with_a_suffix_in_capitals_is_named(tmp_path: Path) -> None:
    for name in ("train.CSV", "valid.CSV"):
        (tmp_path / name).write_text("Path,label\na.bmp,0\n")
    with pytest.raises(ParfocalError, match=r"Rename train\.CSV to train\.csv, valid\.CSV to valid\.csv\."):
        read(tmp_path)


def test_an_unknown_layout_name_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'fundus-lab'"):
        read(tmp_path, format="fundus_lab")


def test_a_new_layout_needs_only_its_functions_and_a_row_in_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recognize_names(folder: Path) -> str:
        return "images named after their class" if list(folder.glob("*_*.png")) else ""

    def read_names(folder: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
        paths = sorted(folder.glob("*_*.png"))
        names = [path.stem for path in paths]
        labels = [("cat", "dog").index(name.split("_")[0]) for name in names]
        rows = build_rows(names, paths, labels, ["train"] * len(names), names)
        return Table(rows, ("cat", "dog"), ("cat", "dog"), f"names at {folder}")

    for name in ("cat_1", "dog_1", "cat_2"):
        (tmp_path / f"{name}.png").write_bytes(b"x")
    monkeypatch.setitem(LAYOUTS, "names", Layout("CLASS_NUMBER.png", recognize_names, read_names))
    for table in (read(tmp_path), read(tmp_path, format="names")):
        assert table.rows["id"].tolist() == ["cat_1", "cat_2", "dog_1"]
        assert table.rows["label"].tolist() == [0, 0, 1]
    assert read(tmp_path).source == f"names at {tmp_path}; recognized by images named after their class"
