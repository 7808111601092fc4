"""A run resumes only on images with the pixels that it was started with."""

import os
from pathlib import Path

import cv2
import pandas as pd
import pytest

import parfocal
from parfocal.errors import ParfocalError
from parfocal.io import atomic_write
from parfocal.run import Run
from tests.cells import SMALL_RECIPE


@pytest.fixture
def unfinished(cells: Path, tmp_path: Path) -> Run:
    """A run with a checkpoint that is not evaluated yet."""
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1})
    (run.folder / "metrics.json").unlink()
    return run


def _change_pixel(cells: Path, name: str) -> None:
    path = cells / "new_dataset" / name
    image = cv2.imread(str(path))
    assert image is not None
    image[0, 0] = 200
    cv2.imwrite(str(path), image)


def test_changed_pixels_are_an_error_with_the_names_of_the_images(cells: Path, unfinished: Run) -> None:
    _change_pixel(cells, "train/3.bmp")
    _change_pixel(cells, "test/1.bmp")
    before = {path: path.stat().st_mtime_ns for path in unfinished.folder.rglob("*")}
    with pytest.raises(
        ParfocalError,
        match=r"2 of 76 images have other pixels .*: \./new_dataset/train/3\.bmp, \./new_dataset/test/1\.bmp",
    ):
        parfocal.train(cells, out=unfinished.folder.parent, resume=True)
    assert {path: path.stat().st_mtime_ns for path in unfinished.folder.rglob("*")} == before


def test_files_that_are_written_again_with_the_same_pixels_do_not_matter(cells: Path, unfinished: Run) -> None:
    for path in (cells / "new_dataset" / "train").iterdir():
        os.utime(path, ns=(0, 0))
    parfocal.train(cells, out=unfinished.folder.parent, resume=True)
    assert unfinished.is_finished


def test_a_run_whose_table_has_no_digests_of_pixels_resumes(cells: Path, unfinished: Run) -> None:
    table = pd.read_csv(unfinished.table_path, dtype=str, keep_default_na=False)
    with atomic_write(unfinished.table_path) as temporary_path:
        table.drop(columns="pixels").to_csv(temporary_path, index=False)
    (unfinished.folder / "manifest.json").unlink()
    _change_pixel(cells, "train/3.bmp")
    parfocal.train(cells, out=unfinished.folder.parent, resume=True)
    assert unfinished.is_finished
