"""Files are complete or absent, whatever happens while they are written."""

import json
from pathlib import Path

import pytest

from parfocal.errors import ParfocalError
from parfocal.io import atomic_write, get_cache_folder, write_json, write_text


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    write_text(path, "old")

    def write_and_fail() -> None:
        with atomic_write(path) as temporary_path:
            temporary_path.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_missing_parent_folders_are_created(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b.json", {"é": 1})
    assert json.loads((tmp_path / "a" / "b.json").read_text(encoding="utf-8")) == {"é": 1}


def test_the_error_names_a_file_that_is_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ParfocalError, match=r"Cannot write .*taken/out\.txt"):
        write_text(tmp_path / "taken" / "out.txt", "text")


def test_the_error_says_that_the_disk_is_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def raise_disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", raise_disk_full)
    with pytest.raises(ParfocalError, match="the disk is full"):
        write_text(tmp_path / "out.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_environment_variables_set_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert get_cache_folder("weights", "PARFOCAL_WEIGHTS") == tmp_path / "parfocal" / "weights"
    monkeypatch.setenv("PARFOCAL_WEIGHTS", str(tmp_path / "mine"))
    assert get_cache_folder("weights", "PARFOCAL_WEIGHTS") == tmp_path / "mine"
