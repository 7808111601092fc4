"""The benchmark of training: everything is measured, on small cells and within a second or two."""

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

MANY_CHANGES: dict[str, Any] = {
    "init": "imagenet",
    "freeze": "head",
    "sampling": "decay",
    "loss": "cumulative_link",
    "normalization": "dataset",
    "brightness": 0.2,
    "epochs": 2,
}


@pytest.mark.parametrize("changes", [{}, MANY_CHANGES], ids=["plain", "many changes"])
def test_everything_is_measured_and_no_file_is_left_behind(cells: Path, changes: dict[str, Any]) -> None:
    files_before = sorted(cells.rglob("*"))
    diagnosis = parfocal.bench(cells, seconds=0.5, **{**SMALL_RECIPE, **changes})
    measurements = diagnosis.measurements
    assert measurements.loading_rate > 0
    assert measurements.geometry_loading_rate > 0
    assert measurements.step_rate > 0
    assert measurements.epoch_rate > 0
    assert measurements.gflop_per_image > 0
    assert set(measurements.matmul_gflops) == {"float32", "bf16"}
    assert min(measurements.matmul_gflops.values()) > 0
    assert 0 <= measurements.waiting < 1
    assert measurements.precision == "float32"
    assert measurements.pixels_gb == pytest.approx(48 * 40 * 40 * 3 / 1e9)
    assert (measurements.geometry_loading_rate == measurements.loading_rate) == ("brightness" not in changes)
    assert diagnosis.suggestions
    assert sorted(cells.rglob("*")) == files_before


def test_the_computation_of_a_network_is_counted_forward_and_backward() -> None:
    recipe = load_recipe(None, model="resnet18")
    classifier = build_classifier(recipe.network, ("normal", "blast"))
    # 1.814 G multiply-adds forward, as published, and twice that backward, without the gradient of the pixels.
    forward = 2 * 1.814
    stem = 2 * 0.118
    assert compute_gflop_per_image(classifier, recipe) == pytest.approx(3 * forward - stem, rel=0.01)
    frozen = load_recipe(None, model="resnet18", init="imagenet", freeze="head")
    assert compute_gflop_per_image(classifier, frozen) == pytest.approx(forward, rel=0.01)
    assert classifier.network.conv1.weight.requires_grad
    assert classifier.network.conv1.weight.device.type == "cpu"


def test_a_batch_that_does_not_fit_is_diagnosed_with_a_size_that_does(
    cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = ResNet.forward

    def limited_forward(self: ResNet, x: Tensor) -> Tensor:
        if self.training and len(x) > 4 and x.device.type != "meta":
            raise torch.OutOfMemoryError
        return forward(self, x)

    monkeypatch.setattr(ResNet, "forward", limited_forward)
    diagnosis = parfocal.bench(cells, seconds=0.5, **SMALL_RECIPE)
    assert diagnosis.bottleneck == "memory"
    assert "batches of 8 fit only when split into 2 micro-batches" in diagnosis.message
    assert "batch_size=4 accumulate=2" in diagnosis.suggestions[0]


def test_no_time_to_measure_is_rejected(cells: Path) -> None:
    with pytest.raises(UsageError, match="no time"):
        parfocal.bench(cells, seconds=0, **SMALL_RECIPE)
