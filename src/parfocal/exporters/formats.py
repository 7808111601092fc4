"""The export formats. To add a format, write a subclass of `Format` here: the command line and the checks find it.

PyTorch and the libraries of the formats are imported only when a network is written or loaded.
"""

import json
import logging
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from parfocal.errors import ParfocalError, UsageError
from parfocal.io import explain_write_errors
from parfocal.progress import show_progress

if TYPE_CHECKING:
    import numpy as np
    import openvino

    from parfocal.engine.compiled import Precision
    from parfocal.exporters.graph import ExportGraph

PredictFunction: TypeAlias = "Callable[[np.ndarray], np.ndarray]"
"""Maps uint8 pixels of prepared images (N, size, size, 3) to calibrated probabilities (N, classes)."""

METADATA_KEY = "parfocal"
"""The key of our metadata (JSON) in the metadata of each format."""


class Format(ABC):
    """An export format: what it supports, how a network is written, and how the runtime of the format loads it."""

    name: ClassVar[str]
    suffix: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages that the format needs."""
    bf16_problem: ClassVar[str] = ""
    """Why the format does not support bf16, if it does not."""
    supports_int8: ClassVar[bool] = False

    @abstractmethod
    def write(self, graph: "ExportGraph", precision: "Precision", metadata: Mapping[str, Any], path: Path) -> None:
        """Write a network and its metadata. `path` is in a temporary folder."""

    @abstractmethod
    def load(self, path: Path) -> tuple[PredictFunction, dict[str, Any]]:
        """Load a network in the runtime of the format; return its prediction function and its metadata."""

    def list_files(self, path: Path) -> list[Path]:
        """Return the files of an export; the last is the file to open."""
        return [path]

    def check_options(self, precision: "Precision", int8: bool) -> None:
        """Raise an error if the format does not support the options, or if a package is not installed."""
        if precision == "bf16" and self.bf16_problem:
            raise UsageError(f"{self.name} does not support precision bf16: {self.bf16_problem} Choose float32.")
        if int8 and not self.supports_int8:
            supported = ", ".join(each.name for each in FORMATS.values() if each.supports_int8)
            raise UsageError(f"{self.name} does not support int8. Choose {supported}.")
        for package in (*self.packages, *(("nncf",) if int8 else ())):
            if find_spec(package) is None:
                raise ParfocalError(f"{package} is not installed. Install it with: pip install 'parfocal[export]'")


class Onnx(Format):
    """ONNX, which ONNX Runtime and many other programs run."""

    name = "onnx"
    suffix = ".onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")
    bf16_problem = "ONNX Runtime has no bf16 convolutions on CPUs."

    def write(self, graph: "ExportGraph", precision: "Precision", metadata: Mapping[str, Any], path: Path) -> None:  # noqa: D102
        import torch

        # The exporter warns about operators of packages that are not installed. None of them is used here.
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
        program.model.metadata_props[METADATA_KEY] = json.dumps(metadata, ensure_ascii=False)
        program.save(path)

    def load(self, path: Path) -> tuple[PredictFunction, dict[str, Any]]:  # noqa: D102
        import numpy as np
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        metadata = json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY])
        return _predict_in_chunks(lambda pixels: np.asarray(session.run(None, {"pixels": pixels})[0])), metadata


class OpenVino(Format):
    """The format of OpenVINO, an .xml and a .bin file, for Intel processors."""

    name = "openvino"
    suffix = ".xml"
    packages = ("openvino",)
    supports_int8 = True

    def write(self, graph: "ExportGraph", precision: "Precision", metadata: Mapping[str, Any], path: Path) -> None:  # noqa: D102
        from parfocal.engine.compiled import convert_to_openvino

        self.write_model(convert_to_openvino(graph, graph.size), precision, metadata, path)

    def write_model(self, model: Any, precision: "Precision", metadata: Mapping[str, Any], path: Path) -> None:
        """Write an OpenVINO model, with 16-bit weights for bf16."""
        from parfocal.engine.compiled import import_openvino

        model.set_rt_info(json.dumps(metadata, ensure_ascii=False), [METADATA_KEY])
        import_openvino().save_model(model, path, compress_to_fp16=precision == "bf16")

    def load(self, path: Path) -> tuple[PredictFunction, dict[str, Any]]:  # noqa: D102
        from parfocal.engine.compiled import OpenVinoNetwork, import_openvino

        model = import_openvino().Core().read_model(path)
        metadata = json.loads(model.get_rt_info([METADATA_KEY]).astype(str))
        return OpenVinoNetwork(model, metadata["precision"]), metadata

    def list_files(self, path: Path) -> list[Path]:  # noqa: D102
        return [path.with_suffix(".bin"), path]


class Safetensors(Format):
    """The weights as safetensors, which Parfocal and other programs read without running code."""

    name = "safetensors"
    suffix = ".safetensors"

    def write(self, graph: "ExportGraph", precision: "Precision", metadata: Mapping[str, Any], path: Path) -> None:  # noqa: D102
        from parfocal.models.checkpoints import write_tensors

        tensors = {
            name: weight.bfloat16() if precision == "bf16" and weight.is_floating_point() else weight
            for name, weight in graph.classifier.named_tensors().items()
        }
        write_tensors(path, tensors, {**graph.classifier.metadata, "export": metadata})

    def load(self, path: Path) -> tuple[PredictFunction, dict[str, Any]]:  # noqa: D102
        import torch

        from parfocal.exporters.graph import ExportGraph
        from parfocal.models.classifier import Classifier
        from parfocal.recipe_schema import ViewsConfig

        classifier = Classifier.load(path).eval()
        metadata = classifier.metadata["export"]
        views = ViewsConfig(crop_size=metadata["crop_size"], tta=metadata["tta"])
        graph = ExportGraph(classifier, metadata["size"], views, metadata["temperature"])

        @torch.inference_mode()
        def predict(pixels: "np.ndarray") -> "np.ndarray":
            return graph(torch.from_numpy(pixels)).numpy()

        return _predict_in_chunks(predict), metadata


FORMATS: dict[str, Format] = {format_class.name: format_class() for format_class in Format.__subclasses__()}


def load_export(path: Path, format_name: str) -> PredictFunction:
    """Load an exported network in the runtime of its format."""
    return FORMATS[format_name].load(path)[0]


@contextmanager
def staging_path(path: Path, export_format: Format) -> Iterator[Path]:
    """Yield a temporary path; the files written there replace those of `path` if the block succeeds."""
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            for file in export_format.list_files(temporary):
                file.replace(path.with_name(file.name))


def quantize(model: "openvino.Model", pixels: "np.ndarray") -> "openvino.Model":
    """Return a model that computes in int8 where possible; NNCF calibrates its activation ranges on these images."""
    from parfocal.engine.compiled import import_openvino

    import_openvino()
    # NNCF always prints progress bars.
    with show_progress("Calibrating int8", None), redirect_stdout(StringIO()):
        import nncf

        images = nncf.Dataset([pixels[row : row + 1] for row in range(len(pixels))])
        # The fast bias correction doubles the difference from the original network.
        return nncf.quantize(model, images, subset_size=len(pixels), fast_bias_correction=False)


def _predict_in_chunks(predict: PredictFunction) -> PredictFunction:
    """Return a function that predicts any number of images, a chunk at a time."""
    import numpy as np

    from parfocal.engine.compiled import CHUNK_SIZE

    def predict_all(pixels: "np.ndarray") -> "np.ndarray":
        chunks = [pixels[start : start + CHUNK_SIZE] for start in range(0, len(pixels), CHUNK_SIZE)]
        return np.concatenate([predict(chunk) for chunk in chunks])

    return predict_all
