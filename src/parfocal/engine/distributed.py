"""Several processes that train one network: who goes first, what all agree on, and norms over all their images."""

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as distributed
from lightning_fabric import Fabric
from torch import Tensor, nn

from parfocal.progress import silence

Result = TypeVar("Result")


def launch(fabric: Fabric) -> None:
    """Start the other processes, if the recipe asks for several and nobody has; only the first one speaks."""
    fabric.launch()
    if fabric.world_size > 1:
        atexit.register(_destroy_process_group)
    if fabric.global_rank:
        silence()


def is_rank_zero() -> bool:
    """Say whether this process is the only one or the first, which speaks and writes for all."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def rank_zero_first(fabric: Fabric, work: Callable[[], Result]) -> Result:
    """Do some work in the first process, then in the others, which find it done; a fault of the first ends all."""
    if fabric.global_rank:
        with rank_zero_guard(fabric):
            pass
        return work()
    with rank_zero_guard(fabric):
        return work()


@contextmanager
def rank_zero_guard(fabric: Fabric) -> Iterator[None]:
    """Have all processes wait at the block's end for the first; where it fails there, all end, and the first says why.

    In the block nothing may be asked of all processes: one that has failed would not answer.
    """
    if fabric.world_size == 1:
        yield
    elif fabric.global_rank:
        yield
        if not fabric.broadcast(True):
            raise SystemExit(1)
    else:
        try:
            yield
        except Exception:
            fabric.broadcast(False)
            raise
        fabric.broadcast(True)


def all_max(fabric: Fabric, value: float) -> float:
    """Return the largest of all processes' numbers."""
    if fabric.world_size == 1:
        return value
    return all_reduce(fabric, torch.tensor(float(value), device=fabric.device), "max").item()


def all_reduce(fabric: Fabric, values: Tensor, reduce_op: str = "sum") -> Tensor:
    """Return the sum of all processes' values, or their `max` or `min`."""
    if fabric.world_size == 1:
        return values
    total = fabric.all_reduce(values, reduce_op=reduce_op)
    assert isinstance(total, Tensor)
    return total


def broadcast_buffers(fabric: Fabric, *networks: nn.Module | None) -> None:
    """Give all processes the running statistics of the first, which each gathers from its own images."""
    if fabric.world_size == 1:
        return
    for network in networks:
        for buffer in network.buffers() if network is not None else ():
            distributed.broadcast(buffer, src=0)


def convert_sync_batchnorm(network: nn.Module) -> None:
    """Let every batch norm take mean and variance over the images of all processes; the weights keep their names."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            shared = SyncBatchNorm2d(module.num_features, module.eps, module.momentum)
            shared.load_state_dict(module.state_dict())
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, shared)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """A batch norm over the images of all processes, on any device: PyTorch's own one refuses to run on a CPU."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as PyTorch calls it
        """Normalise by the moments of all processes' images in training, by the running ones in evaluation."""
        if not self.training or not distributed.is_initialized():
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        values = input.float()
        count = _all_reduce_sum(values.new_tensor(values.numel() / values.shape[1]))
        mean = _all_reduce_sum(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _all_reduce_sum(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            share = self.momentum or 0.1
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * count / (count - 1), share)
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


class _AllReduceSum(torch.autograd.Function):
    """The sum over all processes, whose slope is the sum of theirs."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *slopes: Tensor) -> Tensor:
        total = slopes[0].clone()
        distributed.all_reduce(total)
        return total


def _all_reduce_sum(values: Tensor) -> Tensor:
    total = _AllReduceSum.apply(values)
    assert isinstance(total, Tensor)
    return total


def _destroy_process_group() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
