"""A table of labelled images goes in; trained networks, an honest comparison and a page come out.

The verbs are functions here and commands of the same name: `parfocal.train("data", model="resnet18")` does what
`parfocal train data model=resnet18` does. Each is imported when it is first used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parfocal.data.checks import check
    from parfocal.data.dataset import ImageDataset
    from parfocal.data.layouts import read
    from parfocal.data.store import prepare
    from parfocal.evaluation.evaluate import evaluate
    from parfocal.evaluation.predict import predict
    from parfocal.explainability.explain import explain
    from parfocal.exporters.export import export
    from parfocal.report.report import compare
    from parfocal.serving.server import serve
    from parfocal.synthetic.dataset import synthesize
    from parfocal.training.autoconfig import plan
    from parfocal.training.benchmark import bench
    from parfocal.training.train import train

__version__ = "0.1.0"

if os.environ.get("PARFOCAL_CPU") == "avx2":
    # PyTorch and oneDNN read these once, when they are loaded.
    os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
    os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"

_MODULES = {
    "ImageDataset": "data.dataset",
    "bench": "training.benchmark",
    "check": "data.checks",
    "compare": "report.report",
    "evaluate": "evaluation.evaluate",
    "explain": "explainability.explain",
    "export": "exporters.export",
    "plan": "training.autoconfig",
    "predict": "evaluation.predict",
    "prepare": "data.store",
    "read": "data.layouts",
    "serve": "serving.server",
    "synthesize": "synthetic.dataset",
    "train": "training.train",
}

__all__ = [
    "ImageDataset",
    "bench",
    "check",
    "compare",
    "evaluate",
    "explain",
    "export",
    "plan",
    "predict",
    "prepare",
    "read",
    "serve",
    "synthesize",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'parfocal' has no attribute {name!r}")
    return getattr(import_module(f"parfocal.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
