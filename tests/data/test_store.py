"""The Store: an array of preprocessed pixels and its index, built once, complete or absent."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from parfocal.data import store as store_module
from parfocal.data.decode import prepare_image
from parfocal.data.layouts import read
from parfocal.data.store import get_stores_folder, prepare
from parfocal.errors import ParfocalError
from parfocal.recipe_schema import ImagesConfig
from tests.commands.run_command import expect_error, parfocal
from tests.full_disk import limit_file_size


def test_pixels_are_those_of_the_files_in_table_order(cells: Path) -> None:
    table, images = read(cells), ImagesConfig(size=32)
    store = prepare(table, images)
    assert store.pixels.shape == (len(table), 32, 32, 3)
    assert not store.pixels[:].flags.writeable
    for row, position in zip((0, 50, 75), table.find_positions_in(store.index)[[0, 50, 75]], strict=True):
        expected, info = prepare_image(Path(table.rows["path"].iloc[row]), images)
        np.testing.assert_array_equal(store.pixels[position], expected)
        assert store.index["digest"].iloc[position] == info.digest


def test_the_number_of_threads_does_not_change_the_pixels(
    cells: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table, images = read(cells), ImagesConfig(size=32)
    content: list[bytes] = []
    for workers in (1, 5):
        monkeypatch.setenv("PARFOCAL_STORES", str(tmp_path / f"stores-{workers}"))
        content.append((prepare(table, images, workers=workers).folder / "pixels.npy").read_bytes())
    assert content[0] == content[1]


def test_an_unchanged_store_is_opened_again(cells: Path) -> None:
    first = prepare(read(cells), ImagesConfig(size=32))
    stamp = (first.folder / "pixels.npy").stat().st_mtime_ns
    again = prepare(read(cells), ImagesConfig(size=32))
    assert again.folder == first.folder
    assert (again.folder / "pixels.npy").stat().st_mtime_ns == stamp


def test_another_recipe_or_a_modified_file_gives_another_store(cells: Path) -> None:
    first = prepare(read(cells), ImagesConfig(size=32))
    assert prepare(read(cells), ImagesConfig(size=33)).folder != first.folder
    image_file = cells / "new_dataset" / "train" / "0.bmp"
    os.utime(image_file, ns=(1, 1))
    assert prepare(read(cells), ImagesConfig(size=32)).folder != first.folder


def test_unreadable_files_are_black_and_have_a_reason_in_the_index(cells: Path) -> None:
    bad = cells / "new_dataset" / "train" / "7.bmp"
    bad.write_bytes(b"BM" + bytes(60))
    store = prepare(read(cells), ImagesConfig(size=32))
    row = store.index[store.index["path"] == str(bad)].iloc[0]
    assert row["error"] == "declares 0 × 0 pixels, so there is no image"
    assert store.pixels[store.index.index[store.index["path"] == str(bad)][0]].max() == 0


def test_a_folder_that_cannot_be_written_is_an_error(
    cells: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PARFOCAL_STORES", str(tmp_path / "file" / "stores"))
    with pytest.raises(ParfocalError, match=r"Cannot write .*file"):
        prepare(read(cells), ImagesConfig(size=32))


@pytest.mark.parametrize("store", ["raw", "jpeg"])
def test_an_interrupted_build_is_resumed(cells: Path, tmp_path: Path, store: str) -> None:
    images = ImagesConfig(size=32, store=store)  # type: ignore[arg-type]
    complete = prepare(read(cells), images)
    pixels = np.array(complete.pixels[:])
    index = complete.index
    shutil.rmtree(complete.folder)
    code = f"""
import os, signal, sys
from parfocal.data import store
from parfocal.data.layouts import read
from parfocal.recipe_schema import ImagesConfig
original, count = store.prepare_image, 0
def prepare_or_kill(*arguments):
    global count
    count += 1
    if count == 60:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)
store.prepare_image, store._FLUSH_EVERY = prepare_or_kill, 10
store.prepare(read({str(cells)!r}), ImagesConfig(size=32, store={store!r}), workers=1)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    decoded = 0
    original = store_module.prepare_image

    def count_decoded(*arguments: Any) -> Any:
        nonlocal decoded
        decoded += 1
        return original(*arguments)

    with patch.object(store_module, "prepare_image", count_decoded):
        again = prepare(read(cells), images)
    assert 0 < decoded < 50
    np.testing.assert_array_equal(again.pixels[:], pixels)
    assert again.index.equals(index)


@pytest.mark.parametrize("damage", ["a byte", "a missing end", "the index", "the header"])
def test_a_damaged_store_is_built_again(cells: Path, damage: str) -> None:
    store = prepare(read(cells), ImagesConfig(size=32))
    pixels = np.array(store.pixels[:])
    name = {"the index": "index.csv", "the header": "store.json"}.get(damage, "pixels.npy")
    content = bytearray((store.folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (store.folder / name).write_bytes(content[:-7] if damage == "a missing end" else content)
    np.testing.assert_array_equal(prepare(read(cells), ImagesConfig(size=32)).pixels[:], pixels)


def test_a_store_with_new_file_times_is_verified_and_kept(cells: Path) -> None:
    store = prepare(read(cells), ImagesConfig(size=32))
    os.utime(store.folder / "pixels.npy", ns=(1, 1))
    prepare(read(cells), ImagesConfig(size=32))
    assert (store.folder / "pixels.npy").stat().st_mtime_ns == 1


def test_two_processes_build_a_store_only_once(cells: Path) -> None:
    command = [sys.executable, "-m", "parfocal", "prepare", str(cells), "size=64", "crop_size=64"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(outputs) == 1
    assert len([path for path in get_stores_folder().iterdir() if path.is_dir()]) == 1


def test_a_store_larger_than_the_disk_is_rejected_with_its_size(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 100_000))
    with pytest.raises(ParfocalError, match=r"76 images of 64×64 need 0\.0 GB, .* has 0\.0 GB free.*store=jpeg"):
        prepare(read(cells), ImagesConfig(size=64))
    assert not [path for path in get_stores_folder().iterdir() if path.is_dir()]
    assert prepare(read(cells), ImagesConfig(size=64, store="jpeg")).pixels.shape == (76, 64, 64, 3)


def test_jpeg_stores_are_smaller_and_close_to_the_raw_pixels(cells: Path) -> None:
    raw, small = (prepare(read(cells), ImagesConfig(size=48, store=kind)) for kind in ("raw", "jpeg"))
    files = [next(store.folder.glob("pixels.*")) for store in (raw, small)]
    assert files[1].stat().st_size < files[0].stat().st_size / 2
    difference = np.abs(small.pixels[:].astype(int) - raw.pixels[:])
    assert difference.mean() < 2.5


def test_the_pixel_file_can_be_read_by_numpy(cells: Path) -> None:
    store = prepare(read(cells), ImagesConfig(size=32))
    np.testing.assert_array_equal(np.load(store.folder / "pixels.npy"), store.pixels[:])


@pytest.mark.skipif(sys.platform != "linux", reason="the limit stands in for a full disk on Linux")
def test_a_full_disk_leaves_no_store(draw: Callable[..., Path], tmp_path: Path) -> None:
    folder = draw(tmp_path / "cells", train=40, valid=4, test=2)
    with limit_file_size(1_000_000):
        result = parfocal("prepare", folder, "size=128", "crop_size=128")
    assert "Cannot write " in expect_error(result, 1)
    assert [path.suffix for path in get_stores_folder().iterdir()] == [".lock"]
