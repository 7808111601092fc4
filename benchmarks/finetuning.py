"""Trainers that are measured for quality: each trains ResNet-18 on the training split of a table, and predicts its test
split.

All start from the same weights. What a trainer leaves open is as in the plain script: AdamW and the averaging of eight
views. The recipe of the source documents has its own optimizer, size and single view.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

import parfocal
from benchmarks import plain_finetune
from benchmarks.image_files import Change, ImageFiles, augment, flip
from benchmarks.machine import cpu_seconds
from benchmarks.peers import WORKERS, BF16Network
from parfocal.engine.device import resolve_precision
from parfocal.evaluation.predictions import Predictions
from parfocal.recipe import load_recipe, parse_changes

DOCUMENTS_RECIPE = "fundus-finetune-224"
LEARNING_RATE = {"scratch": 1e-3, "weights": 3e-4}
WEIGHT_DECAY = 0.05
BATCH_SIZE = 32

Predict = Callable[[], np.ndarray]
"""Return the class probabilities of the test images."""


@dataclass(frozen=True)
class Setting:
    """What a single training is given: `epochs` and `side` are for the others, the fields after them for Parfocal."""

    labels: Path
    weights: Path | None
    seed: int
    epochs: int = 0
    side: int = 0
    minutes: float = 0
    recipe: str = "auto"
    changes: tuple[str, ...] = ()

    @property
    def start(self) -> str:
        """Whether training begins from weights or from scratch."""
        return "scratch" if self.weights is None else "weights"


@dataclass
class Stopwatch:
    """Processor time and wall time from its creation to the first call of `stop`."""

    started: tuple[float, float] = field(default_factory=lambda: (cpu_seconds(), time.perf_counter()))
    minutes: tuple[float, float] | None = None

    def stop(self) -> None:
        """Note the time that has passed, unless that was done before."""
        if self.minutes is None:
            cpu_start, wall_start = self.started
            self.minutes = (cpu_seconds() - cpu_start) / 60, (time.perf_counter() - wall_start) / 60


def read_split(labels: Path, split: str) -> tuple[list[Path], Tensor, list[str]]:
    """Return the paths and labels of a split, and the names of all classes in the order of their labels."""
    rows = pd.read_csv(labels, dtype=str)
    classes = sorted(rows["label"].unique(), key=lambda name: (len(name), name) if name.isdigit() else (0, name))
    rows = rows[rows["split"] == split]
    numbers = rows["label"].map({name: number for number, name in enumerate(classes)})
    return [Path(path) for path in rows["path"]], torch.tensor(numbers.to_numpy()), classes


def train_parfocal(setting: Setting, stopwatch: Stopwatch) -> Predict:
    """Train with Parfocal as the command line does; the clock stops when the network is trained."""
    init = "scratch" if setting.weights is None else str(setting.weights)
    changes: dict[str, Any] = {"minutes": setting.minutes, "init": init, "seed": setting.seed}
    changes |= parse_changes(list(setting.changes))
    train_module = import_module("parfocal.training.train")
    fit = train_module.fit

    def fit_and_stop(*arguments: Any, **options: Any) -> None:
        fit(*arguments, **options)
        stopwatch.stop()

    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict("os.environ", {"PARFOCAL_STORES": f"{folder}/stores"}),
        patch.object(train_module, "fit", fit_and_stop),
    ):
        (run,) = parfocal.train(setting.labels, setting.recipe, out=Path(folder) / "runs", **changes)
        predictions = Predictions.load(run.predictions_path("test"))
    order = [predictions.classes.index(name) for name in read_split(setting.labels, "test")[2]]
    positions = {name: position for position, name in enumerate(predictions.ids)}
    paths, _, _ = read_split(setting.labels, "test")
    rows = [positions[str(path)] for path in paths]
    return lambda: predictions.probabilities[rows][:, order]


def train_script(setting: Setting, stopwatch: Stopwatch) -> Predict:
    """Train with the plain script."""
    paths, labels, classes = read_split(setting.labels, "train")
    bf16 = uses_bf16()
    network = plain_finetune.finetune(
        plain_finetune.load_images(paths, setting.side),
        labels,
        len(classes),
        setting.epochs,
        setting.weights,
        setting.seed,
        bf16,
    )
    stopwatch.stop()
    return partial(_predict_test, network, setting, bf16)


def train_documents(setting: Setting, stopwatch: Stopwatch) -> Predict:
    """Train with the recipe of the source documents in the loop of a tutorial: float32, PIL in two worker processes."""
    recipe = load_recipe(DOCUMENTS_RECIPE)
    config = recipe.training
    loader, classes = _build_loader(setting, flip, config.batch_size)
    network = plain_finetune.build_network(len(classes), setting.weights, setting.seed)
    optimizer = torch.optim.SGD(
        network.parameters(), config.learning_rate, config.momentum, weight_decay=config.weight_decay
    )
    for _ in range(setting.epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
    stopwatch.stop()
    return partial(_predict_test, network.eval(), setting, False, n_views=1)


def train_lightning(setting: Setting, stopwatch: Stopwatch) -> Predict:
    """Train with Lightning's Trainer, with the optimizer and the schedule of the plain script."""
    import pytorch_lightning as lightning

    loader, classes = _build_loader(setting, augment, BATCH_SIZE)
    peak = LEARNING_RATE[setting.start]
    steps = len(loader) * setting.epochs

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = plain_finetune.build_network(len(classes), setting.weights, setting.seed)

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            images, labels = batch
            return functional.cross_entropy(self.network(images.contiguous(memory_format=torch.channels_last)), labels)

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), peak, weight_decay=WEIGHT_DECAY)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=0.1)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    silent: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    bf16 = uses_bf16()
    precision = "bf16-mixed" if bf16 else "32-true"
    trainer = lightning.Trainer(
        max_epochs=setting.epochs, precision=precision, accelerator="cpu", enable_checkpointing=False, **silent
    )
    module = Module()
    trainer.fit(module, loader)
    stopwatch.stop()
    return partial(_predict_test, module.network.eval(), setting, bf16)


