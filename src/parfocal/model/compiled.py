"""Networks compiled for this machine's processor by OpenVINO, where it is installed."""

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    import openvino

PART = 16
"""How many images one core works on at a time; larger parts are not faster, and take memory."""

Numbers = Literal["float32", "bf16"]
"""What a network computes in."""


def can_compile() -> bool:
    """Whether OpenVINO is installed."""
    return find_spec("openvino") is not None


def quiet_openvino() -> Any:
    """Import OpenVINO without its habit of telling its makers of each import and use."""
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)
    import openvino

    return openvino


@torch.inference_mode()
def traced(network: nn.Module, side: int) -> torch.jit.ScriptModule:
    """Return the steps a network takes for pixels (N, side, side, 3), whatever N is, with its weights as constants."""
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # Tracing is deprecated, but it is what OpenVINO does itself; and shapes decide here on nothing but the layout.
        warnings.simplefilter("ignore")
        # The check would run and trace the network once more.
        steps: Any = torch.jit.trace(network.eval(), example, check_trace=False)
        # What depends on weights alone is worked out now: left to OpenVINO, it is wrong where several streams share it.
        return torch.jit.freeze(steps, optimize_numerics=False)


def converted(network: nn.Module, side: int) -> "openvino.Model":
    """Return a network as OpenVINO's own graph."""
    openvino = quiet_openvino()
    pixels = openvino.PartialShape([-1, side, side, 3]), openvino.Type.u8
    return openvino.convert_model(traced(network, side), input=[pixels])


class Compiled:
    """A network on this machine's cores, from uint8 pixels to rows; any number of images, from any number of threads.

    Many images are shared out to the cores, each of which works on a part at a time, and a single image is worked on by
    all cores together: the first gets most done, the second answers soonest.
    """

    def __init__(self, model: "openvino.Model", numbers: Numbers) -> None:
        core = quiet_openvino().Core()
        hints = {"INFERENCE_PRECISION_HINT": "bf16" if numbers == "bf16" else "f32"}
        self._many, self._one = (
            _requests(core.compile_model(model, "CPU", {**hints, "PERFORMANCE_HINT": hint}))
            for hint in ("THROUGHPUT", "LATENCY")
        )
        self._pool = ThreadPoolExecutor(self._many.qsize(), thread_name_prefix="compiled")

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return one row for each image, in their order."""
        if len(pixels) == 1:
            return _answered(self._one, pixels)
        parts = [pixels[start : start + PART] for start in range(0, len(pixels), PART)]
        return np.concatenate(list(self._pool.map(partial(_answered, self._many), parts)))


def _requests(model: "openvino.CompiledModel") -> "SimpleQueue[openvino.InferRequest]":
    """Return as many requests as may be under way at a time; who wants one waits for it."""
    free: SimpleQueue[openvino.InferRequest] = SimpleQueue()
    for _ in range(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")):
        free.put(model.create_infer_request())
    return free


def _answered(free: "SimpleQueue[openvino.InferRequest]", pixels: np.ndarray) -> np.ndarray:
    request = free.get()
    try:
        return request.infer([pixels], share_inputs=True)[0]
    finally:
        free.put(request)
