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
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.machine import rate, ratio, report
from parfocal.data.passes import in_order
from parfocal.data.synthetic import synthesise_smear
from parfocal.evaluation.answering import Answering
from parfocal.evaluation.inference import numbers_for
from parfocal.evaluation.predict import predict
from parfocal.model import resnet
from parfocal.model.compiled import can_compile
from parfocal.training.runs import train

BATCH = 64
MEAN, STD = (torch.tensor(one)[:, None, None] for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


class Pictures(Dataset[Tensor]):
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


def plain(model: str, paths: list[Path], out: Path) -> float:
    """Answer for images as tutorials do, the first batch apart; return images a second."""
    network = resnet.build(model, classes=2).eval()
    loader = DataLoader(Pictures(paths), 32, num_workers=2)
    with torch.inference_mode(), out.open("w", newline="") as file:
        writer, rest = csv.writer(file), iter(loader)
        network(next(rest))

        def run() -> int:
            count = 0
            for pixels in rest:
                said = torch.softmax(network(pixels), dim=1)
                writer.writerows([*row.tolist(), row.argmax().item()] for row in said)
                count += len(pixels)
            return count

        return rate(run)


class Ours:
    """A run of its own, `predict` on files, and the engine on their pixels."""

    def __init__(self, run: Path, paths: list[Path]) -> None:
        self.run, self.paths = run, paths
        started = time.perf_counter()
        self.answering = Answering([run])
        self.start = time.perf_counter() - started
        looked = list(in_order(paths, self.answering.look, "Looking"))
        self.pixels = np.concatenate([one.pictures[0] for one in looked])

    def predict(self) -> tuple[float, float]:
        """Return images a second from files to a CSV, from the first to the last moment and after the start."""
        started = time.perf_counter()
        predict(self.run, self.paths, self.run / "out.csv")
        seconds = time.perf_counter() - started
        return len(self.paths) / seconds, len(self.paths) / (seconds - self.start)

    def engine(self) -> float:
        """Return images a second of the network alone."""

        def run() -> int:
            for start in range(0, len(self.pixels), BATCH):
                self.answering.says[0](self.pixels[start : start + BATCH])
            return len(self.pixels)

        return rate(run)

    def reading(self) -> float:
        """Return images a second of reading files and looking at them, with nothing said about them."""
        return rate(lambda: len(list(in_order(self.paths, self.answering.look, "Looking"))))

    def one(self) -> float:
        """Return how many milliseconds the engine takes for a single image."""
        return 1000 / rate(lambda: sum(len(self.answering.says[0](self.pixels[row : row + 1])) for row in range(20)))


def compare(models: list[str], images: int, plain_images: int, rounds: int) -> dict[str, object]:
    """Train each network for a moment, then measure everything in turns; return every figure and the ratios."""
    figures: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as place, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as aside:
        smears = synthesise_smear(Path(place) / "smears", 120)
        drawn = sorted((smears / "new_dataset").rglob("*.bmp"))
        files = list(itertools.islice(itertools.cycle(drawn), images))
        train(smears, model=models, epochs=1, batch=8, out=Path(place) / "runs")
        ours = {model: Ours(Path(place) / "runs" / model, files) for model in models}
        for one in ours.values():
            one.engine()
        print("Measuring", flush=True)
        for model, one in itertools.chain.from_iterable(itertools.repeat(list(ours.items()), rounds)):
            found = figures.setdefault(model, defaultdict(list))
            whole, after_start = one.predict()
            asked = aside.submit(plain, model, files[:plain_images], Path(place) / "plain.csv")
            for name, value in (
                ("plain", asked.result()),
                ("predict", whole),
                ("predict_after_start", after_start),
                ("engine", one.engine()),
                ("reading", one.reading()),
                ("one_image_milliseconds", one.one()),
            ):
                found[name].append(value)
    return {
        "files": f"{images} BMP of 450×450; the plain loop {plain_images}",
        "engine": "OpenVINO" if can_compile() else "PyTorch",
        "precision": numbers_for("auto"),
        "start_seconds": {model: round(one.start, 2) for model, one in ours.items()},
        "images_per_second": {
            model: {name: [round(value, 2) for value in values] for name, values in found.items()}
            for model, found in figures.items()
        },
        "ratios": {
            model: {
                "predict_over_plain": round(ratio(found["predict"], found["plain"]), 2),
                "predict_after_start_over_plain": round(ratio(found["predict_after_start"], found["plain"]), 2),
                "predict_after_start_over_engine": round(ratio(found["predict_after_start"], found["engine"]), 3),
                "engine_over_plain": round(ratio(found["engine"], found["plain"]), 2),
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
    report("inference", compare(given.models, given.images, given.plain_images, given.rounds))


if __name__ == "__main__":
    main()