def train_timm(setting: Setting, stopwatch: Stopwatch) -> Predict:
    """Train as timm's train.py does: its data set, loader, transforms, optimizer and schedule, with AdamW."""
    # Imported by name, because timm may be missing where types are checked.
    data, optim, scheduler = (import_module(f"timm.{name}") for name in ("data", "optim", "scheduler"))
    paths, labels, classes = read_split(setting.labels, "train")
    data.readers.img_extensions.add_img_extensions(".bmp")
    bf16 = uses_bf16()
    network = plain_finetune.build_network(len(classes), setting.weights, setting.seed)
    with tempfile.TemporaryDirectory() as folder:
        for path, label in zip(paths, labels.tolist(), strict=True):
            link = Path(folder) / f"{label:04d}" / path.name
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(path)
        loader = data.create_loader(
            data.ImageDataset(folder),
            input_size=setting.side,
            batch_size=BATCH_SIZE,
            is_training=True,
            # The default, from 8 % of the area on, is meant for photographs of objects.
            scale=(0.7, 1.0),
            vflip=0.5,
            num_workers=WORKERS,
            device=torch.device("cpu"),
            use_prefetcher=False,
        )
        peak = LEARNING_RATE[setting.start]
        optimizer = optim.create_optimizer_v2(network, opt="adamw", lr=peak, weight_decay=WEIGHT_DECAY)
        schedule, _ = scheduler.create_scheduler_v2(
            optimizer,
            sched="cosine",
            num_epochs=setting.epochs,
            warmup_epochs=1,
            warmup_lr=peak / 25,
            step_on_epochs=False,
            updates_per_epoch=len(loader),
        )
        for epoch in range(setting.epochs):
            for step, (images, targets) in enumerate(loader):
                images = images.contiguous(memory_format=torch.channels_last)
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    loss = functional.cross_entropy(network(images), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step_update(epoch * len(loader) + step + 1)
    stopwatch.stop()
    return partial(_predict_test, network.eval(), setting, bf16)


def train_fastai(setting: Setting, stopwatch: Stopwatch) -> Predict:
    """Train with fastai's Learner and `fit_one_cycle`, its data loaders, its batch transforms and its Adam."""
    vision = import_module("fastai.vision.all")
    paths, labels, classes = read_split(setting.labels, "train")
    rows = pd.DataFrame({"path": map(str, paths), "label": labels.tolist(), "valid": False})
    # Only training is compared, so one image is enough for validation.
    rows = pd.concat([rows, rows[:1].assign(valid=True)])
    loaders = vision.ImageDataLoaders.from_df(
        rows,
        path="/",
        label_col="label",
        valid_col="valid",
        item_tfms=vision.Resize(setting.side, method="squish"),
        batch_tfms=[
            *vision.aug_transforms(flip_vert=True, max_rotate=180, min_zoom=0.9),
            vision.Normalize.from_stats(*vision.imagenet_stats),
        ],
        bs=BATCH_SIZE,
        num_workers=WORKERS,
        device=torch.device("cpu"),
    )
    network = plain_finetune.build_network(len(classes), setting.weights, setting.seed)
    bf16 = uses_bf16()
    learner = vision.Learner(
        loaders, BF16Network(network) if bf16 else network, loss_func=vision.CrossEntropyLossFlat(), wd=WEIGHT_DECAY
    )
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(setting.epochs, LEARNING_RATE[setting.start])
    stopwatch.stop()
    return partial(_predict_test, network.eval(), setting, bf16)


@dataclass(frozen=True)
class Trainer:
    """A trainer, the package that it needs, and the side of its images if that is always the same."""

    train: Callable[[Setting, Stopwatch], Predict]
    package: str = ""
    side: int = 0


OURS = "Parfocal"
TRAINERS = {
    "documents": Trainer(train_documents, side=load_recipe(DOCUMENTS_RECIPE).views.crop_size),
    "script": Trainer(train_script),
    "Lightning": Trainer(train_lightning, "pytorch_lightning"),
    "timm": Trainer(train_timm, "timm"),
    "fastai": Trainer(train_fastai, "fastai.vision.all"),
    OURS: Trainer(train_parfocal),
}


def uses_bf16() -> bool:
    """Return whether this machine computes in bf16 faster than in float32."""
    return resolve_precision("auto") == "bf16"


def _build_loader(setting: Setting, change: Change, batch_size: int) -> tuple[DataLoader[Any], list[str]]:
    """Return a loader of the training images in two worker processes, and the classes."""
    paths, labels, classes = read_split(setting.labels, "train")
    dataset = ImageFiles(paths, labels, setting.side, change)
    loader = DataLoader(dataset, batch_size, shuffle=True, num_workers=WORKERS, persistent_workers=True)
    return loader, classes


def _predict_test(network: nn.Module, setting: Setting, bf16: bool, n_views: int = 8) -> np.ndarray:
    paths, _, _ = read_split(setting.labels, "test")
    images = plain_finetune.load_images(paths, setting.side)
    return plain_finetune.predict(network, images, bf16, n_views).numpy()
