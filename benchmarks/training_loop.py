"""Training speed in images per second: Parfocal's epoch, its training step alone, and a plain loop as in tutorials.

All three train the same network on the same smears at 224 pixels, in turns. The plain loop uses float32, channels
first, and a PIL pipeline (rotate, flips, resize 350, crop 224, to tensor) in two worker processes. With one thread CPU
time is compared, including that of the worker processes, because other programs hardly change it; with more threads,
wall time.
"""

import argparse
import itertools
import random
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.machine import choose_clock, measure_matmul_gflops, measure_rate, median_ratio, save_results
from parfocal.data.layouts import read
from parfocal.data.store import prepare
from parfocal.data.table import Table
from parfocal.engine.batches import build_batches
from parfocal.engine.device import build_fabric
from parfocal.models import resnet
from parfocal.models.classifier import build_classifier
from parfocal.recipe import Recipe, load_recipe
from parfocal.synthetic.dataset import synthesize_smear
from parfocal.training.benchmark import compute_gflop_per_image
from parfocal.training.step import Batch, EpochState, build_learner, epoch_row, run_epoch, train_step

BATCH_SIZE = 32
N_IMAGES = {"resnet18": 340, "resnet50": 172, "resnet152": 86}
"""Synthetic smears for each network, three quarters for training; fewer where a step takes longer."""

plain_network: nn.Module
plain_optimizer: torch.optim.Optimizer
plain_loader: DataLoader[tuple[Tensor, int]]
plain_device: torch.device


class PlainDataset(Dataset[tuple[Tensor, int]]):
    """The plain way: PIL opens, rotates and resizes every image each time it is needed."""

    def __init__(self, table: Table) -> None:
        rows = table.rows.iloc[table.get_positions("train")]
        self.paths = rows["path"].tolist()
        self.labels = rows["label"].tolist()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as file:
            image = file.convert("RGB")
        image = image.rotate(random.uniform(-20, 20), Image.Resampling.BILINEAR)
        for flip in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM):
            if random.random() < 0.5:
                image = image.transpose(flip)
        image = image.resize((350, 350), Image.Resampling.BILINEAR).crop((63, 63, 287, 287))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255, self.labels[index]


class ParfocalLoop:
    """Measure an epoch of the trainer, and its training step on a batch that is ready."""

    def __init__(self, fabric: Fabric, table: Table, recipe: Recipe) -> None:
        self.fabric, self.recipe = fabric, recipe
        self.learner = build_learner(fabric, build_classifier(recipe.network, table.classes), recipe)
        self.batches = build_batches("train", table, prepare(table, recipe.images), recipe)
        pixels, labels = next(iter(self.batches.train_batches(0)))
        self.batch = Batch(pixels.to(fabric.device), labels.to(fabric.device))
        self.epochs = itertools.count()
        self.data_waiting: list[float] = []

    def measure_step(self, n_steps: int) -> float:
        """Take training steps alone; return the images per second."""
        self.learner.network.train()

        def run() -> int:
            for _ in range(n_steps):
                train_step(self.learner, [self.batch], 0.001)
            return n_steps * len(self.batch)

        return measure_rate(run, choose_clock())

    def measure_epoch(self) -> float:
        """Train one epoch, with data loading; return the images per second."""

        def run() -> int:
            epoch = next(self.epochs)
            state = EpochState.create(self.fabric.device, self.batches.steps_per_epoch)
            for _ in run_epoch(self.learner, self.batches, self.recipe, epoch, lambda step: 0.001, state):
                pass
            self.data_waiting.append(epoch_row(self.learner, state)["waiting"])
            return len(self.batches.indices)

        return measure_rate(run, choose_clock())


class PlainLoop:
    """Measure a loop as in tutorials, in a separate process, so that Parfocal's settings do not affect it."""

    def __init__(self, folder: Path, model: str, threads: int) -> None:
        self.process = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        self.process.submit(_start_plain_loop, folder, model, threads).result()

    def measure_epoch(self, n_steps: int | None = None) -> float:
        """Train one epoch, or only its first steps; return the images per second."""
        return self.process.submit(_run_plain_epoch, n_steps).result()


