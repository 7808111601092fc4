"""Verify an export on real images: compare its probabilities, accuracy and speed with those of the run."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from parfocal.data.augment import eval_views, tta_views
from parfocal.data.decode import prepare_image
from parfocal.data.layouts.image_finder import find_images
from parfocal.data.parallel import catch_unreadable, map_ordered
from parfocal.data.warp import render_one
from parfocal.engine.compiled import CHUNK_SIZE
from parfocal.errors import ParfocalError, join_limited
from parfocal.evaluation.calibration import apply_temperature
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.locate import locate_table
from parfocal.exporters.formats import PredictFunction
from parfocal.models.classifier import Classifier
from parfocal.progress import show_progress
from parfocal.recipe import Recipe
from parfocal.recipe_schema import ImagesConfig
from parfocal.run import Run

MAX_IMAGES = 200
"""An export is verified on at most this number of images, taken at equal distances."""


@dataclass(frozen=True)
class ImageSample:
    """Prepared images (N, size, size, 3), where they come from, and their true classes if these are known."""

    source: str
    pixels: np.ndarray
    truth: np.ndarray | None

    def __len__(self) -> int:
        return len(self.pixels)

    def take_every(self, step: int, start: int) -> "ImageSample":
        """Return every `step`-th image."""
        truth = None if self.truth is None else self.truth[start::step]
        return ImageSample(self.source, self.pixels[start::step], truth)


@dataclass(frozen=True)
class BackendResult:
    """The predictions of a backend for a sample, its speed, and its accuracy if the true classes are known."""

    probabilities: np.ndarray
    predicted: np.ndarray
    images_per_second: float
    accuracy: float | None


@dataclass(frozen=True)
class Verification:
    """The largest difference between a probability and that of the run, and how many predicted classes differ."""

    max_difference: float
    n_changed: int

    def passes(self, tolerance: float) -> bool:
        """Return whether the export agrees with the run."""
        return self.n_changed == 0 and self.max_difference <= tolerance


def load_sample(run: Run, config: ImagesConfig, named_paths: Sequence[Path | str], max_images: int) -> ImageSample:
    """Prepare the named image files and folders, or else the validation images of the run."""
    if named_paths:
        named = map(Path, named_paths)
        paths = [file for path in named for file in (find_images(path) if path.is_dir() else [path])]
        source = join_limited(named_paths)
        truth = None
    else:
        table = locate_table(run)
        paths = [Path(path) for path in table.get_rows("valid")["path"]]
        source = "valid"
        truth = table.get_labels("valid")
    rows = np.unique(np.linspace(0, len(paths) - 1, min(max_images, len(paths))).round().astype(int)) if paths else []

    def read(path: Path) -> np.ndarray:
        return prepare_image(path, config)[0]

    results = map_ordered([paths[row] for row in rows], catch_unreadable(read), "Reading")
    readable: dict[int, np.ndarray] = {}
    reasons: list[str] = []
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, str):
            reasons.append(f"{paths[row]} ({result})")
        else:
            readable[row] = result
    if not readable or (named_paths and reasons):
        not_read = f" Not read: {join_limited(reasons)}." if reasons else ""
        raise ParfocalError(
            f"An export is verified on images, and not all images of {source} can be read.{not_read} "
            "Pass images of the same kind (images)."
        )
    return ImageSample(source, np.stack(list(readable.values())), None if truth is None else truth[list(readable)])


def predict_with_run(classifier: Classifier, recipe: Recipe, decision: Decision, images: ImageSample) -> BackendResult:
    """Predict a sample with the network of the run, in PyTorch and float32, with its test-time augmentation."""
    all_views = [eval_views(1, recipe.images.size, recipe.views, tta_view) for tta_view in tta_views(recipe.views)]

    @torch.inference_mode()
    def predict(pixels: np.ndarray) -> np.ndarray:
        means: list[np.ndarray] = []
        with show_progress("Comparing", len(pixels)) as advance:
            for start in range(0, len(pixels), CHUNK_SIZE):
                chunk = pixels[start : start + CHUNK_SIZE]
                rendered = [np.stack([render_one(image, views, 0) for image in chunk]) for views in all_views]
                logits = [classifier(torch.from_numpy(view)).float() for view in rendered]
                means.append(np.mean([torch.softmax(values, dim=1).double().numpy() for values in logits], axis=0))
                advance(len(chunk))
        return apply_temperature(np.concatenate(means), decision.temperature)

    return predict_timed(predict, images, decision)


def predict_timed(predict: PredictFunction, images: ImageSample, decision: Decision) -> BackendResult:
    """Predict a sample, and measure the speed after a warm-up."""
    predict(images.pixels[:CHUNK_SIZE])
    started = time.perf_counter()
    probabilities = predict(images.pixels).astype(np.float64)
    images_per_second = len(images) / (time.perf_counter() - started)
    predicted = decision.predict_labels(probabilities)
    accuracy = None if images.truth is None else float((predicted == images.truth).mean())
    return BackendResult(probabilities, predicted, images_per_second, accuracy)


def compare_results(expected: BackendResult, actual: BackendResult) -> Verification:
    """Compare the predictions of two backends for the same images."""
    differences = np.abs(expected.probabilities - actual.probabilities)
    # NaN counts as an infinite difference.
    max_difference = float(differences.max()) if np.isfinite(differences).all() else float("inf")
    return Verification(max_difference, int((expected.predicted != actual.predicted).sum()))
