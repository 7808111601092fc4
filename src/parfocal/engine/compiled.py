"""Networks compiled by OpenVINO for the processor of this machine, if OpenVINO is installed."""

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
"""Images that a core processes at a time; larger chunks are not faster and need more memory."""

Precision = Literal["float32", "bf16"]
"""The number format that a network computes in."""


def is_openvino_available() -> bool:
    """Return whether OpenVINO is installed."""
    return find_spec("openvino") is not None


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which reports each import and use to its makers."""
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)
    import openvino

    return openvino


@torch.inference_mode()
def trace_network(network: nn.Module, image_size: int) -> torch.jit.ScriptModule:
    """Trace a network for uint8 pixels (N, image_size, image_size, 3) with any N, with its weights as constants."""
    example = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # Tracing is deprecated, but OpenVINO uses it, too. Only the memory layout depends on shapes here.
        warnings.simplefilter("ignore")
        # The check would run and trace the network once more.
        traced: Any = torch.jit.trace(network.eval(), example, check_trace=False)
        # Freezing computes what depends on weights alone. OpenVINO would do so incorrectly with more than 1 stream.
        return torch.jit.freeze(traced, optimize_numerics=False)


def convert_to_openvino(network: nn.Module, image_size: int) -> "openvino.Model":
    """Convert a network to an OpenVINO model."""
    openvino = import_openvino()
    pixels = openvino.PartialShape([-1, image_size, image_size, 3]), openvino.Type.u8
    return openvino.convert_model(trace_network(network, image_size), input=[pixels])


class OpenVinoNetwork:
    """A compiled network, from uint8 pixels to a row for each image, for any number of images and threads.

    Many images are distributed over the cores in chunks, which gives the highest throughput. A single image is
    processed by all cores together, which gives the lowest latency.
    """

    def __init__(self, model: "openvino.Model", precision: Precision) -> None:
        core = import_openvino().Core()
        options = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
        self._throughput_requests, self._latency_requests = (
            _create_requests(core.compile_model(model, "CPU", {**options, "PERFORMANCE_HINT": hint}))
            for hint in ("THROUGHPUT", "LATENCY")
        )
        self._pool = ThreadPoolExecutor(self._throughput_requests.qsize(), thread_name_prefix="compiled")

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return a row for each image, in the same order."""
        if len(pixels) == 1:
            return _infer(self._latency_requests, pixels)
        chunks = [pixels[start : start + CHUNK_SIZE] for start in range(0, len(pixels), CHUNK_SIZE)]
        return np.concatenate(list(self._pool.map(partial(_infer, self._throughput_requests), chunks)))


def _create_requests(model: "openvino.CompiledModel") -> "SimpleQueue[openvino.InferRequest]":
    """Return a queue of as many inference requests as may run at the same time; threads wait for a free request."""
    requests: SimpleQueue[openvino.InferRequest] = SimpleQueue()
    for _ in range(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")):
        requests.put(model.create_infer_request())
    return requests


def _infer(requests: "SimpleQueue[openvino.InferRequest]", pixels: np.ndarray) -> np.ndarray:
    request = requests.get()
    try:
        return request.infer([pixels], share_inputs=True)[0]
    finally:
        requests.put(request)
