"""From image files to trained weights: Parfocal and other trainers, with the same network and the same smears.

Each runs in its own process, in turns: it reads the labels, builds its loader and its network, trains for some epochs
and writes the weights. Imports are not counted. A trainer that is not installed is left out, with the reason. Results
are wall time and CPU time, including worker processes; with `--threads 1`, other programs hardly change the CPU time.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.machine import cpu_seconds, median_ratio, run_in_subprocess, save_results
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


def train_parfocal(folder: Path, weights: Path, model: str, epochs: int) -> None:
    """Train with Parfocal, from the Store, which is created if necessary."""
    changes = {"optimizer": "sgd", "learning_rate": LEARNING_RATE, "batch_size": BATCH_SIZE, "epochs": epochs}
    recipe = load_recipe("leukemia-adam", model=model, **changes)
    table = read(folder)
    batches = build_batches("train", table, prepare(table, recipe.images), recipe)
    fabric = build_fabric(recipe.training.precision)
    learner = build_learner(fabric, build_classifier(recipe.network, table.classes), recipe)
    for epoch in range(epochs):
        for _ in run_epoch(
            learner,
            batches,
            recipe,
            epoch,
            lambda _: LEARNING_RATE,
            EpochState.create(fabric.device, batches.steps_per_epoch),
        ):
            pass
    learner.classifier.save(weights)


def train_plain(folder: Path, weights: Path, model: str, epochs: int) -> None:
    """Train as in tutorials: float32, channels first, PIL in two worker processes."""
    network = resnet.build_resnet(model, n_classes=2).train()
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, MOMENTUM)
    loader = _build_plain_loader(folder)
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
    torch.save(network.state_dict(), weights)


def train_lightning(folder: Path, weights: Path, model: str, epochs: int, precision: str = "32-true") -> None:
    """Train with Lightning's Trainer, on the images of the plain loop."""
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
    """Train as timm's train.py does: its data set, loader, transforms, optimizer, schedule and meters."""
    # Imported by name, because timm may be missing where types are checked.
    data, optim, scheduler, utils = (import_module(f"timm.{name}") for name in ("data", "optim", "scheduler", "utils"))
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
    optimizer = optim.create_optimizer_v2(network, opt="momentum", lr=LEARNING_RATE, momentum=MOMENTUM)
    schedule, _ = scheduler.create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=epochs, updates_per_epoch=len(loader)
    )
    for epoch in range(epochs):
        network.train()
        losses = utils.AverageMeter()
        for step, (images, labels) in enumerate(loader):
            images = images.contiguous(memory_format=layout)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = nn.functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.update(loss.item(), len(labels))
            schedule.step_update(epoch * len(loader) + step + 1, metric=losses.avg)
        schedule.step(epoch + 1)
    torch.save(network.state_dict(), weights)


def train_timm_bf16(folder: Path, weights: Path, model: str, epochs: int) -> None:
    """Train as timm's train.py does with --amp --amp-dtype bfloat16 --channels-last."""
    train_timm(folder, weights, model, epochs, bf16=True)


