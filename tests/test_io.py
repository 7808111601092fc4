"""A file is whole or absent, whatever happens while it is written."""

import json
from pathlib import Path

import pytest

from parfocal.errors import ParfocalError
from parfocal.io import atomic_write, get_cache_folder, write_json, write_text


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    write_text(path, "old")

    def interrupted() -> None:
        with atomic_write(path) as beside:
            beside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["notes.txt"]


def test_folders_above_are_made(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b.json", {"é": 1})
    assert json.loads((tmp_path / "a" / "b.json").read_text(encoding="utf-8")) == {"é": 1}


def test_a_file_where_a_folder_is_needed_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ParfocalError, match=r"Cannot write .*taken/out\.txt"):
        write_text(tmp_path / "taken" / "out.txt", "text")


def test_a_full_disk_is_told_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ParfocalError, match="the disk is full"):
        write_text(tmp_path / "out.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert get_cache_folder("weights", "PARFOCAL_WEIGHTS") == tmp_path / "parfocal" / "weights"
    monkeypatch.setenv("PARFOCAL_WEIGHTS", str(tmp_path / "mine"))
    assert get_cache_folder("weights", "PARFOCAL_WEIGHTS") == tmp_path / "mine"
