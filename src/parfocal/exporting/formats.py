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

from parfocal.errors import ParfocalError, UsageError
from parfocal.exporting.graph import Graph
from parfocal.files import explained
from parfocal.model.classifier import Classifier
from parfocal.model.compiled import PART, Compiled, Numbers, converted, quiet_openvino, traced
from parfocal.model.weights import write_tensors
from parfocal.parts import ViewsPart

Form = Literal["onnx", "openvino", "torchscript", "safetensors"]
Says = Callable[[np.ndarray], np.ndarray]
"""From uint8 pixels of prepared images (N, size, size, 3) to calibrated probabilities (N, classes)."""

KEY = "parfocal"
"""Under which what is told about a network stands in each format's own metadata, as JSON."""


@dataclass(frozen=True)
class Format:
    """One format: its suffix, the packages it needs, and what networks of it can compute in."""

    suffix: str
    needs: tuple[str, ...]
    numbers: tuple[Numbers, ...]


FORMATS: dict[Form, Format] = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), ("float32",)),
    "openvino": Format(".xml", ("openvino",), ("float32", "bf16")),
    "torchscript": Format(".pt", (), ("float32", "bf16")),
    "safetensors": Format(".safetensors", (), ("float32", "bf16")),
}


def can_be_written(form: Form, numbers: Numbers, integers: bool) -> None:
    """Refuse what a format cannot hold, and name what is not installed."""
    if numbers not in FORMATS[form].numbers:
        raise UsageError("--precision bf16 is not for onnx: ONNX Runtime has no bf16 convolutions on CPUs.")
    if integers and form != "openvino":
        raise UsageError(f"--int8 is for openvino, not for {form}.")
    for package in (*FORMATS[form].needs, *(("nncf",) if integers else ())):
        if find_spec(package) is None:
            raise ParfocalError(f"{package} is not installed. Install it with: pip install 'parfocal[export]'")


def write(graph: Graph, form: Form, numbers: Numbers, about: Mapping[str, Any], path: Path) -> None:
    """Write a network and what is told about it; whole or not at all."""
    text = json.dumps(about, ensure_ascii=False)
    if form == "safetensors":
        tensors = {
            name: weight.bfloat16() if numbers == "bf16" and weight.is_floating_point() else weight
            for name, weight in graph.classifier.named_weights().items()
        }
        write_tensors(path, tensors, {**graph.classifier.about, "export": about})
        return
    if form == "openvino":
        write_openvino(converted(graph, graph.size), numbers, about, path)
        return
    with _beside(path) as folder:
        if form == "onnx":
            _write_onnx(graph, text, folder / path.name)
        else:
            _write_torchscript(graph, numbers, text, folder / path.name)


def write_openvino(model: Any, numbers: Numbers, about: Mapping[str, Any], path: Path) -> None:
    """Write a graph of OpenVINO's as the two files that it keeps one in, with weights of 16 bits for bf16."""
    model.set_rt_info(json.dumps(about, ensure_ascii=False), [KEY])
    with _beside(path) as folder:
        quiet_openvino().save_model(model, folder / path.name, compress_to_fp16=numbers == "bf16")


def files_of(path: Path) -> list[Path]:
    """Return the files that an export consists of; the one that is opened comes last."""
    return [path.with_suffix(".bin"), path] if path.suffix == ".xml" else [path]


def told(path: Path, form: Form) -> dict[str, Any]:
    """Return what a file tells about its network."""
    return json.loads(_READERS[form](path)[1])


def opened(path: Path, form: Form) -> Says:
    """Load an exported network in its own runtime."""
    return _READERS[form](path)[0]


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield a folder beside a file; what an export consists of takes its place from there if the block succeeds."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            yield Path(folder)
            for file in files_of(Path(folder) / path.name):
                file.replace(path.with_name(file.name))


def _write_onnx(graph: Graph, text: str, path: Path) -> None:
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
    program.model.metadata_props[KEY] = text
    program.save(path)


def _write_torchscript(graph: Graph, numbers: Numbers, text: str, path: Path) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=numbers == "bf16", cache_enabled=False):
        steps = traced(graph, graph.size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(steps, path, _extra_files={KEY: text})


def _read_onnx(path: Path) -> tuple[Says, str]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map[KEY]
    return in_parts(lambda pixels: np.asarray(session.run(None, {"pixels": pixels})[0])), text


def _read_openvino(path: Path) -> tuple[Says, str]:
    model = quiet_openvino().Core().read_model(path)
    text = model.get_rt_info([KEY]).astype(str)
    return Compiled(model, json.loads(text)["precision"]), text


def _read_torchscript(path: Path) -> tuple[Says, str]:
    extra = {KEY: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps = torch.jit.load(path, _extra_files=extra)
    return in_parts(_in_torch(steps)), extra[KEY]


def _read_safetensors(path: Path) -> tuple[Says, str]:
    classifier = Classifier.load(path).eval()
    about = classifier.about["export"]
    views = ViewsPart(crop=about["crop"], evaluation=about["looks"])
    graph = Graph(classifier, about["size"], views, about["temperature"])
    return in_parts(_in_torch(graph)), json.dumps(about)


_READERS: dict[Form, Callable[[Path], tuple[Says, str]]] = {
    "onnx": _read_onnx,
    "openvino": _read_openvino,
    "torchscript": _read_torchscript,
    "safetensors": _read_safetensors,
}


def _in_torch(network: nn.Module) -> Says:
    @torch.inference_mode()
    def says(pixels: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(pixels)).numpy()

    return says


def in_parts(says: Says) -> Says:
    """Ask about any number of images a few at a time."""
    return lambda pixels: np.concatenate([says(pixels[start : start + PART]) for start in range(0, len(pixels), PART)])