class BF16Network(nn.Module):
    """A network that computes in bf16 autocast."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of images."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.network(images).float()


def train_fastai(folder: Path, weights: Path, model: str, epochs: int, bf16: bool = False) -> None:
    """Train with fastai's Learner, its data loaders and its batch transforms."""
    vision = import_module("fastai.vision.all")
    # Only training is compared, so one image is enough for validation.
    splits = {"train.csv": None, "valid.csv": 1}
    rows = pd.concat(
        [pd.read_csv(folder / name, nrows=n_rows).assign(valid=n_rows is not None) for name, n_rows in splits.items()]
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
    """Train with fastai's Learner in bf16, with autocast, because its own to_bf16 works on GPUs only."""
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
"""Each trainer, and the package it needs."""

_TORCHVISION_DEPENDENTS = ("torchvision", "torchmetrics", "pytorch_lightning", "timm", "fastai")


def _build_plain_loader(folder: Path) -> DataLoader[Any]:
    dataset = PlainDataset(read(folder))
    return DataLoader(dataset, BATCH_SIZE, shuffle=True, num_workers=WORKERS, persistent_workers=True)


def import_peer(package: str) -> str:
    """Import a package and return its version."""
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
    """Declare the operators of torchvision's compiled part if it was built for another version of torch.

    The trainers measured here do not use them, but torchvision cannot be imported without.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] in _TORCHVISION_DEPENDENTS]:
        del sys.modules[name]
    global torchvision_library
    torchvision_library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        torchvision_library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")


def _measure_loop(name: str, folder: Path, model: str, epochs: int, threads: int) -> tuple[str, float, float]:
    """Train once; return the version of the trainer, the wall time, and the CPU time with that of the workers."""
    train, package = LOOPS[name]
    package_version = import_peer(package)
    torch.set_num_threads(threads)
    started, started_cpu = time.perf_counter(), cpu_seconds()
    train(folder, folder / f"{name}.weights", model, epochs)
    return package_version, time.perf_counter() - started, cpu_seconds() - started_cpu


def _measure_prepare(folder: Path) -> tuple[float, float]:
    started, started_cpu = time.perf_counter(), cpu_seconds()
    prepare(read(folder), load_recipe("leukemia-adam").images)
    return time.perf_counter() - started, cpu_seconds() - started_cpu


def _drop_partial_batch(folder: Path) -> int:
    """Remove the images after the last full batch, which timm and fastai drop, and return the number of images left."""
    rows = pd.read_csv(folder / "train.csv")
    n_images = len(rows) // BATCH_SIZE * BATCH_SIZE
    rows[:n_images].to_csv(folder / "train.csv", index=False)
    return n_images


def _link_by_class(folder: Path) -> None:
    """Link the training images into a folder for each class, as timm needs them."""
    for path, label in pd.read_csv(folder / "train.csv").itertuples(index=False):
        link = folder / "by_class" / str(label) / Path(path).name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((folder / path).resolve())


def compare(
    names: list[str], model: str, n_images: int, n_epochs: int, n_rounds: int, n_threads: int
) -> dict[str, Any]:
    """Measure all installed trainers in turns, and return all results and the ratios of medians."""
    with tempfile.TemporaryDirectory() as temporary, patch.dict(os.environ, {"PARFOCAL_STORES": f"{temporary}/stores"}):
        folder = synthesize_smear(Path(temporary) / "smears", n_images)
        n_training_images = _drop_partial_batch(folder)
        _link_by_class(folder)
        prepare_times = run_in_subprocess(_measure_prepare, folder)
        versions: dict[str, str] = {}
        left_out: dict[str, str] = {}
        seconds: dict[str, list[tuple[float, float]]] = {}
        for round_number, name in itertools.product(range(n_rounds), names):
            if name in left_out:
                continue
            try:
                versions[name], wall_time, cpu_time = run_in_subprocess(
                    _measure_loop, name, folder, model, n_epochs, n_threads
                )
            except (ImportError, RuntimeError) as error:
                left_out[name] = f"{type(error).__name__}: {error}"
                continue
            seconds.setdefault(name, []).append((wall_time, cpu_time))
            print(f"round {round_number + 1}: {name}: {wall_time:.1f} s, {cpu_time:.1f} s of CPU time", flush=True)
    return {
        "model": model,
        "images": n_training_images,
        "epochs": n_epochs,
        "batch_size": BATCH_SIZE,
        "threads_used": n_threads,
        "versions": {name: version for name, version in versions.items() if version},
        "left_out": left_out,
        "clock": _summarize(
            {name: [wall_time for wall_time, _ in values] for name, values in seconds.items()}, prepare_times[0]
        ),
        "processors": _summarize(
            {name: [cpu_time for _, cpu_time in values] for name, values in seconds.items()}, prepare_times[1]
        ),
    }


def _summarize(seconds: dict[str, list[float]], prepare_seconds: float) -> dict[str, Any]:
    """Return the seconds of every round, and the ratios of the medians to those of Parfocal."""
    with_preparing = [value + prepare_seconds for value in seconds["ours"]]
    return {
        "preparing": round(prepare_seconds, 2),
        "seconds": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
        "ours_over_it": {name: round(median_ratio(values, seconds["ours"]), 2) for name, values in seconds.items()},
        "ours_with_preparing_over_it": {
            name: round(median_ratio(values, with_preparing), 2) for name, values in seconds.items()
        },
    }


def main() -> None:
    """Measure and save the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--images", type=int, default=256, help="synthetic smears; three quarters are for training")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    parser.add_argument("--loops", nargs="*", default=list(LOOPS), help="only these trainers; ours is always included")
    parser.add_argument("--name", default="peers-cpu", help="name of the file in results/")
    arguments = parser.parse_args()
    names = list(dict.fromkeys(["ours", *arguments.loops]))
    results = compare(names, arguments.model, arguments.images, arguments.epochs, arguments.rounds, arguments.threads)
    save_results(arguments.name, results)


if __name__ == "__main__":
    main()
