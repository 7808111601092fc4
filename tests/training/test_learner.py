"""A network that PyTorch compiles learns as it does uncompiled, and is kept under its own names."""

from functools import partial
from pathlib import Path

import pytest
import torch

import parfocal
from parfocal.model.classifier import Classifier
from tests.cells import SMALL_RECIPE


def test_a_compiled_network_learns_the_same(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The graph is taken as on a card; only the machine code for it is left out.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    changes = {**SMALL_RECIPE, "epochs": 1, "ema": 0.9}
    plain, compiled = (
        parfocal.train(cells, out=tmp_path / str(fast), compile=fast, **changes)[0] for fast in (False, True)
    )
    assert compiled.recipe.machine.compile
    weights, same = (Classifier.load(run.weights_path).state_dict() for run in (plain, compiled))
    assert list(weights) == list(same)
    for name, weight in weights.items():
        torch.testing.assert_close(same[name], weight, atol=1e-4, rtol=1e-3)
