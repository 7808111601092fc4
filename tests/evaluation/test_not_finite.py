"""A network with values that are not finite is refused when it is opened, and so is an answer that is not finite."""

import shutil
from pathlib import Path

import pytest
import torch

import parfocal
from parfocal.errors import ParfocalError
from parfocal.models.classifier import Classifier
from parfocal.run import Run
from tests.commands.run_command import parfocal as run_command
from tests.evaluation.trained_run import trained as trained


def _change_weights(trained: Path, folder: Path, name: str, value: float) -> Path:
    """Return a copy of a run whose weights of this name are set to a value, saved as training saves them."""
    run = Run(shutil.copytree(trained / "runs" / "resnet20", folder / "resnet20"))
    classifier = Classifier.load(run.weights_path)
    classifier.named_weights()[name].flatten()[-1:].fill_(value)
    classifier.save(run.weights_path, classifier.metadata)
    return run.folder


@pytest.mark.parametrize(
    ("name", "value"), [("fc.weight", float("nan")), ("conv1.weight", float("inf")), ("bn1.running_var", float("nan"))]
)
def test_every_command_refuses_a_network_with_a_value_that_is_not_finite(
    trained: Path, tmp_path: Path, name: str, value: float
) -> None:
    run = _change_weights(trained, tmp_path, name, value)
    sheet = trained / "cells" / "resnet_18_test.csv"
    for command in (
        ("predict", run, sheet, "-o", tmp_path / "out.csv"),
        ("evaluate", run),
        ("explain", run, "valid"),
        ("export", run, "--to", "safetensors"),
        ("serve", run, "--port", "0"),
        ("train", trained / "cells", "--out", tmp_path / "next", "model=resnet20", f"init={run}"),
        ("train", trained / "cells", "--out", tmp_path / "next", "model=resnet20", f"init={run / 'model.safetensors'}"),
    ):
        result = run_command(*command)
        assert result.returncode == 1, command
        assert f"Error: {run / 'model.safetensors'} cannot be used: 1 of " in result.stderr, command
        assert f"{name} are not finite" in result.stderr
    assert not (tmp_path / "out.csv").exists()


def test_a_pth_file_with_nan_is_no_initial_weight(trained: Path, tmp_path: Path) -> None:
    weights = Classifier.load(trained / "runs" / "resnet20" / "model.safetensors").named_weights()
    weights["conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(ParfocalError, match=r"weights\.pth cannot be used: 1 of 432 values of conv1\.weight"):
        parfocal.train(trained / "cells", out=tmp_path / "runs", model="resnet20", init=str(tmp_path / "weights.pth"))


@pytest.fixture
def overflowing(trained: Path, tmp_path: Path) -> Path:
    """A run whose weights are finite, and whose probabilities are not."""
    folder = _change_weights(trained, tmp_path, "fc.bias", 3e38)
    classifier = Classifier.load(folder / "model.safetensors")
    classifier.named_weights()["fc.weight"].fill_(3e38)
    classifier.named_weights()["fc.bias"].fill_(3e38)
    classifier.save(folder / "model.safetensors", classifier.metadata)
    return folder


def test_predict_lists_the_images_without_a_finite_probability_and_exits_with_1(
    trained: Path, overflowing: Path, tmp_path: Path
) -> None:
    sheet = trained / "cells" / "resnet_18_test.csv"
    result = run_command("predict", overflowing, sheet, "-o", tmp_path / "out.csv")
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 12
    assert lines[0] == (
        "Not predicted: ./new_dataset/test/0.bmp: a probability is not finite (NaN). Train the network again."
    )
    assert "0 images predicted" in result.stdout
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1


def test_no_other_command_believes_a_probability_that_is_not_finite(
    trained: Path, overflowing: Path, tmp_path: Path
) -> None:
    image = trained / "cells" / "new_dataset" / "test" / "0.bmp"
    before = (overflowing / "predictions" / "test.csv").read_bytes()
    for command in (
        ("evaluate", overflowing),
        ("explain", overflowing, image),
        ("export", overflowing, "--to", "safetensors"),
        ("serve", overflowing, "--port", "0"),
    ):
        result = run_command(*command)
        assert result.returncode == 1, command
        assert result.stderr.startswith("Error: ")
        assert "not finite" in result.stderr or "a probability differs by inf" in result.stderr, command
    assert (overflowing / "predictions" / "test.csv").read_bytes() == before
