"""From image files to trained weights: our loop and those of others, on the same network and the same smears.

Each runs in a process of its own, in turns: it reads the labels, makes its loader and its network, trains for some
epochs and writes the weights; importing is not counted. A peer that is not installed is left out, and the reason kept.
Beside the time on the clock stands that of the processors, worker processes included; with `--threads 1` it hardly
changes with what else the machine does.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from importlib.metadata import version
from multiprocessing import get_all_start_methods, get_context, set_start_method
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.machine import cpu_seconds, median_ratio, save_results
from benchmarks.training_loop import BATCH_SIZE, PlainDataset
from parfocal.data.layouts import read
from parfocal.data.store import prepare
from parfocal.engine.batches import build_batches
from parfocal.engine.device import build_fabric
from parfocal.models import resnet
from parfocal.models.classifier import build_classifier
from parfocal.recipe import load_recipe
from parfocal.synthetic.dataset import synthesize_smear
from parfocal.training.step import EpochState, build_learner, run_epoch

LEARNING_RATE, MOMENTUM, WORKERS = 0.001, 0.9, 2

Outcome = TypeVar("Outcome")


def train_parfocal(folder: Path, weights: Path, model: str, epochs: int) -> None:
    """Train from the Store, which is made if it is not there."""
    changes = {"optimizer": "sgd", "learning_rate": LEARNING_RATE, "batch_size": BATCH_SIZE, "epochs": epochs}
    chosen = load_recipe("leukemia-adam", model=model, **changes)
    table = read(folder)
    batches = build_batches("train", table, prepare(table, chosen.images), chosen)
    fabric = build_fabric(chosen.training.precision)
    learner = build_learner(fabric, build_classifier(chosen.network, table.classes), chosen)
    for epoch in range(epochs):
        for _ in run_epoch(
            learner,
            batches,
            chosen,
            epoch,
            lambda _: LEARNING_RATE,
            EpochState.create(fabric.device, batches.steps_per_epoch),
        ):
            pass
    learner.classifier.save(weights)


def train_plain(folder: Path, weights: Path, model: str, epochs: int) -> None:
    """Train as tutorials write it: float32, channels first, PIL in two worker processes."""
    network = resnet.build_resnet(model, n_classes=2).train()
    rule = torch.optim.SGD(network.parameters(), LEARNING_RATE, MOMENTUM)
    loader = _build_plain_loader(folder)
    for _ in range(epochs):
        for images, labels in loader:
            rule.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            rule.step()
    torch.save(network.state_dict(), weights)


def train_lightning(folder: Path, weights: Path, model: str, epochs: int, precision: str = "32-true") -> None:
    """Train with Lightning's Trainer on the plain loop's pictures."""
    import pytorch_lightning as lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = resnet.build_resnet(model, n_classes=2)

        def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
            images, labels = batch
            return nn.functional.cross_entropy(self.network(images), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), LEARNING_RATE, MOMENTUM)

    silent: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {**silent, "enable_checkpointing": False, "precision": precision}
    trainer = lightning.Trainer(max_epochs=epochs, **settings)
    module = Module()
    trainer.fit(module, _build_plain_loader(folder))
    torch.save(module.network.state_dict(), weights)


def train_lightning_bf16(folder: Path, weights: Path, model: str, epochs: int) -> None:
    """Train with Lightning's Trainer in bf16."""
    train_lightning(folder, weights, model, epochs, "bf16-mixed")


def train_timm(folder: Path, weights: Path, model: str, epochs: int, bf16: bool = False) -> None:
    """Train as timm's train.py does: its data set, loader and transforms, its optimiser, schedule and meters."""
    # Imported by name, for it may be missing where types are checked.
    data, optim, scheduler, utils = (import_module(f"timm.{part}") for part in ("data", "optim", "scheduler", "utils"))
    data.readers.img_extensions.add_img_extensions(".bmp")
    loader = data.create_loader(
        data.ImageDataset(str(folder / "by_class")),
        input_size=224,
        batch_size=BATCH_SIZE,
        is_training=True,
        vflip=0.5,
        num_workers=WORKERS,
        device=torch.device("cpu"),
        use_prefetcher=False,
    )
    layout = torch.channels_last if bf16 else torch.contiguous_format
    network = resnet.build_resnet(model, n_classes=2).to(memory_format=layout)  # type: ignore[call-overload]
    rule = optim.create_optimizer_v2(network, opt="momentum", lr=LEARNING_RATE, momentum=MOMENTUM)
    schedule, _ = scheduler.create_scheduler_v2(rule, sched="cosine", num_epochs=epochs, updates_per_epoch=len(loader))
    for epoch in range(epochs):
        network.train()
        losses = utils.AverageMeter()
        for step, (images, labels) in enumerate(loader):
            images = images.contiguous(memory_format=layout)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = nn.functional.cross_entropy(network(images), labels)
            rule.zero_grad()
            loss.backward()
            rule.step()
            losses.update(loss.item(), len(labels))
            schedule.step_update(epoch * len(loader) + step + 1, metric=losses.avg)
        schedule.step(epoch + 1)
    torch.save(network.state_dict(), weights)


