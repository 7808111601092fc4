"""The bottleneck doctor at work: every figure is measured, on small cells and in a second or two."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import parfocal
from parfocal.errors import UsageError
from parfocal.models.classifier import build_classifier
from parfocal.models.resnet import ResNet
from parfocal.recipe import load_recipe
from parfocal.training.benchmark import compute_gflop_per_image
from tests.cells import SMALL_RECIPE

HARD: dict[str, Any] = {
    "init": "imagenet",
    "freeze": "head",
    "sampling": "decay",
    "loss": "cumulative_link",
    "normalization": "dataset",
    "brightness": 0.2,
    "epochs": 2,
}


@pytest.mark.parametrize("changes", [{}, HARD], ids=["plain", "much asked"])
def test_everything_is_measured_and_nothing_is_left_behind(cells: Path, changes: dict[str, Any]) -> None:
    before = sorted(cells.rglob("*"))
    found = parfocal.bench(cells, seconds=0.5, **{**SMALL_RECIPE, **changes})
    figures = found.measurements
    assert (
        min(
            figures.loading_rate,
            figures.geometry_loading_rate,
            figures.step_rate,
            figures.epoch_rate,
            figures.gflop_per_image,
        )
        > 0
    )
    assert set(figures.matmul_gflops) == {"float32", "bf16"}
    assert min(figures.matmul_gflops.values()) > 0
    assert 0 <= figures.waiting < 1
    assert figures.precision == "float32"
    assert figures.pixels_gb == pytest.approx(48 * 40 * 40 * 3 / 1e9)
    assert (figures.geometry_loading_rate == figures.loading_rate) == ("brightness" not in changes)
    assert found.suggestions
    assert sorted(cells.rglob("*")) == before


def test_the_work_of_a_network_is_counted_there_and_back() -> None:
    chosen = load_recipe(None, model="resnet18")
    classifier = build_classifier(chosen.network, ("normal", "blast"))
    # 1.814 thousand million products and sums forward, as published, twice that back, less the pixels' own gradient.
    forward, stem = 2 * 1.814, 2 * 0.118
    assert compute_gflop_per_image(classifier, chosen) == pytest.approx(3 * forward - stem, rel=0.01)
    held = load_recipe(None, model="resnet18", init="imagenet", freeze="head")
    assert compute_gflop_per_image(classifier, held) == pytest.approx(forward, rel=0.01)
    assert classifier.network.conv1.weight.requires_grad
    assert classifier.network.conv1.weight.device.type == "cpu"


def test_a_batch_that_does_not_fit_says_what_would(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = ResNet.forward

    def cramped(self: ResNet, x: Tensor) -> Tensor:
        if self.training and len(x) > 4 and x.device.type != "meta":
            raise torch.OutOfMemoryError
        return forward(self, x)

    monkeypatch.setattr(ResNet, "forward", cramped)
    found = parfocal.bench(cells, seconds=0.5, **SMALL_RECIPE)
    assert found.bottleneck == "memory"
    assert "batches of 8 fit only in 2 pieces" in found.message
    assert "batch_size=4 accumulate=2" in found.suggestions[0]


def test_no_time_is_refused(cells: Path) -> None:
    with pytest.raises(UsageError, match="no time"):
        parfocal.bench(cells, seconds=0, **SMALL_RECIPE)
