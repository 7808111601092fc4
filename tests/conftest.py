"""What tests share."""

import os

# Tests run side by side; networks that also share the cores among threads would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where a test uses more threads, they wait without spinning, which would take the cores from the other tests.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# No test asks the internet for weights.
os.environ["PARFOCAL_OFFLINE"] = "1"

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from parfocal.recipe import Recipe, load_recipe
from tests.cells import SMALL_RECIPE, draw_cells
from tests.report.read_report import draw_blank_figures

# How long an example takes is the machine's matter, and never what a test is about.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def _stores_apart(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test's Stores in a folder of its own, and its words as wide as they are."""
    monkeypatch.setenv("PARFOCAL_STORES", str(tmp_path_factory.mktemp("stores")))
    monkeypatch.setenv("COLUMNS", "250")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow downloads, for tests with a web server of their own."""
    monkeypatch.delenv("PARFOCAL_OFFLINE")
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def blank_figures() -> Iterator[None]:
    """Write blank figures, for tests that are not about what is drawn."""
    with draw_blank_figures():
        yield


@pytest.fixture
def small_recipe() -> Recipe:
    """A recipe that trains on the drawn cells in a second or two."""
    return load_recipe(None, **SMALL_RECIPE)


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """A folder in the leukemia lab's format: small drawn cells, blasts with the larger nucleus."""
    return draw_cells(tmp_path / "cells")


@pytest.fixture
def draw() -> Callable[..., Path]:
    """The function that draws a set of cells, for tests that need another."""
    return draw_cells
