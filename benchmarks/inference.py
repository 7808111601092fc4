"""Inference speed: `predict` from files to a CSV, the engine alone, and a plain loop as in tutorials.

The engine alone gets prepared pixels. The plain loop uses float32, channels first, no gradients, and a PIL pipeline in
two worker processes; it runs in a separate process, so that Parfocal's settings do not affect it.
"""

import argparse
import csv
import itertools
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.machine import measure_rate, median_ratio, save_results
from parfocal.data.decode import prepare_image
from parfocal.data.parallel import map_ordered
from parfocal.engine.compiled import is_openvino_available
from parfocal.engine.device import resolve_precision
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.out_of_distribution import OodMonitor, compute_features
from parfocal.evaluation.predict import predict
from parfocal.evaluation.predictor import Predictor
from parfocal.models import resnet
from parfocal.models.classifier import build_classifier
from parfocal.recipe import load_recipe
from parfocal.run import Run
from parfocal.synthetic.dataset import synthesize_smear

BATCH_SIZE = 64
MEAN, STD = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

plain_batches: Iterator[Tensor]


class PlainDataset(Dataset[Tensor]):
    """Images as tutorials read them: PIL, resized to 256, center crop of 224, normalized."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        from PIL import Image

        with Image.open(self.paths[index]) as file:
            image = file.convert("RGB").resize((256, 256), Image.Resampling.BILINEAR).crop((16, 16, 240, 240))
        return (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 - MEAN) / STD


def start_plain_workers(paths: list[Path]) -> None:
    """Start the workers before this process computes anything, because they are forked."""
    global plain_batches
    loader = DataLoader(PlainDataset(paths), 32, num_workers=2, prefetch_factor=1, persistent_workers=True)
    plain_batches = itertools.chain.from_iterable(itertools.repeat(loader))
    next(plain_batches)


def run_plain(model: str, n_batches: int, out: Path) -> float:
    """Predict images as tutorials do; return the images per second after the first batch."""
    network = resnet.build_resnet(model, n_classes=2).eval()
    with torch.inference_mode(), out.open("w", newline="") as file:
        writer = csv.writer(file)
        network(next(plain_batches))

        def run() -> int:
            n_images = 0
            for pixels in itertools.islice(plain_batches, n_batches):
                probabilities = torch.softmax(network(pixels), dim=1)
                writer.writerows([*row.tolist(), row.argmax().item()] for row in probabilities)
                n_images += len(pixels)
            return n_images

        return measure_rate(run)


def write_untrained_run(folder: Path, model: str, paths: list[Path]) -> Path:
    """Write a run with an untrained network, which is as fast as a trained one, and an out-of-distribution monitor."""
    recipe = load_recipe(None, model=model, size=256, crop_size=224)
    run = Run(folder)
    recipe.save(run.folder / "recipe.yaml")
    build_classifier(recipe.network, ("normal", "blast")).save(run.weights_path)
    run.write_environment({"data": {"classes": ["normal", "blast"], "codes": ["0", "1"]}})
    features = [compute_features(prepare_image(path, recipe.images)[0]) for path in paths]
    monitor = OodMonitor.fit_features(features)
    assert monitor is not None
    Decision((monitor,)).save(run.decision_path)
    return folder


class ParfocalPredictor:
    """Measure a run: `predict` on files, and the engine on their pixels."""

    def __init__(self, run: Path, paths: list[Path]) -> None:
        self.run = run
        self.paths = paths
        started = time.perf_counter()
        self.predictor = Predictor([run])
        self.loading_seconds = time.perf_counter() - started
        prepared = list(map_ordered(paths, self.predictor.prepare, "Reading"))
        self.pixels = np.concatenate([image.views[0] for image in prepared])

    def measure_predict(self) -> float:
        """Return the images per second from files to a CSV, with loading and compiling the network."""
        return measure_rate(lambda: predict(self.run, self.paths, self.run / "out.csv").n_rows)

    def measure_loaded_predict(self) -> float:
        """Return the images per second from files to a CSV, with a loaded network."""
        with patch("parfocal.evaluation.predict.Predictor", return_value=self.predictor):
            return self.measure_predict()

    def measure_engine(self) -> float:
        """Return the images per second of the network alone."""

        def run() -> int:
            for start in range(0, len(self.pixels), BATCH_SIZE):
                self.predictor.predict_functions[0](self.pixels[start : start + BATCH_SIZE])
            return len(self.pixels)

        return measure_rate(run)

    def measure_reading(self) -> float:
        """Return the images per second of reading and preparing files, without prediction."""
        return measure_rate(lambda: len(list(map_ordered(self.paths, self.predictor.prepare, "Reading"))))

    def measure_single_image(self) -> float:
        """Return the milliseconds that the engine takes for a single image."""
        return 1000 / measure_rate(
            lambda: sum(len(self.predictor.predict_functions[0](self.pixels[row : row + 1])) for row in range(20))
        )


def compare(models: list[str], n_images: int, n_plain_images: int, n_rounds: int) -> dict[str, object]:
    """Measure everything in turns; return all results and the ratios of medians."""
    rates: dict[str, dict[str, list[float]]] = {}
    spawn = get_context("spawn")
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        smears = synthesize_smear(Path(temporary) / "smears", 120)
        paths = sorted((smears / "new_dataset").rglob("*.bmp"))[:96]
        plain_process = stack.enter_context(ProcessPoolExecutor(1, spawn, start_plain_workers, (paths,)))
        plain_process.submit(run_plain, models[0], 1, Path(temporary) / "plain.csv").result()
        files = list(itertools.islice(itertools.cycle(paths), n_images))
        predictors = {
            model: ParfocalPredictor(write_untrained_run(Path(temporary) / model, model, paths), files)
            for model in models
        }
        for predictor in predictors.values():
            predictor.measure_engine()
        print("Measuring", flush=True)
        for model, predictor in itertools.chain.from_iterable(itertools.repeat(list(predictors.items()), n_rounds)):
            model_rates = rates.setdefault(model, defaultdict(list))
            plain = plain_process.submit(run_plain, model, n_plain_images // 32, Path(temporary) / "plain.csv")
            for name, value in (
                ("plain", plain.result()),
                ("predict", predictor.measure_predict()),
                ("predict_once_started", predictor.measure_loaded_predict()),
                ("engine", predictor.measure_engine()),
                ("reading", predictor.measure_reading()),
                ("one_image_milliseconds", predictor.measure_single_image()),
            ):
                model_rates[name].append(value)
            print(model, {name: round(values[-1], 1) for name, values in model_rates.items()}, flush=True)
    return {
        "files": f"{n_images} BMP of 450×450; the plain loop {n_plain_images}",
        "engine": "OpenVINO" if is_openvino_available() else "PyTorch",
        "precision": resolve_precision("auto"),
        "start_seconds": {model: round(predictor.loading_seconds, 2) for model, predictor in predictors.items()},
        "images_per_second": {
            model: {name: [round(value, 2) for value in values] for name, values in model_rates.items()}
            for model, model_rates in rates.items()
        },
        "ratios": {
            model: {
                "predict_over_plain": round(median_ratio(model_rates["predict"], model_rates["plain"]), 2),
                "predict_once_started_over_plain": round(
                    median_ratio(model_rates["predict_once_started"], model_rates["plain"]), 2
                ),
                "predict_once_started_over_engine": round(
                    median_ratio(model_rates["predict_once_started"], model_rates["engine"]), 3
                ),
                "engine_over_plain": round(median_ratio(model_rates["engine"], model_rates["plain"]), 2),
            }
            for model, model_rates in rates.items()
        },
    }


def main() -> None:
    """Measure and save the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--plain-images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    results = compare(arguments.models, arguments.images, arguments.plain_images, arguments.rounds)
    save_results("inference", results)


if __name__ == "__main__":
    main()
