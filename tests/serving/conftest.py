"""Two small trained runs and a server with both of them, shared by all tests of serving."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import parfocal
from parfocal.serving.server import serve_in_background
from tests.cells import SMALL_RECIPE, draw_cells


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `cells` and the `runs` resnet20, with all decisions and a report, and plain20, without any."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARFOCAL_STORES", str(folder / "stores"))
        cells = draw_cells(folder / "cells", valid=24)
        parfocal.train(cells, out=folder / "runs", **{**SMALL_RECIPE, "epochs": 2, "model": ["resnet20", "plain20"]})
        parfocal.evaluate(folder / "runs" / "resnet20", operating_point="sensitivity=0.9", refer=0.8)
        parfocal.compare(folder / "runs" / "resnet20")
    return folder


@pytest.fixture(scope="session")
def runs(trained: Path) -> list[Path]:
    return [trained / "runs" / name for name in ("resnet20", "plain20")]


@pytest.fixture(scope="session")
def site(runs: list[Path]) -> Iterator[str]:
    """The address of a server with both runs and the default limits."""
    with serve_in_background(runs) as address:
        yield address


@pytest.fixture(scope="session")
def images(trained: Path) -> dict[str, bytes]:
    """The files of the test split, by name."""
    folder = trained / "cells" / "new_dataset" / "test"
    return {f"./new_dataset/test/{path.name}": path.read_bytes() for path in sorted(folder.iterdir())}
