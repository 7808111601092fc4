"""A table of labelled images goes in; trained networks, an honest comparison and a page come out.

The verbs are functions here and commands of the same name: `parfocal.train("data", model="resnet18")` does what
`parfocal train data model=resnet18` does. Each is imported when it is first used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if os.environ.get("PARFOCAL_CPU") == "avx2":
    # PyTorch and oneDNN read these once, when they are loaded.
    os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
    os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"

if TYPE_CHECKING:
    from parfocal.data.check import check
    from parfocal.data.images import ImageDataset
    from parfocal.data.readers import read
    from parfocal.data.store import prepare
    from parfocal.data.synthetic import synthesize
    from parfocal.evaluation.evaluate import evaluate
    from parfocal.evaluation.predict import predict
    from parfocal.explaining.explain import explain
    from parfocal.exporting.export import export
    from parfocal.report.page import compare
    from parfocal.serving.server import serve
    from parfocal.training.plan import plan
    from parfocal.training.runs import train
    from parfocal.training.speed import bench

_MODULES = {
    "Images": "data.images",
    "bench": "training.speed",
    "check": "data.check",
    "compare": "report.page",
    "evaluate": "evaluation.evaluate",
    "explain": "explaining.explain",
    "export": "exporting.export",
    "plan": "training.plan",
    "predict": "evaluation.predict",
    "prepare": "data.store",
    "read": "data.readers",
    "serve": "serving.server",
    "synthesise": "data.synthetic",
    "train": "training.runs",
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
