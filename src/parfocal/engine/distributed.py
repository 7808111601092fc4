"""Distributed training: start processes, run work on rank 0, reduce values, and synchronize batch norm."""

import atexit
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as distributed
from lightning_fabric import Fabric
from torch import Tensor, nn

from parfocal.progress import silence


def launch(fabric: Fabric) -> None:
    """Start the other processes, unless torchrun or SLURM started them; only rank 0 prints."""
    fabric.launch()
    if fabric.world_size > 1:
        atexit.register(_destroy_process_group)
    if fabric.global_rank:
        silence()


def is_rank_zero() -> bool:
    """Return whether this process is rank 0, or the only process, which prints and writes."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


@contextmanager
def rank_zero_first(fabric: Fabric) -> Iterator[None]:
    """Run the block on rank 0, then on the other processes, which find its results; a failure on rank 0 ends all."""
    if fabric.global_rank:
        with rank_zero_guard(fabric):
            pass
        yield
    else:
        with rank_zero_guard(fabric):
            yield


@contextmanager
def rank_zero_guard(fabric: Fabric) -> Iterator[None]:
    """Make all processes wait for rank 0 at the end of the block; if it fails there, all end and rank 0 reports why.

    The block must not communicate between processes, because a failed process would not answer.
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
    """Return the largest value of all processes."""
    if fabric.world_size == 1:
        return value
    return all_reduce(fabric, torch.tensor(float(value), device=fabric.device), "max").item()


def all_reduce(fabric: Fabric, values: Tensor, reduce_op: str = "sum") -> Tensor:
    """Return the `sum`, `max` or `min` of the values of all processes."""
    if fabric.world_size == 1:
        return values
    reduced = fabric.all_reduce(values, reduce_op=reduce_op)
    assert isinstance(reduced, Tensor)
    return reduced


def broadcast_buffers(fabric: Fabric, *networks: nn.Module | None) -> None:
    """Copy the running statistics of rank 0 to all processes, which computed others from their images."""
    if fabric.world_size == 1:
        return
    for network in networks:
        for buffer in network.buffers() if network is not None else ():
            distributed.broadcast(buffer, src=0)


def convert_sync_batchnorm(network: nn.Module, device: torch.device) -> None:
    """Make each batch norm use the statistics of all processes; the weights keep their names."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            synchronized = CpuSyncBatchNorm(module.num_features, module.eps, module.momentum)
            synchronized.load_state_dict(module.state_dict())
            parent, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(parent), attribute, synchronized)


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """Synchronized batch norm on CPUs, where `nn.SyncBatchNorm` does not run."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's name
        """Normalize by the statistics of all processes' images in training, by the running statistics otherwise."""
        if not self.training or not distributed.is_initialized():
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        values = input.float()
        count = _all_reduce_sum(values.new_tensor(values.numel() / values.shape[1]))
        mean = _all_reduce_sum(values.sum(dim=(0, 2, 3))) / count
        centered = values - mean[:, None, None]
        variance = _all_reduce_sum(centered.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            momentum = self.momentum or 0.1
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / (count - 1), momentum)
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


class _AllReduceSum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


def _all_reduce_sum(values: Tensor) -> Tensor:
    total = _AllReduceSum.apply(values)
    assert isinstance(total, Tensor)
    return total


def _destroy_process_group() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