def _start_plain_loop(folder: Path, model: str, threads: int) -> None:
    global plain_network, plain_optimizer, plain_loader, plain_device
    torch.set_num_threads(threads)
    plain_device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plain_network = resnet.build_resnet(model, n_classes=2).to(plain_device).train()
    plain_optimizer = torch.optim.SGD(plain_network.parameters(), lr=0.001, momentum=0.9)
    # The workers end with their epoch, so that they do not work while others are measured.
    plain_loader = DataLoader(PlainDataset(read(folder)), BATCH_SIZE, shuffle=True, num_workers=2)


def _run_plain_epoch(n_steps: int | None) -> float:
    def run() -> int:
        n_images = 0
        for images, labels in itertools.islice(plain_loader, n_steps):
            images, labels = images.to(plain_device), labels.to(plain_device)
            plain_optimizer.zero_grad()
            nn.functional.cross_entropy(plain_network(images), labels).backward()
            plain_optimizer.step()
            n_images += len(labels)
        return n_images

    return measure_rate(run, choose_clock())


def compare(model: str, n_images: int, n_rounds: int, n_threads: int) -> dict[str, object]:
    """Measure the three loops in turns, and return all results and the ratios of medians."""
    torch.set_num_threads(n_threads)
    with tempfile.TemporaryDirectory() as folder:
        smears = synthesize_smear(Path(folder) / "smears", n_images)
        table = read(smears)
        recipe = load_recipe("leukemia-adam", model=model, optimizer="sgd", learning_rate=0.001, batch_size=BATCH_SIZE,
                        compile=torch.cuda.is_available())  # fmt: skip
        plain = PlainLoop(smears, model, n_threads)
        steps = len(table.get_positions("train")) // BATCH_SIZE
        plain.measure_epoch(1)
        # The engine makes the C library keep freed memory, for the life of the process. So the default comes first.
        with patch("parfocal.engine.device.keep_freed_memory"):
            untouched = ParfocalLoop(build_fabric(recipe.training.precision), table, recipe)
        untouched.measure_step(1)
        before = [untouched.measure_step(steps) for _ in range(2)]
        ours = ParfocalLoop(build_fabric(recipe.training.precision), table, recipe)
        ours.measure_step(1)
        rates: dict[str, list[float]] = {"step": [], "loop": [], "plain": []}
        for _ in range(n_rounds):
            rates["step"].append(ours.measure_step(steps))
            rates["loop"].append(ours.measure_epoch())
            rates["plain"].append(plain.measure_epoch())
        matmul_gflops = {
            name: measure_matmul_gflops(kind) for name, kind in (("float32", torch.float32), ("bf16", torch.bfloat16))
        }
    return {
        "model": model,
        "batch_size": BATCH_SIZE,
        "threads_used": n_threads,
        "per_second_of": "processor time" if n_threads == 1 else "the clock",
        "images_per_second": {name: [round(value, 2) for value in values] for name, values in rates.items()},
        "step_with_memory_handed_back": [round(value, 2) for value in before],
        "loop_over_step": round(median_ratio(rates["loop"], rates["step"]), 3),
        "loop_over_plain": round(median_ratio(rates["loop"], rates["plain"]), 3),
        "kept_memory_over_handed_back": round(median_ratio(rates["step"], before), 3),
        "waiting_for_data": round(statistics.median(ours.data_waiting), 4),
        "gflop_an_image": round(compute_gflop_per_image(ours.learner.classifier, recipe), 2),
        "gflops_of_matrices": {name: round(value, 1) for name, value in matmul_gflops.items()},
    }


def main() -> None:
    """Measure and save the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(N_IMAGES))
    parser.add_argument("--images", type=int, help="synthetic smears for each network; three quarters are for training")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    parser.add_argument("--name", default="training-loop-cpu", help="start of the file names in results/")
    arguments = parser.parse_args()
    for model in arguments.models:
        images = arguments.images or N_IMAGES.get(model, min(N_IMAGES.values()))
        # Each network in its own process, because the memory settings of the engine cannot be undone.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            save_results(
                f"{arguments.name}-{model}",
                process.submit(compare, model, images, arguments.rounds, arguments.threads).result(),
            )


if __name__ == "__main__":
    main()