def train_timm_bf16(folder: Path, weights: Path, model: str, epochs: int) -> None:
    """Train as timm's train.py does with --amp --amp-dtype bfloat16 --channels-last."""
    train_timm(folder, weights, model, epochs, bf16=True)


class BF16Network(nn.Module):
    """A network whose matrices are multiplied in bf16."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Give logits for images."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.network(images).float()


def train_fastai(folder: Path, weights: Path, model: str, epochs: int, bf16: bool = False) -> None:
    """Train with fastai's Learner, its data loaders and its batch transforms."""
    vision = import_module("fastai.vision.all")
    # Of a Learner's two passes only the one that trains is compared, so that one image validates.
    splits = {"train.csv": None, "valid.csv": 1}
    rows = pd.concat(
        [pd.read_csv(folder / name, nrows=few).assign(valid=few is not None) for name, few in splits.items()]
    )
    loaders = vision.ImageDataLoaders.from_df(
        rows,
        path=folder,
        label_col="label",
        valid_col="valid",
        item_tfms=vision.Resize(350),
        batch_tfms=vision.aug_transforms(flip_vert=True, max_rotate=20, size=224),
        bs=BATCH_SIZE,
        num_workers=WORKERS,
    )
    network = resnet.build_resnet(model, n_classes=2)
    settings = {"loss_func": vision.CrossEntropyLossFlat(), "opt_func": vision.SGD, "moms": (MOMENTUM,) * 3}
    learner = vision.Learner(loaders, BF16Network(network) if bf16 else network, **settings)
    with learner.no_bar(), learner.no_logging():
        learner.fit(epochs, LEARNING_RATE)
    torch.save(network.state_dict(), weights)


def train_fastai_bf16(folder: Path, weights: Path, model: str, epochs: int) -> None:
    """Train with fastai's Learner in bf16, by hand, for its own to_bf16 works on graphics cards alone."""
    train_fastai(folder, weights, model, epochs, bf16=True)


TrainFunction = Callable[[Path, Path, str, int], None]
LOOPS: dict[str, tuple[TrainFunction, str]] = {
    "ours": (train_parfocal, ""),
    "plain loop": (train_plain, ""),
    "Lightning": (train_lightning, "pytorch_lightning"),
    "Lightning, bf16": (train_lightning_bf16, "pytorch_lightning"),
    "timm": (train_timm, "timm"),
    "timm, bf16": (train_timm_bf16, "timm"),
    "fastai": (train_fastai, "fastai.vision.all"),
    "fastai, bf16": (train_fastai_bf16, "fastai.vision.all"),
}
"""Each loop, and the package it needs."""

_TORCHVISION_DEPENDENTS = ("torchvision", "torchmetrics", "pytorch_lightning", "timm", "fastai")


def _build_plain_loader(folder: Path) -> DataLoader[Any]:
    pictures = PlainDataset(read(folder))
    return DataLoader(pictures, BATCH_SIZE, shuffle=True, num_workers=WORKERS, persistent_workers=True)


def _import_peer(package: str) -> str:
    """Import a peer and return its version."""
    if not package:
        return ""
    try:
        import_module(package)
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _stub_torchvision()
        import_module(package)
    return version(package.split(".")[0].replace("_", "-"))


