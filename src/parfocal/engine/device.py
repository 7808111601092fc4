"""Asking the C library to keep what is freed: on a CPU a network's buffers come and go with every step.

Left to itself, glibc hands large buffers back to the kernel and has each page cleared anew when it is next touched.
Kept, a ResNet-18 step at 224 pixels takes a sixth less time (see `benchmarks/results`).
"""

import ctypes
import logging
import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

from parfocal.engine.compiled import Precision
from parfocal.errors import ParfocalError
from parfocal.models.classifier import Classifier
from parfocal.schema import MachineConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_NO_TRIMMING, _TOP_PAD_BYTES = 2**31 - 1, 256 * 2**20


def keep_freed_memory() -> None:
    """Keep freed buffers in the process, where the C library is glibc; elsewhere do nothing."""
    if not sys.platform.startswith("linux"):
        return
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(_MMAP_MAX, 0)
        adjust(_TRIM_THRESHOLD, _NO_TRIMMING)
        adjust(_TOP_PAD, _TOP_PAD_BYTES)


def trim_memory() -> None:
    """Hand what was freed to the system, where the C library is glibc: for a server that waits."""
    if sys.platform.startswith("linux") and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def build_fabric(precision: str, machine: MachineConfig | None = None) -> "Fabric":
    """Return the engine that runs networks here: the best device there is, in `auto`, `bf16` or `float32`.

    With a recipe's `machine` it is the engine for training, which may have several devices.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    # Fabric announces precision and devices on every start; the run folder holds both.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cpu":
        keep_freed_memory()
    devices, nodes = resolve_devices(machine) if machine else (1, 1)
    # Preparing data may take the first process hours, for which the others wait.
    ddp = machine is not None and (devices * nodes > 1 or machine.strategy == "ddp")
    strategy = DDPStrategy(timeout=timedelta(days=7)) if ddp else "auto"
    plain = "bf16-mixed" if resolve_precision(precision) == "bf16" else "32-true"
    return Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=strategy, precision=plain)


def resolve_precision(precision: str) -> Precision:
    """Return what networks compute in here, where a recipe says `auto`, `bf16` or `float32`."""
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    return "bf16" if precision == "bf16" or (precision == "auto" and _has_bf16(accelerator)) else "float32"


def resolve_devices(machine: MachineConfig) -> tuple[int, int]:
    """Return how many devices on how many machines a recipe asks for, or else torchrun or SLURM have started."""
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    several, nodes = 1, 1
    if TorchElasticEnvironment.detect():
        several = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // several
    elif SLURMEnvironment.detect():
        nodes = int(os.environ.get("SLURM_NNODES", "1"))
        several = int(os.environ["SLURM_NTASKS"]) // nodes
    return machine.devices or several, machine.nodes or nodes


def to_channels_last(classifier: Classifier) -> Classifier:
    """Lay the weights out as the fastest convolutions want them."""
    return classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Say whether it is memory that a network ran out of."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def build_memory_error() -> ParfocalError:
    """Return the error of a network that cannot take a single image."""
    return ParfocalError("Memory ran out with one image at a time. Choose a smaller crop or model.")


def _has_bf16(accelerator: str) -> bool:
    """Return whether bf16 runs in hardware. Emulated bf16 is slower than float32.

    PARFOCAL_CPU=avx2 makes a newer processor behave like one without bf16 instructions.
    """
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if os.environ.get("PARFOCAL_CPU") == "avx2":
        return False
    known = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(supported() for supported in known if supported is not None)
