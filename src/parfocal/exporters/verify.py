"""Comparing an exported network with its run, on real images: how far apart they are, how right, and how fast."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from parfocal.data.augment import eval_views, tta_views
from parfocal.data.decode import prepare_image
from parfocal.data.layouts.image_finder import find_images
from parfocal.data.parallel import map_ordered
from parfocal.data.render import render_one
from parfocal.engine.compiled import CHUNK_SIZE
from parfocal.errors import ParfocalError, UnreadableImageError, join_limited
from parfocal.evaluation.calibration import apply_temperature
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.locate import locate_table
from parfocal.exporters.formats import PredictFunction
from parfocal.models.classifier import Classifier
from parfocal.progress import show_progress
from parfocal.recipe import Recipe
from parfocal.run import Run
from parfocal.schema import ImagesConfig

MAX_IMAGES = 200
"""More images are not compared; they are taken evenly from all."""


@dataclass(frozen=True)
class ImageSample:
    """Prepared images (N, size, size, 3), what they are called, and their truth where it is known."""

    source: str
    pixels: np.ndarray
    truth: np.ndarray | None

    def __len__(self) -> int:
        return len(self.pixels)

    def take_every(self, step: int, start: int) -> "ImageSample":
        """Return every so many of the images."""
        truth = None if self.truth is None else self.truth[start::step]
        return ImageSample(self.source, self.pixels[start::step], truth)


@dataclass(frozen=True)
class BackendResult:
    """What was said of a sample, how many images a second, and the share that was right where that is known."""

    probabilities: np.ndarray
    predicted: np.ndarray
    images_per_second: float
    accuracy: float | None


@dataclass(frozen=True)
class Verification:
    """The largest difference of a probability from the run's, and how many labels are others."""

    max_difference: float
    n_changed: int

    def passes(self, tolerance: float) -> bool:
        """Whether the two agree."""
        return self.n_changed == 0 and self.max_difference <= tolerance


def load_sample(
    run: Run, config: ImagesConfig, named_paths: Sequence[Path | str], max_images: int = MAX_IMAGES
) -> ImageSample:
    """Prepare images that are named, files or folders, or else those of the run's validation split."""
    if named_paths:
        paths = [path for one in map(Path, named_paths) for path in (find_images(one) if one.is_dir() else [one])]
        where, truth = join_limited(named_paths), None
    else:
        table = locate_table(run)
        where, truth = "valid", table.get_labels("valid")
        paths = [Path(path) for path in table.get_rows("valid")["path"]]
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(max_images, len(paths))).round().astype(int)) if paths else []
    found = list(map_ordered([paths[row] for row in chosen], _image_preparer(config), "Reading"))
    read = [place for place, one in enumerate(found) if not isinstance(one, str)]
    if not read or (named_paths and len(read) < len(found)):
        reasons = [f"{paths[row]} ({one})" for row, one in zip(chosen, found, strict=True) if isinstance(one, str)]
        said = f" Not read: {join_limited(reasons)}." if reasons else ""
        raise ParfocalError(f"An export is compared with its run on images, and of {where} not all can be read.{said} "
                            "Name images of the same kind with --images.")  # fmt: skip
    pixels = np.stack([one for one in found if not isinstance(one, str)])
    return ImageSample(where, pixels, None if truth is None else truth[np.array(chosen)[read]])


def predict_with_run(classifier: Classifier, recipe: Recipe, decision: Decision, images: ImageSample) -> BackendResult:
    """Return what the run's network says, by PyTorch in float32, as evaluation looks at images."""
    return predict_timed(lambda pixels: apply_temperature(_predict_torch(classifier, recipe, pixels), decision.temperature),
                   images, decision, recipe)  # fmt: skip


def predict_timed(predict: PredictFunction, images: ImageSample, decision: Decision, recipe: Recipe) -> BackendResult:
    """Ask a network about images, and note how long that takes once it is warm."""
    predict(images.pixels[:CHUNK_SIZE])
    started = time.perf_counter()
    probabilities = predict(images.pixels).astype(np.float64)
    speed = len(images) / (time.perf_counter() - started)
    labels = decision.predict_labels(probabilities)
    return BackendResult(
        probabilities, labels, speed, None if images.truth is None else float((labels == images.truth).mean())
    )


def compare_results(expected: BackendResult, actual: BackendResult) -> Verification:
    """Compare what two networks say of the same images."""
    apart = np.abs(expected.probabilities - actual.probabilities)
    # A difference that is no number is the largest there is.
    largest = float(apart.max()) if np.isfinite(apart).all() else float("inf")
    return Verification(largest, int((expected.predicted != actual.predicted).sum()))


@torch.inference_mode()
def _predict_torch(classifier: Classifier, recipe: Recipe, pixels: np.ndarray) -> np.ndarray:
    """Return the mean over the looks of the probabilities that the network says."""
    with show_progress("Comparing", len(pixels)) as done:

        def parts() -> Iterator[np.ndarray]:
            for start in range(0, len(pixels), CHUNK_SIZE):
                part = pixels[start : start + CHUNK_SIZE]
                yield np.mean(
                    [_predict_view(classifier, recipe, part, look) for look in tta_views(recipe.views)], axis=0
                )
                done(len(part))

        return np.concatenate(list(parts()))


def _predict_view(classifier: Classifier, recipe: Recipe, pixels: np.ndarray, tta_view: int) -> np.ndarray:
    views = eval_views(1, recipe.images.size, recipe.views, tta_view)
    shown = torch.from_numpy(np.stack([render_one(one, views, 0) for one in pixels]))
    return torch.softmax(classifier(shown).float(), dim=1).double().numpy()


def _image_preparer(config: ImagesConfig):
    def prepared(path: Path) -> np.ndarray | str:
        try:
            return prepare_image(path, config)[0]
        except UnreadableImageError as reason:
            return str(reason)

    return prepared
