"""Asking the C library to keep what is freed: on a CPU a network's buffers come and go with every step.

Left to itself, glibc hands large buffers back to the kernel and has each page cleared anew when it is next touched.
Kept, a ResNet-18 step at 224 pixels takes a sixth less time (see `benchmarks/results`).
"""

import ctypes
import sys

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
