"""Two small trained runs, made once for the tests of a file."""

from pathlib import Path

import pytest

import parfocal
from parfocal.manifest import write_listed_file
from tests.cells import SMALL_RECIPE, draw_cells


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `cells` in the leukemia lab's format and `runs` of resnet20 and plain20 on them."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARFOCAL_STORES", str(folder / "stores"))
        cells = draw_cells(folder / "cells", valid=24)
        parfocal.train(cells, out=folder / "runs", **{**SMALL_RECIPE, "model": ["resnet20", "plain20"]})
    return folder


def rewrite_file(path: Path, text: str) -> None:
    """Write a file of a run, and its checksum in the manifest."""
    with write_listed_file(path) as temporary_path:
        temporary_path.write_text(text)
