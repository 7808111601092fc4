"""How fast new images are answered: `predict` from files to a CSV, its engine alone, and a loop as tutorials write it.

The engine alone is asked about pixels that lie ready. The plain loop is float32, channels first, without gradients, fed
by a PIL pipeline in two worker processes, in a process of its own, where none of our settings reach it.
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
MEAN, STD = (torch.tensor(one)[:, None, None] for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

plain_batches: Iterator[Tensor]


class PlainDataset(Dataset[Tensor]):
    """Images as tutorials read them: PIL, resized to 256, the centre of 224, scaled."""

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
    """Start the workers, before anything is computed here: they are forks."""
    global plain_batches
    loader = DataLoader(PlainDataset(paths), 32, num_workers=2, prefetch_factor=1, persistent_workers=True)
    plain_batches = itertools.chain.from_iterable(itertools.repeat(loader))
    next(plain_batches)


def run_plain(model: str, n_batches: int, out: Path) -> float:
    """Answer for images as tutorials do, the first batch apart; return images a second."""
    network = resnet.build_resnet(model, n_classes=2).eval()
    with torch.inference_mode(), out.open("w", newline="") as file:
        writer = csv.writer(file)
        network(next(plain_batches))

        def run() -> int:
            count = 0
            for pixels in itertools.islice(plain_batches, n_batches):
                said = torch.softmax(network(pixels), dim=1)
                writer.writerows([*row.tolist(), row.argmax().item()] for row in said)
                count += len(pixels)
            return count

        return measure_rate(run)


def write_untrained_run(folder: Path, model: str, paths: list[Path]) -> Path:
    """Write a run whose network has learnt nothing, which takes it as long to answer; what is ordinary is known."""
    made, run = load_recipe(None, model=model, size=256, crop_size=224), Run(folder)
    made.save(run.folder / "recipe.yaml")
    build_classifier(made.network, ("normal", "blast")).save(run.weights_path)
    run.write_environment({"data": {"classes": ["normal", "blast"], "codes": ["0", "1"]}})
    measured = [compute_features(prepare_image(path, made.images)[0]) for path in paths]
    monitor = OodMonitor.fit_features(measured)
    assert monitor is not None
    Decision((monitor,)).save(run.decision_path)
    return folder


class ParfocalPredictor:
    """A run of its own, `predict` on files, and the engine on their pixels."""

    def __init__(self, run: Path, paths: list[Path]) -> None:
        self.run, self.paths = run, paths
        started = time.perf_counter()
        self.predictor = Predictor([run])
        self.loading_seconds = time.perf_counter() - started
        looked = list(map_ordered(paths, self.predictor.prepare, "Looking"))
        self.pixels = np.concatenate([one.views[0] for one in looked])

    def measure_predict(self) -> float:
        """Return images a second from files to a CSV, the start included: reading the run and compiling it."""
        return measure_rate(lambda: predict(self.run, self.paths, self.run / "out.csv").n_rows)

    def measure_loaded_predict(self) -> float:
        """Return the same with a network that is ready."""
        with patch("parfocal.evaluation.predict.Answering", return_value=self.predictor):
            return self.measure_predict()

    def measure_engine(self) -> float:
        """Return images a second of the network alone."""

        def run() -> int:
            for start in range(0, len(self.pixels), BATCH_SIZE):
                self.predictor.predict_functions[0](self.pixels[start : start + BATCH_SIZE])
            return len(self.pixels)

        return measure_rate(run)

    def measure_reading(self) -> float:
        """Return images a second of reading files and looking at them, with nothing said about them."""
        return measure_rate(lambda: len(list(map_ordered(self.paths, self.predictor.prepare, "Looking"))))

    def measure_single_image(self) -> float:
        """Return how many milliseconds the engine takes for a single image."""
        return 1000 / measure_rate(
            lambda: sum(len(self.predictor.predict_functions[0](self.pixels[row : row + 1])) for row in range(20))
        )


def compare(models: list[str], n_images: int, n_plain_images: int, n_rounds: int) -> dict[str, object]:
    """Measure everything in turns; return every figure and the ratios."""
    figures: dict[str, dict[str, list[float]]] = {}
    spawn = get_context("spawn")
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        smears = synthesize_smear(Path(place) / "smears", 120)
        drawn = sorted((smears / "new_dataset").rglob("*.bmp"))[:96]
        aside = stack.enter_context(ProcessPoolExecutor(1, spawn, start_plain_workers, (drawn,)))
        aside.submit(run_plain, models[0], 1, Path(place) / "plain.csv").result()
        files = list(itertools.islice(itertools.cycle(drawn), n_images))
        ours = {
            model: ParfocalPredictor(write_untrained_run(Path(place) / model, model, drawn), files) for model in models
        }
        for one in ours.values():
            one.measure_engine()
        print("Measuring", flush=True)
        for model, one in itertools.chain.from_iterable(itertools.repeat(list(ours.items()), n_rounds)):
            found = figures.setdefault(model, defaultdict(list))
            asked = aside.submit(run_plain, model, n_plain_images // 32, Path(place) / "plain.csv")
            for name, value in (
                ("plain", asked.result()),
                ("predict", one.measure_predict()),
                ("predict_once_started", one.measure_loaded_predict()),
                ("engine", one.measure_engine()),
                ("reading", one.measure_reading()),
                ("one_image_milliseconds", one.measure_single_image()),
            ):
                found[name].append(value)
            print(model, {name: round(values[-1], 1) for name, values in found.items()}, flush=True)
    return {
        "files": f"{n_images} BMP of 450×450; the plain loop {n_plain_images}",
        "engine": "OpenVINO" if is_openvino_available() else "PyTorch",
        "precision": resolve_precision("auto"),
        "start_seconds": {model: round(one.loading_seconds, 2) for model, one in ours.items()},
        "images_per_second": {
            model: {name: [round(value, 2) for value in values] for name, values in found.items()}
            for model, found in figures.items()
        },
        "ratios": {
            model: {
                "predict_over_plain": round(median_ratio(found["predict"], found["plain"]), 2),
                "predict_once_started_over_plain": round(
                    median_ratio(found["predict_once_started"], found["plain"]), 2
                ),
                "predict_once_started_over_engine": round(
                    median_ratio(found["predict_once_started"], found["engine"]), 3
                ),
                "engine_over_plain": round(median_ratio(found["engine"], found["plain"]), 2),
            }
            for model, found in figures.items()
        },
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--plain-images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    save_results("inference", compare(given.models, given.images, given.plain_images, given.rounds))


if __name__ == "__main__":
    main()
