"""Measure rates, describe the machine, and save the results of a benchmark."""

import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_all_start_methods, get_context, set_start_method
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch

RESULTS = Path(__file__).parent / "results"

Outcome = TypeVar("Outcome")


def describe_machine() -> dict[str, Any]:
    """Describe the device and the software."""
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _describe_processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def measure_rate(run: Callable[[], int], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the images per second of `run`, which returns the number of images; wait for the GPU at the end."""
    started = clock()
    n_images = run()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return n_images / (clock() - started)


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its child processes, finished or running."""
    process = psutil.Process()
    times = process.cpu_times()
    running = [child.cpu_times() for child in process.children(recursive=True)]
    children = times.children_user + times.children_system + sum(each.user + each.system for each in running)
    return time.process_time() + children


def choose_clock() -> Callable[[], float]:
    """Return the wall clock, or CPU time if PyTorch uses one thread: other programs hardly change CPU time."""
    return cpu_seconds if torch.get_num_threads() == 1 else time.perf_counter


def measure_matmul_gflops(precision: torch.dtype) -> float:
    """Return the speed of square matrix multiplication, in GFLOP/s."""
    side = 2048
    n_times = 8
    matrix = torch.randn(side, side).to(precision)
    torch.mm(matrix, matrix)

    def run() -> int:
        for _ in range(n_times):
            torch.mm(matrix, matrix)
        return n_times

    return 2 * side**3 / 1e9 * measure_rate(run, choose_clock())


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Return the ratio of two medians."""
    return statistics.median(numerators) / statistics.median(denominators)


def run_in_subprocess(function: Callable[..., Outcome], *arguments: Any) -> Outcome:
    """Run a function in a new process, so that settings and memory of other measurements do not affect it."""
    with ProcessPoolExecutor(1, get_context("spawn"), _start_workers_by_default) as process:
        return process.submit(function, *arguments).result()


def describe_commit() -> str:
    """Return the commit that is checked out; `+` means that the program or its benchmarks differ from it."""
    git = ["git", "-C", str(Path(__file__).parents[1])]
    head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=False)
    code = ("src", "benchmarks", ":!benchmarks/results")
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *code], capture_output=True, check=False)
    return (head.stdout.strip() + ("+" if changed.returncode else "")) or "unknown"


def describe_command() -> str:
    """Return the command line of this program; of files in other folders only the names, which differ by machine."""
    arguments = [Path(each).name if Path(each).is_absolute() or each.startswith("..") else each for each in sys.argv]
    return shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *arguments[1:]])


def save_results(name: str, results: dict[str, Any]) -> None:
    """Print results, and write them with the machine and the command that produced them."""
    for key, value in results.items():
        print(f"{key}: {value}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(
        json.dumps({"command": describe_command(), "machine": describe_machine(), **results}, indent=2) + "\n"
    )
    print(f"Results: {path}")


def _start_workers_by_default() -> None:
    """Let loaders start their workers as they do by default; a spawned process would spawn them too."""
    set_start_method(get_all_start_methods()[0], force=True)


def _describe_processor() -> str:
    """Return the name of the CPU and its instructions for bf16."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    extras = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in text]
    return " ".join([names[0] if names else platform.processor() or platform.machine(), *extras])