def _stub_torchvision() -> None:
    """Declare what torchvision's compiled part would bring, where that was made for another torch than is there.

    The loops measured here use nothing of it, but torchvision does not let itself be imported without.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] in _TORCHVISION_DEPENDENTS]:
        del sys.modules[name]
    global declared
    declared = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        declared.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")


def _run_in_subprocess(function: Callable[..., Outcome], *arguments: Any) -> Outcome:
    """Run a function in a fresh process, where no other loop's settings and memory reach it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def _measure_loop(name: str, folder: Path, model: str, epochs: int, threads: int) -> tuple[str, float, float]:
    """Train once; return the peer's version, seconds on the clock, and seconds of the processors, workers' too."""
    loop, package = LOOPS[name]
    known = _import_peer(package)
    torch.set_num_threads(threads)
    # A fresh process hands its own way of starting on; loaders are to start their workers as they do by themselves.
    set_start_method(get_all_start_methods()[0], force=True)
    started, spent = time.perf_counter(), cpu_seconds()
    loop(folder, folder / f"{name}.weights", model, epochs)
    return known, time.perf_counter() - started, cpu_seconds() - spent


def _measure_prepare(folder: Path) -> tuple[float, float]:
    started, spent = time.perf_counter(), cpu_seconds()
    prepare(read(folder), load_recipe("leukemia-adam").images)
    return time.perf_counter() - started, cpu_seconds() - spent


def _drop_partial_batch(folder: Path) -> int:
    """Leave out images beyond the last whole batch, which timm and fastai drop, and return how many are left."""
    rows = pd.read_csv(folder / "train.csv")
    count = len(rows) // BATCH_SIZE * BATCH_SIZE
    rows[:count].to_csv(folder / "train.csv", index=False)
    return count


def _link_by_class(folder: Path) -> None:
    """Lay the training images out in a folder for each class, as timm wants them."""
    for path, label in pd.read_csv(folder / "train.csv").itertuples(index=False):
        link = folder / "by_class" / str(label) / Path(path).name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((folder / path).resolve())


def compare(
    names: list[str], model: str, n_images: int, n_epochs: int, n_rounds: int, n_threads: int
) -> dict[str, Any]:
    """Measure every loop that is installed in turns, and return all figures and the ratios of medians."""
    with tempfile.TemporaryDirectory() as place, patch.dict(os.environ, {"PARFOCAL_STORES": f"{place}/stores"}):
        folder = synthesize_smear(Path(place) / "smears", n_images)
        count = _drop_partial_batch(folder)
        _link_by_class(folder)
        preparing = _run_in_subprocess(_measure_prepare, folder)
        versions: dict[str, str] = {}
        left_out: dict[str, str] = {}
        seconds: dict[str, list[tuple[float, float]]] = {}
        for turn, name in itertools.product(range(n_rounds), names):
            if name in left_out:
                continue
            try:
                versions[name], clock, processors = _run_in_subprocess(
                    _measure_loop, name, folder, model, n_epochs, n_threads
                )
            except (ImportError, RuntimeError) as error:
                left_out[name] = f"{type(error).__name__}: {error}"
                continue
            seconds.setdefault(name, []).append((clock, processors))
            print(f"round {turn + 1}: {name}: {clock:.1f} s, {processors:.1f} s of processors", flush=True)
    return {
        "model": model,
        "images": count,
        "epochs": n_epochs,
        "batch_size": BATCH_SIZE,
        "threads_used": n_threads,
        "versions": {name: one for name, one in versions.items() if one},
        "left_out": left_out,
        "clock": _summarize({name: [one for one, _ in values] for name, values in seconds.items()}, preparing[0]),
        "processors": _summarize({name: [one for _, one in values] for name, values in seconds.items()}, preparing[1]),
    }


def _summarize(seconds: dict[str, list[float]], prepare_seconds: float) -> dict[str, Any]:
    """Return the seconds of every round, and how many times those of ours the others take, in the median."""
    first = [one + prepare_seconds for one in seconds["ours"]]
    return {
        "preparing": round(prepare_seconds, 2),
        "seconds": {name: [round(one, 2) for one in values] for name, values in seconds.items()},
        "ours_over_it": {name: round(median_ratio(values, seconds["ours"]), 2) for name, values in seconds.items()},
        "ours_with_preparing_over_it": {
            name: round(median_ratio(values, first), 2) for name, values in seconds.items()
        },
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--images", type=int, default=256, help="smears drawn; three quarters are trained on")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="that PyTorch computes in")
    parser.add_argument("--loops", nargs="*", default=list(LOOPS), help="some of them only; ours is always there")
    parser.add_argument("--name", default="peers-cpu", help="of the file in results/")
    given = parser.parse_args()
    names = list(dict.fromkeys(["ours", *given.loops]))
    found = compare(names, given.model, given.images, given.epochs, given.rounds, given.threads)
    save_results(given.name, found)


if __name__ == "__main__":
    main()
