"""The formats a network is exported to: how each is written, and how its own runtime reads it again."""

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from parfocal.engine.compiled import (
    CHUNK_SIZE,
    OpenVinoNetwork,
    Precision,
    convert_to_openvino,
    import_openvino,
    trace_network,
)
from parfocal.errors import ParfocalError, UsageError
from parfocal.exporters.graph import ExportGraph
from parfocal.io import explain_write_errors
from parfocal.models.checkpoints import write_tensors
from parfocal.models.classifier import Classifier
from parfocal.schema import ViewsConfig

FormatName = Literal["onnx", "openvino", "torchscript", "safetensors"]
PredictFunction = Callable[[np.ndarray], np.ndarray]
"""From uint8 pixels of prepared images (N, size, size, 3) to calibrated probabilities (N, classes)."""

METADATA_KEY = "parfocal"
"""Under which what is told about a network stands in each format's own metadata, as JSON."""


@dataclass(frozen=True)
class Format:
    """One format: its suffix, the packages it needs, and what networks of it can compute in."""

    suffix: str
    packages: tuple[str, ...]
    precisions: tuple[Precision, ...]


FORMATS: dict[FormatName, Format] = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), ("float32",)),
    "openvino": Format(".xml", ("openvino",), ("float32", "bf16")),
    "torchscript": Format(".pt", (), ("float32", "bf16")),
    "safetensors": Format(".safetensors", (), ("float32", "bf16")),
}


def check_format(format_name: FormatName, precision: Precision, int8: bool) -> None:
    """Refuse what a format cannot hold, and name what is not installed."""
    if precision not in FORMATS[format_name].precisions:
        raise UsageError("--precision bf16 is not for onnx: ONNX Runtime has no bf16 convolutions on CPUs.")
    if int8 and format_name != "openvino":
        raise UsageError(f"--int8 is for openvino, not for {format_name}.")
    for package in (*FORMATS[format_name].packages, *(("nncf",) if int8 else ())):
        if find_spec(package) is None:
            raise ParfocalError(f"{package} is not installed. Install it with: pip install 'parfocal[export]'")


def write_export(
    graph: ExportGraph, format_name: FormatName, precision: Precision, metadata: Mapping[str, Any], path: Path
) -> None:
    """Write a network and what is told about it; whole or not at all."""
    text = json.dumps(metadata, ensure_ascii=False)
    if format_name == "safetensors":
        tensors = {
            name: weight.bfloat16() if precision == "bf16" and weight.is_floating_point() else weight
            for name, weight in graph.classifier.named_weights().items()
        }
        write_tensors(path, tensors, {**graph.classifier.metadata, "export": metadata})
        return
    if format_name == "openvino":
        write_openvino(convert_to_openvino(graph, graph.size), precision, metadata, path)
        return
    with _staging_folder(path) as folder:
        if format_name == "onnx":
            _write_onnx(graph, text, folder / path.name)
        else:
            _write_torchscript(graph, precision, text, folder / path.name)


def write_openvino(model: Any, precision: Precision, metadata: Mapping[str, Any], path: Path) -> None:
    """Write a graph of OpenVINO's as the two files that it keeps one in, with weights of 16 bits for bf16."""
    model.set_rt_info(json.dumps(metadata, ensure_ascii=False), [METADATA_KEY])
    with _staging_folder(path) as folder:
        import_openvino().save_model(model, folder / path.name, compress_to_fp16=precision == "bf16")


def list_files(path: Path) -> list[Path]:
    """Return the files that an export consists of; the one that is opened comes last."""
    return [path.with_suffix(".bin"), path] if path.suffix == ".xml" else [path]


def read_metadata(path: Path, format_name: FormatName) -> dict[str, Any]:
    """Return what a file tells about its network."""
    return json.loads(_READERS[format_name](path)[1])


def load_export(path: Path, format_name: FormatName) -> PredictFunction:
    """Load an exported network in its own runtime."""
    return _READERS[format_name](path)[0]


@contextmanager
def _staging_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside a file; what an export consists of takes its place from there if the block succeeds."""
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            yield Path(folder)
            for file in list_files(Path(folder) / path.name):
                file.replace(path.with_name(file.name))


def _write_onnx(graph: ExportGraph, metadata_json: str, path: Path) -> None:
    # Of operations of packages that are not there nothing needs to be said.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.eval(),
            (torch.zeros(2, graph.size, graph.size, 3, dtype=torch.uint8),),
            dynamo=True,
            input_names=["pixels"],
            output_names=["probabilities"],
            dynamic_shapes={"pixels": {0: torch.export.Dim("images")}},
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props[METADATA_KEY] = metadata_json
    program.save(path)


def _write_torchscript(graph: ExportGraph, precision: Precision, metadata_json: str, path: Path) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
        steps = trace_network(graph, graph.size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(steps, path, _extra_files={METADATA_KEY: metadata_json})


def _read_onnx(path: Path) -> tuple[PredictFunction, str]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map[METADATA_KEY]
    return predict_in_batches(lambda pixels: np.asarray(session.run(None, {"pixels": pixels})[0])), text


def _read_openvino(path: Path) -> tuple[PredictFunction, str]:
    model = import_openvino().Core().read_model(path)
    text = model.get_rt_info([METADATA_KEY]).astype(str)
    return OpenVinoNetwork(model, json.loads(text)["precision"]), text


def _read_torchscript(path: Path) -> tuple[PredictFunction, str]:
    extra = {METADATA_KEY: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps = torch.jit.load(path, _extra_files=extra)
    return predict_in_batches(_torch_predictor(steps)), extra[METADATA_KEY]


def _read_safetensors(path: Path) -> tuple[PredictFunction, str]:
    classifier = Classifier.load(path).eval()
    about = classifier.metadata["export"]
    views = ViewsConfig(crop_size=about["crop_size"], tta=about["looks"])
    graph = ExportGraph(classifier, about["size"], views, about["temperature"])
    return predict_in_batches(_torch_predictor(graph)), json.dumps(about)


_READERS: dict[FormatName, Callable[[Path], tuple[PredictFunction, str]]] = {
    "onnx": _read_onnx,
    "openvino": _read_openvino,
    "torchscript": _read_torchscript,
    "safetensors": _read_safetensors,
}


def _torch_predictor(network: nn.Module) -> PredictFunction:
    @torch.inference_mode()
    def says(pixels: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(pixels)).numpy()

    return says


def predict_in_batches(predict: PredictFunction) -> PredictFunction:
    """Ask about any number of images a few at a time."""
    return lambda pixels: np.concatenate(
        [predict(pixels[start : start + CHUNK_SIZE]) for start in range(0, len(pixels), CHUNK_SIZE)]
    )
