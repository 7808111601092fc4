"""Train, compare, explain, export and serve residual networks for medical image classification.

Every command of the command line is also a function: `parfocal.train("data", model="resnet18")` does the same as
`parfocal train data model=resnet18`. A function is imported when it is first used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parfocal.data.checks import check as check
    from parfocal.data.dataset import ImageDataset as ImageDataset
    from parfocal.data.layouts import read as read
    from parfocal.data.store import prepare as prepare
    from parfocal.evaluation.evaluate import evaluate as evaluate
    from parfocal.evaluation.predict import predict as predict
    from parfocal.explainability.explain import explain as explain
    from parfocal.exporters.export import export as export
    from parfocal.report.report import compare as compare
    from parfocal.serving.server import serve as serve
    from parfocal.synthetic.dataset import synthesize as synthesize
    from parfocal.training.autoconfig import plan as plan
    from parfocal.training.benchmark import bench as bench
    from parfocal.training.train import train as train
    from parfocal.version import __version__ as __version__

if os.environ.get("PARFOCAL_CPU") == "avx2":
    # PyTorch and oneDNN read these variables once, when they are loaded.
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

__all__ = [*_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("parfocal.version").__version__
    if name not in _MODULES:
        raise AttributeError(f"module 'parfocal' has no attribute {name!r}")
    return getattr(import_module(f"parfocal.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES, "__version__"])
