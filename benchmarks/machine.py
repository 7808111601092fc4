"""How a figure is measured, on what, and where it is kept."""

import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

RESULTS = Path(__file__).parent / "results"


def describe_machine() -> dict[str, Any]:
    """Describe the device and the software."""
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _describe_processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def measure_rate(run: Callable[[], int], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how many images a second `run` gets through, the device's queue included; it returns their number."""
    started = clock()
    count = run()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return count / (clock() - started)


def cpu_seconds() -> float:
    """Return the seconds of processors that this process and those it has started have used, ended or not."""
    own = psutil.Process()
    ended, going = own.cpu_times(), [child.cpu_times() for child in own.children(recursive=True)]
    others = ended.children_user + ended.children_system + sum(one.user + one.system for one in going)
    return time.process_time() + others


def choose_clock() -> Callable[[], float]:
    """Return the clock; where PyTorch computes in one thread, that of the processors, which others hardly change."""
    return cpu_seconds if torch.get_num_threads() == 1 else time.perf_counter


def measure_matmul_gflops(precision: torch.dtype) -> float:
    """Return how fast square matrices multiply, in GFLOP/s."""
    side, times = 2048, 8
    matrix = torch.randn(side, side).to(precision)
    torch.mm(matrix, matrix)

    def run() -> int:
        for _ in range(times):
            torch.mm(matrix, matrix)
        return times

    return 2 * side**3 / 1e9 * measure_rate(run, choose_clock())


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Return the ratio of two medians."""
    return statistics.median(numerators) / statistics.median(denominators)


def save_results(name: str, results: dict[str, Any]) -> None:
    """Print figures, and write them with the machine and the command that made them."""
    for key, value in results.items():
        print(f"{key}: {value}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    command = shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]])
    path.write_text(json.dumps({"command": command, "machine": describe_machine(), **results}, indent=2) + "\n")
    print(f"Kept: {path}")


def _describe_processor() -> str:
    """Name the processor and what makes its bf16 fast."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    extras = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in text]
    return " ".join([names[0] if names else platform.processor() or platform.machine(), *extras])
