"""Training steps and gradient accumulation on a small network, memory that runs out, and a compiled network."""

import copy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

import parfocal
from parfocal.data.loader import BatchLoader
from parfocal.errors import ParfocalError
from parfocal.models.classifier import Classifier
from parfocal.models.resnet import ResNet
from parfocal.recipe import load_recipe
from parfocal.recipe_schema import TrainingConfig, ViewsConfig
from parfocal.training.losses import MixedTargets
from parfocal.training.step import Batch, EpochState, Learner, run_epoch, train_step
from tests.cells import SMALL_RECIPE

PIXELS = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 3


def _build_learner(network: nn.Module) -> Learner:
    fabric = Fabric(accelerator="cpu", devices=1)
    wrapped, optimizer = fabric.setup(network, torch.optim.SGD(network.parameters(), 1.0))
    return Learner(fabric, network, wrapped, optimizer)  # type: ignore[arg-type]


def _split_batches(sizes: list[int], mixed_targets: MixedTargets | None = None) -> list[Batch]:
    pairs = zip(PIXELS.split(sizes), LABELS.split(sizes), strict=True)
    return [Batch(pixels, labels, mixed_targets) for pixels, labels in pairs]


def _take_step(sizes: list[int], clip: float = 0) -> tuple[Tensor, Tensor]:
    """Return the weights of a network before and after one step on batches of these sizes."""
    torch.manual_seed(0)
    network = nn.Linear(5, 3)
    before = copy.deepcopy(network.weight.detach())
    train_step(_build_learner(network), _split_batches(sizes), 0.5, clip=clip)
    return before, network.weight.detach()


def test_accumulated_batches_give_the_same_step_as_one_large_batch() -> None:
    torch.testing.assert_close(_take_step([4, 4])[1], _take_step([8])[1])
    torch.testing.assert_close(_take_step([3, 3, 2])[1], _take_step([8])[1])


def test_a_step_is_no_longer_than_the_clipped_gradient_allows() -> None:
    before, after = _take_step([4, 4], clip=1e-3)
    assert 0 < (after - before).norm() <= 0.5e-3 * 1.001
    torch.testing.assert_close(_take_step([8], clip=1e9)[1], _take_step([8])[1])


def test_a_step_follows_the_gradient_at_the_learning_rate() -> None:
    before, after = _take_step([8])
    torch.manual_seed(0)
    network = nn.Linear(5, 3)
    nn.functional.cross_entropy(network(PIXELS), LABELS).backward()
    assert network.weight.grad is not None
    torch.testing.assert_close(before - after, 0.5 * network.weight.grad)


class _FlatLinear(nn.Linear):
    """A linear layer that takes images."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's own name
        return super().forward(input.flatten(1).float())


def test_an_epoch_shows_every_image_and_computes_its_batch_sizes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    n_calls = 0
    compute_batch_sizes = BatchLoader.batch_sizes.fget
    assert compute_batch_sizes is not None

    def count_calls(loader: BatchLoader) -> np.ndarray:
        nonlocal n_calls
        n_calls += 1
        return compute_batch_sizes(loader)

    monkeypatch.setattr(BatchLoader, "batch_sizes", property(count_calls))
    indices = np.arange(21)
    pixels = np.zeros((21, 8, 8, 3), np.uint8)
    loader = BatchLoader(pixels, indices, indices % 3, ViewsConfig(crop_size=8), TrainingConfig(), 4)
    learner = _build_learner(_FlatLinear(8 * 8 * 3, 3))
    state = EpochState.create(learner.fabric.device, loader.steps_per_epoch)
    n_images = [state.n_images for state in run_epoch(learner, loader, load_recipe(), 0, lambda _: 1e-3, state)]
    assert n_calls == 1
    assert np.diff(n_images, prepend=0).tolist() == [4, 4, 4, 3, 3, 3]


class _LimitedLinear(nn.Linear):
    """A linear layer on a device whose memory holds only this many images."""

    max_images = 3

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's own name
        if len(input) > self.max_images:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().forward(input)


@pytest.mark.parametrize("sizes", [[8], [4, 4]])
def test_where_memory_runs_out_micro_batches_give_the_same_step(sizes: list[int]) -> None:
    torch.manual_seed(0)
    network = _LimitedLinear(5, 3)
    learner = _build_learner(network)
    mixed_targets = MixedTargets(LABELS[: sizes[0]].flip(0), 0.7)
    outputs = train_step(learner, _split_batches(sizes, mixed_targets), 0.5)
    assert learner.n_micro_batches == (4 if sizes == [8] else 2)
    assert [len(logits) for _, logits in outputs] == sizes
    torch.manual_seed(0)
    reference = nn.Linear(5, 3)
    expected = train_step(_build_learner(reference), _split_batches(sizes, mixed_targets), 0.5)
    torch.testing.assert_close(network.weight, reference.weight)
    torch.testing.assert_close(outputs, expected)


def test_memory_too_small_for_a_single_image_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_LimitedLinear, "max_images", 0)
    with pytest.raises(ParfocalError, match=r"Memory ran out .*Choose a smaller crop"):
        train_step(_build_learner(_LimitedLinear(5, 3)), _split_batches([8]), 0.5)


def test_other_errors_of_the_network_are_not_mistaken_for_memory() -> None:
    class Broken(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's own name
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        train_step(_build_learner(Broken(5, 3)), _split_batches([8]), 0.5)


def test_training_continues_with_micro_batches_when_memory_runs_out(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = ResNet.forward

    def limited_forward(self: ResNet, x: Tensor) -> Tensor:
        if self.training and len(x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, x)

    monkeypatch.setattr(ResNet, "forward", limited_forward)
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1})
    assert run.read_history()["micro_batches"].tolist() == [2]
    assert run.is_finished


def test_a_compiled_network_learns_the_same_and_is_saved_under_the_same_names(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The graph is captured as on a GPU; only the generation of machine code is left out.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    changes = {**SMALL_RECIPE, "epochs": 1, "ema": 0.9}
    (eager,) = parfocal.train(cells, out=tmp_path / "eager", compile=False, **changes)
    (compiled,) = parfocal.train(cells, out=tmp_path / "compiled", compile=True, **changes)
    assert compiled.recipe.machine.compile
    expected = Classifier.load(eager.weights_path).state_dict()
    weights = Classifier.load(compiled.weights_path).state_dict()
    assert list(weights) == list(expected)
    for name, weight in expected.items():
        torch.testing.assert_close(weights[name], weight, atol=1e-4, rtol=1e-3)


def test_the_sums_of_an_epoch_do_not_depend_on_their_order() -> None:
    generator = torch.Generator().manual_seed(0)
    losses = 10 * torch.rand(5000, generator=generator) + 0.01

    def sum_in_order(order: Tensor) -> float:
        loss_sum = EpochState.create(torch.device("cpu"), 1).loss_sum
        for loss in losses[order]:
            loss_sum = loss_sum + loss
        return loss_sum.item()

    forward = sum_in_order(torch.arange(5000))
    assert {sum_in_order(torch.randperm(5000, generator=generator)) for _ in range(3)} == {forward}
    in_float32 = [np.cumsum(values, dtype=np.float32)[-1] for values in (losses.numpy(), losses.numpy()[::-1])]
    assert in_float32[0] != in_float32[1]
