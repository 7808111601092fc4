"""Devices: Fabric, precision, number of devices, and what happens when memory runs out.

glibc returns large freed buffers to the kernel, which clears each page when it is touched again. Keeping them in the
process makes a ResNet-18 step at 224 pixels on a CPU a sixth faster (see `benchmarks/results`).
"""

import ctypes
import logging
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import torch

from parfocal.engine.compiled import Precision
from parfocal.errors import ParfocalError
from parfocal.models.classifier import Classifier
from parfocal.recipe_schema import MachineConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Result = TypeVar("Result")

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD = -1
_TOP_PAD = -2
_MMAP_MAX = -4
_NO_TRIMMING = 2**31 - 1
_TOP_PAD_BYTES = 256 * 2**20


def build_fabric(precision: str, machine: MachineConfig | None = None) -> "Fabric":
    """Return the Fabric for the best device of this machine; `precision` is `auto`, `bf16` or `float32`.

    Only the Fabric of a recipe's `machine` section, which is for training, may have more than 1 device.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    # Fabric prints precision and devices at every start; the run folder contains both.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cpu":
        keep_freed_memory()
    devices, nodes = resolve_devices(machine) if machine else (1, 1)
    use_ddp = machine is not None and (devices * nodes > 1 or machine.strategy == "ddp")
    # The other processes wait while rank 0 prepares the data, which may take hours.
    strategy = DDPStrategy(timeout=timedelta(days=7)) if use_ddp else "auto"
    fabric_precision = "bf16-mixed" if resolve_precision(precision) == "bf16" else "32-true"
    return Fabric(
        accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=strategy, precision=fabric_precision
    )


def resolve_precision(precision: str) -> Precision:
    """Return the precision that `auto`, `bf16` or `float32` means on this machine.

    `auto` is bf16 only in hardware, because emulated bf16 is slower than float32. PARFOCAL_CPU=avx2 makes a processor
    behave as if it had no bf16 instructions.
    """
    has_bf16 = precision == "bf16"
    if precision == "auto" and torch.cuda.is_available():
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    elif precision == "auto" and os.environ.get("PARFOCAL_CPU") != "avx2":
        checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        has_bf16 = any(check() for check in checks if check is not None)
    return "bf16" if has_bf16 else "float32"


def resolve_devices(machine: MachineConfig) -> tuple[int, int]:
    """Return the numbers of devices per machine and of machines: from the recipe, or as torchrun or SLURM set them."""
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    devices = 1
    nodes = 1
    if TorchElasticEnvironment.detect():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    elif SLURMEnvironment.detect():
        nodes = int(os.environ.get("SLURM_NNODES", "1"))
        devices = int(os.environ["SLURM_NTASKS"]) // nodes
    return machine.devices or devices, machine.nodes or nodes


def to_channels_last(classifier: Classifier) -> Classifier:
    """Convert the weights to the channels-last memory format, in which convolutions are fastest."""
    return classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def retry_out_of_memory(run: Callable[[], Result], shrink: Callable[[], None], device: torch.device) -> Result:
    """Return the result of `run`; each time it runs out of memory, call `shrink` and try again."""
    while True:
        try:
            return run()
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
        # Outside the `except` block, which would keep the failed pass and its tensors alive.
        shrink()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def build_memory_error() -> ParfocalError:
    """Return the error of a network that runs out of memory with a single image."""
    return ParfocalError("Memory ran out with one image at a time. Choose a smaller crop_size or model.")


def get_machine_memory() -> int:
    """Return the main memory of this machine in bytes; 0 if the system does not report it."""
    if not hasattr(os, "sysconf"):
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def keep_freed_memory() -> None:
    """Keep freed buffers in the process, with glibc; do nothing elsewhere."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _NO_TRIMMING)
        mallopt(_TOP_PAD, _TOP_PAD_BYTES)


def trim_memory() -> None:
    """Return freed buffers to the system, with glibc: for a server that is idle."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if malloc_trim is not None:
        malloc_trim(0)
