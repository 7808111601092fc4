"""A network that PyTorch compiles learns as it does uncompiled, and is kept under its own names."""
# MERGED: """One step and several gathered ones, on a network small enough to reckon with; and memory that runs out."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

import parfocal
from parfocal.data.loader import BatchLoader
from parfocal.errors import ParfocalError
from parfocal.models.classifier import Classifier
from parfocal.recipe import load_recipe
from parfocal.schema import TrainingConfig, ViewsConfig
from parfocal.training.losses import MixedTargets
from parfocal.training.step import Batch, EpochState, Learner, run_epoch, train_step
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


PIXELS, LABELS = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


def _learner(network: nn.Module) -> Learner:
    fabric = Fabric(accelerator="cpu", devices=1)
    model, optimise = fabric.setup(network, torch.optim.SGD(network.parameters(), 1.0))
    return Learner(fabric, network, model, optimise)  # type: ignore[arg-type]


def _group(sizes: list[int], blend: MixedTargets | None = None) -> list[Batch]:
    return [Batch(*both, blend) for both in zip(PIXELS.split(sizes), LABELS.split(sizes), strict=True)]


def _moved(sizes: list[int], clip: float = 0) -> tuple[Tensor, Tensor]:
    """Return the weights of one network before and after a step of several batches."""
    torch.manual_seed(0)
    network = nn.Linear(5, 3)
    before = copy.deepcopy(network.weight.detach())
    train_step(_learner(network), _group(sizes), 0.5, clip=clip)
    return before, network.weight.detach()


def test_gathered_batches_move_the_weights_like_one_large_batch() -> None:
    torch.testing.assert_close(_moved([4, 4])[1], _moved([8])[1])
    torch.testing.assert_close(_moved([3, 3, 2])[1], _moved([8])[1])


def test_a_step_is_no_longer_than_the_clipped_gradient_allows() -> None:
    before, after = _moved([4, 4], clip=1e-3)
    assert 0 < (after - before).norm() <= 0.5e-3 * 1.001
    torch.testing.assert_close(_moved([8], clip=1e9)[1], _moved([8])[1])


def test_a_step_goes_down_the_gradient_at_the_rate_it_is_given() -> None:
    before, after = _moved([8])
    torch.manual_seed(0)
    network = nn.Linear(5, 3)
    nn.functional.cross_entropy(network(PIXELS), LABELS).backward()
    assert network.weight.grad is not None
    torch.testing.assert_close(before - after, 0.5 * network.weight.grad)


class _Flat(nn.Linear):
    """A layer that takes images."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as PyTorch calls it
        return super().forward(input.flatten(1).float())


def test_an_epoch_is_parted_into_batches_once_and_shows_every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, places, asked = np.zeros((21, 8, 8, 3), np.uint8), np.arange(21), []
    parted = BatchLoader.batch_sizes.fget
    assert parted is not None
    monkeypatch.setattr(BatchLoader, "batch_sizes", property(lambda self: (asked.append(1), parted(self))[1]))
    batches = BatchLoader(pixels, places, places % 3, ViewsConfig(crop_size=8), TrainingConfig(), 4)
    learner = _learner(_Flat(8 * 8 * 3, 3))
    tally = EpochState.create(learner.fabric.device, batches.steps_per_epoch)
    shown = [one.n_images for one in run_epoch(learner, batches, load_recipe(), 0, lambda _: 1e-3, tally)]
    assert len(asked) == 1
    assert np.diff(shown, prepend=0).tolist() == [4, 4, 4, 3, 3, 3]


class _Cramped(nn.Linear):
    """A layer on a device whose memory holds so many images."""

    holds = 3

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as PyTorch calls it
        if len(input) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().forward(input)


@pytest.mark.parametrize("sizes", [[8], [4, 4]])
def test_where_memory_runs_out_smaller_pieces_make_the_same_step(sizes: list[int]) -> None:
    torch.manual_seed(0)
    network = _Cramped(5, 3)
    learner = _learner(network)
    blend = MixedTargets(LABELS[: sizes[0]].flip(0), 0.7)
    outcomes = train_step(learner, _group(sizes, blend), 0.5)
    assert learner.n_micro_batches == (4 if sizes == [8] else 2)
    assert [len(logits) for _, logits in outcomes] == sizes
    torch.manual_seed(0)
    roomy = nn.Linear(5, 3)
    whole = train_step(_learner(roomy), _group(sizes, blend), 0.5)
    torch.testing.assert_close(network.weight, roomy.weight)
    for (loss, logits), (other, others) in zip(outcomes, whole, strict=True):
        torch.testing.assert_close(loss, other)
        torch.testing.assert_close(logits, others)


def test_memory_that_holds_no_image_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Cramped, "passes", 0)
    with pytest.raises(ParfocalError, match="one image at a time"):
        train_step(_learner(_Cramped(5, 3)), _group([8]), 0.5)


def test_another_fault_of_the_network_is_not_taken_for_memory() -> None:
    class Broken(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as PyTorch calls it
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        train_step(_learner(Broken(5, 3)), _group([8]), 0.5)


def test_memory_that_runs_out_in_the_middle_of_training_is_lived_with(
    cells: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import parfocal
    from parfocal.models.resnet import ResNet
    from tests.cells import SMALL_RECIPE

    forward = ResNet.forward

    def cramped(self: ResNet, x: Tensor) -> Tensor:
        if self.training and len(x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, x)

    monkeypatch.setattr(ResNet, "forward", cramped)
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1})
    assert run.read_history()["pieces"].tolist() == [2]
    assert run.is_finished
