"""The environment of a run: processor, kernels, threads and versions. The same seed gives the same bits only in one."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from parfocal.engine.device import build_fabric
from parfocal.recipe import Recipe
from parfocal.version import __version__

_PACKAGES = ("torch", "lightning-fabric", "opencv-python-headless", "numpy", "scikit-learn")
# The instruction sets that oneDNN has kernels for, by its names, and the function of `torch.cpu` that finds each.
_ONEDNN_LEVELS = {
    "SSE41": "",
    "AVX": "_is_avx2_supported",
    "AVX2": "_is_avx2_supported",
    "AVX512_CORE": "_is_avx512_supported",
    "AVX512_CORE_VNNI": "_is_vnni_supported",
    "AVX512_CORE_BF16": "_is_avx512_bf16_supported",
    "AVX512_CORE_AMX": "_is_amx_tile_supported",
    "AVX512_CORE_AMX_FP16": "_is_amx_fp16_supported",
}


def describe_environment(recipe: Recipe) -> dict[str, Any]:
    """Return the hardware, the kernels and the versions that a recipe is trained with."""
    fabric = build_fabric(recipe.training.precision)
    processor = read_processor_name()
    is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return {
        "parfocal": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if fabric.device.type == "cuda" else processor,
        "processor": processor,
        "kernels": {"PyTorch": torch.backends.cpu.get_cpu_capability(), "oneDNN": find_onednn_level()},
        "threads": torch.get_num_threads(),
        "processes": torch.distributed.get_world_size() if is_distributed else 1,
        "precision": "bf16" if "bf16" in fabric._precision.precision else "float32",
        "packages": {name: version(name) for name in _PACKAGES},
        "seed": recipe.seed,
        "recipe_hash": recipe.compute_hash(),
    }


def describe_changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name in one line what may make the weights differ from those of the earlier environment; "" if nothing does."""
    values = _select_decisive(now)
    # An environment that an earlier version wrote has fewer keys.
    changed = {key: old for key, old in _select_decisive(before).items() if key in values and values[key] != old}
    if not changed:
        return ""
    changes = "; ".join(f"{key} was {old}, now {values[key]}" for key, old in changed.items())
    remedy = (
        f" To keep the number of threads, set OMP_NUM_THREADS={changed['threads']}." if "threads" in changed else ""
    )
    return (
        f"the environment has changed: {changes}. "
        f"The weights may differ from those of a run that was never stopped.{remedy}"
    )


def _select_decisive(environment: dict[str, Any]) -> dict[str, Any]:
    """Return the values that decide the last bits of the weights. On a GPU the processor is not among them."""
    values = {key: environment[key] for key in ("precision", "processes") if key in environment}
    if "processor" in environment:
        values["device"] = environment["device"]
    if environment["device"] == environment.get("processor", environment["device"]):
        values["threads"] = environment["threads"]
        values |= {f"{name} kernels": level for name, level in environment.get("kernels", {}).items()}
    return {**values, "parfocal": environment["parfocal"], **environment["packages"]}


def read_processor_name() -> str:
    """Return the model of the processor, such as `AMD EPYC 9R14 (family 25, model 17)`."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        pairs = (line.partition(":") for line in reversed(lines))
        facts = {key.strip(): value.strip() for key, _, value in pairs}
        if "model name" in facts:
            # A virtual machine may hide the rest of the name, but not these numbers.
            return f"{facts['model name']} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"
    if platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.stdout.strip():
            return done.stdout.strip()
    return platform.processor() or platform.machine()


def find_onednn_level() -> str:
    """Return the instruction set that oneDNN's kernels use, such as `AVX2`; "" on processors other than x86.

    oneDNN does not report it through PyTorch. Its rule is: what the processor has, up to `ONEDNN_MAX_CPU_ISA`.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ""
    limit = (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "").upper()
    found = ""
    for level, check in _ONEDNN_LEVELS.items():
        if check and not getattr(torch.cpu, check, bool)():
            break
        found = level
        if level == limit:
            break
    # A limit that is not in the list stands for itself.
    return limit if limit not in ("", "ALL", "DEFAULT", *_ONEDNN_LEVELS) else found
