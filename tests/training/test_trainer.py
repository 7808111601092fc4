"""One step and several gathered ones, on a network small enough to reckon with."""

import copy

import torch
from lightning_fabric import Fabric

from parfocal.training.trainer import train_step

PIXELS, LABELS = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


def _moved(sizes: list[int], clip: float = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights of one network before and after a step of several batches."""
    torch.manual_seed(0)
    fabric = Fabric(accelerator="cpu", devices=1)
    network = torch.nn.Linear(5, 3)
    before = copy.deepcopy(network.weight.detach())
    model, optimise = fabric.setup(network, torch.optim.SGD(network.parameters(), 1.0))
    for number, (pixels, labels) in enumerate(zip(PIXELS.split(sizes), LABELS.split(sizes), strict=True), 1):
        assert network.weight.equal(before)
        train_step(fabric, model, optimise, pixels, labels, 0.5, clip=clip, gathered=(number, len(sizes)))
    return before, network.weight.detach()


def test_gathered_batches_move_the_weights_like_one_large_batch() -> None:
    torch.testing.assert_close(_moved([4, 4])[1], _moved([8])[1])
    torch.testing.assert_close(_moved([2, 2, 2, 2])[1], _moved([8])[1])


def test_a_step_is_no_longer_than_the_clipped_gradient_allows() -> None:
    before, after = _moved([4, 4], clip=1e-3)
    assert 0 < (after - before).norm() <= 0.5e-3 * 1.001
    torch.testing.assert_close(_moved([8], clip=1e9)[1], _moved([8])[1])


def test_a_step_goes_down_the_gradient_at_the_rate_it_is_given() -> None:
    before, after = _moved([8])
    torch.manual_seed(0)
    network = torch.nn.Linear(5, 3)
    torch.nn.functional.cross_entropy(network(PIXELS), LABELS).backward()
    assert network.weight.grad is not None
    torch.testing.assert_close(before - after, 0.5 * network.weight.grad)
