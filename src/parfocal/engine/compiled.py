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

CHUNK_SIZE = 16
"""How many images one core works on at a time; larger parts are not faster, and take memory."""

Precision = Literal["float32", "bf16"]
"""What a network computes in."""


def is_openvino_available() -> bool:
    """Whether OpenVINO is installed."""
    return find_spec("openvino") is not None


def import_openvino() -> Any:
    """Import OpenVINO without its habit of telling its makers of each import and use."""
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)
    import openvino

    return openvino


@torch.inference_mode()
def trace_network(network: nn.Module, image_size: int) -> torch.jit.ScriptModule:
    """Return the steps a network takes for pixels (N, side, side, 3), whatever N is, with its weights as constants."""
    example = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # Tracing is deprecated, but it is what OpenVINO does itself; and shapes decide here on nothing but the layout.
        warnings.simplefilter("ignore")
        # The check would run and trace the network once more.
        steps: Any = torch.jit.trace(network.eval(), example, check_trace=False)
        # What depends on weights alone is worked out now: left to OpenVINO, it is wrong where several streams share it.
        return torch.jit.freeze(steps, optimize_numerics=False)


def convert_to_openvino(network: nn.Module, image_size: int) -> "openvino.Model":
    """Return a network as OpenVINO's own graph."""
    openvino = import_openvino()
    pixels = openvino.PartialShape([-1, image_size, image_size, 3]), openvino.Type.u8
    return openvino.convert_model(trace_network(network, image_size), input=[pixels])


class OpenVinoNetwork:
    """A network on this machine's cores, from uint8 pixels to rows; any number of images, from any number of threads.

    Many images are shared out to the cores, each of which works on a part at a time, and a single image is worked on by
    all cores together: the first gets most done, the second answers soonest.
    """

    def __init__(self, model: "openvino.Model", precision: Precision) -> None:
        core = import_openvino().Core()
        hints = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
        self._throughput_requests, self._latency_requests = (
            _create_requests(core.compile_model(model, "CPU", {**hints, "PERFORMANCE_HINT": hint}))
            for hint in ("THROUGHPUT", "LATENCY")
        )
        self._pool = ThreadPoolExecutor(self._throughput_requests.qsize(), thread_name_prefix="compiled")

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return one row for each image, in their order."""
        if len(pixels) == 1:
            return _infer(self._latency_requests, pixels)
        parts = [pixels[start : start + CHUNK_SIZE] for start in range(0, len(pixels), CHUNK_SIZE)]
        return np.concatenate(list(self._pool.map(partial(_infer, self._throughput_requests), parts)))


def _create_requests(model: "openvino.CompiledModel") -> "SimpleQueue[openvino.InferRequest]":
    """Return as many requests as may be under way at a time; who wants one waits for it."""
    free: SimpleQueue[openvino.InferRequest] = SimpleQueue()
    for _ in range(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")):
        free.put(model.create_infer_request())
    return free


def _infer(requests: "SimpleQueue[openvino.InferRequest]", pixels: np.ndarray) -> np.ndarray:
    request = requests.get()
    try:
        return request.infer([pixels], share_inputs=True)[0]
    finally:
        requests.put(request)
