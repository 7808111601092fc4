"""Prepared pixels: one array and its index, made once, whole or absent."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from parfocal.data.decode import prepare_image
from parfocal.data.readers import read
from parfocal.data.store import examine, prepare, stores_folder
from parfocal.errors import ParfocalError
from parfocal.recipe import ImagesPart


def test_pixels_are_those_of_the_files_in_the_order_of_the_table(cells: Path) -> None:
    table, images = read(cells), ImagesPart(size=32)
    store = prepare(table, images)
    assert store.pixels.shape == (len(table), 32, 32, 3)
    assert not store.pixels.flags.writeable
    for row, place in zip((0, 50, 75), store.places(table)[[0, 50, 75]], strict=True):
        expected, facts = prepare_image(Path(table.rows["path"].iloc[row]), images)
        np.testing.assert_array_equal(store.pixels[place], expected)
        assert store.index["digest"].iloc[place] == facts.digest


def test_the_number_of_threads_changes_nothing(cells: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table, images = read(cells), ImagesPart(size=32)
    content: list[bytes] = []
    for workers in (1, 5):
        monkeypatch.setenv("PARFOCAL_STORES", str(tmp_path / f"stores-{workers}"))
        content.append((prepare(table, images, workers=workers).folder / "pixels.npy").read_bytes())
    assert content[0] == content[1]


def test_it_is_opened_again_while_nothing_has_changed(cells: Path) -> None:
    first = prepare(read(cells), ImagesPart(size=32))
    stamp = (first.folder / "pixels.npy").stat().st_mtime_ns
    again = prepare(read(cells), ImagesPart(size=32))
    assert again.folder == first.folder
    assert (again.folder / "pixels.npy").stat().st_mtime_ns == stamp


def test_another_recipe_or_file_is_another_store(cells: Path) -> None:
    first = prepare(read(cells), ImagesPart(size=32))
    assert prepare(read(cells), ImagesPart(size=33)).folder != first.folder
    one = cells / "new_dataset" / "train" / "0.bmp"
    os.utime(one, ns=(1, 1))
    assert prepare(read(cells), ImagesPart(size=32)).folder != first.folder


def test_unreadable_files_are_black_and_named_in_the_index(cells: Path) -> None:
    bad = cells / "new_dataset" / "train" / "7.bmp"
    bad.write_bytes(b"BM nonsense")
    store = prepare(read(cells), ImagesPart(size=32))
    row = store.index[store.index["path"] == str(bad)].iloc[0]
    assert row["error"] == "truncated, damaged or not an image"
    assert store.pixels[store.index.index[store.index["path"] == str(bad)][0]].max() == 0


def test_examining_gives_the_same_index_and_keeps_nothing(cells: Path) -> None:
    table, images = read(cells), ImagesPart(size=32)
    index = examine(table, images)
    assert not stores_folder().exists() or not list(stores_folder().iterdir())
    assert index.to_dict() == prepare(table, images).index.to_dict()


def test_a_place_that_cannot_be_written_is_one_message(
    cells: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("PARFOCAL_STORES", str(tmp_path / "taken" / "stores"))
    with pytest.raises(ParfocalError, match=r"Cannot write .*taken"):
        prepare(read(cells), ImagesPart(size=32))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit stands in for a full disk on Linux")
def test_a_full_disk_leaves_no_store(draw: Callable[..., Path], tmp_path: Path) -> None:
    folder = draw(tmp_path / "cells", train=40, valid=4, test=2)
    command = [sys.executable, "-m", "parfocal", "prepare", str(folder), "size=128", "crop=128"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Cannot write ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(stores_folder().iterdir()) == []
