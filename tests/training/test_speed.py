"""The bottleneck doctor at work: every figure is measured, on small cells and in a second or two."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import parfocal
from parfocal.errors import UsageError
from parfocal.model.classifier import new_classifier
from parfocal.model.resnet import ResNet
from parfocal.recipe import recipe
from parfocal.training.speed import work_of
from tests.cells import SMALL

HARD: dict[str, Any] = {
    "init": "imagenet",
    "freeze": "head",
    "sampling": "decay",
    "loss": "cumulative_link",
    "normalise": "standardise",
    "brightness": 0.2,
    "epochs": 2,
}


@pytest.mark.parametrize("changes", [{}, HARD], ids=["plain", "much asked"])
def test_everything_is_measured_and_nothing_is_left_behind(cells: Path, changes: dict[str, Any]) -> None:
    before = sorted(cells.rglob("*"))
    found = parfocal.bench(cells, seconds=0.5, **{**SMALL, **changes})
    figures = found.figures
    assert min(figures.loading, figures.bare_loading, figures.step, figures.together, figures.work) > 0
    assert set(figures.matrix) == {"float32", "bf16"}
    assert min(figures.matrix.values()) > 0
    assert 0 <= figures.waiting < 1
    assert figures.precision == "float32"
    assert figures.pixels == pytest.approx(48 * 40 * 40 * 3 / 1e9)
    assert (figures.bare_loading == figures.loading) == ("brightness" not in changes)
    assert found.changes
    assert sorted(cells.rglob("*")) == before


def test_the_work_of_a_network_is_counted_there_and_back() -> None:
    chosen = recipe(None, model="resnet18")
    classifier = new_classifier(chosen.network, ("normal", "blast"))
    # 1.814 thousand million products and sums forward, as published, twice that back, less the pixels' own gradient.
    forward, stem = 2 * 1.814, 2 * 0.118
    assert work_of(classifier, chosen) == pytest.approx(3 * forward - stem, rel=0.01)
    held = recipe(None, model="resnet18", init="imagenet", freeze="head")
    assert work_of(classifier, held) == pytest.approx(forward, rel=0.01)
    assert classifier.network.conv1.weight.requires_grad
    assert classifier.network.conv1.weight.device.type == "cpu"


def test_a_batch_that_does_not_fit_says_what_would(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = ResNet.forward

    def cramped(self: ResNet, x: Tensor) -> Tensor:
        if self.training and len(x) > 4 and x.device.type != "meta":
            raise torch.OutOfMemoryError
        return forward(self, x)

    monkeypatch.setattr(ResNet, "forward", cramped)
    found = parfocal.bench(cells, seconds=0.5, **SMALL)
    assert found.culprit == "memory"
    assert "batches of 8 fit only in 2 pieces" in found.text
    assert "batch=4 accumulate=2" in found.changes[0]


def test_no_time_is_refused(cells: Path) -> None:
    with pytest.raises(UsageError, match="no time"):
        parfocal.bench(cells, seconds=0, **SMALL)
