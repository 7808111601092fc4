"""A folder for each class, with or without splits above."""

from pathlib import Path

import pytest

from parfocal.data.readers import read
from parfocal.errors import ParfocalError


def _touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    table = read(_touch(tmp_path, "10/a.png", "2/b.jpg", "1/c.bmp", "1/deep/d.png", "2/notes.txt"))
    assert table.classes == ("1", "2", "10")
    assert table.rows["id"].tolist() == ["1/c.bmp", "1/deep/d.png", "2/b.jpg", "10/a.png"]
    assert table.splits == ("train",)
    assert "recognised by one folder a class: 1, 2, 10" in table.source


def test_splits_may_stand_above_under_any_usual_name(tmp_path: Path) -> None:
    table = read(_touch(tmp_path, "Train/cat/1.png", "Train/dog/2.png", "val/cat/3.png", "testing/dog/4.png"))
    assert dict(zip(table.rows["id"], table.rows["split"], strict=True)) == {
        "Train/cat/1.png": "train",
        "Train/dog/2.png": "train",
        "val/cat/3.png": "valid",
        "testing/dog/4.png": "test",
    }


def test_names_are_given_in_the_recipe(tmp_path: Path) -> None:
    table = read(_touch(tmp_path, "0/a.png", "1/b.png"), classes=["healthy", "ill"])
    assert table.classes == ("healthy", "ill")
    assert table.codes == ("0", "1")


def test_one_folder_of_images_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match="in a layout that is known"):
        read(_touch(tmp_path, "images/a.png", "images/b.png"))
