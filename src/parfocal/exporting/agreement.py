"""Comparing an exported network with its run, on real images: how far apart they are, how right, and how fast."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from parfocal.data.decode import Unreadable, prepare_image
from parfocal.data.layouts.places import images_below
from parfocal.data.passes import in_order
from parfocal.data.views import looks, seen, still
from parfocal.errors import ParfocalError, listing
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.temperature import tempered
from parfocal.evaluation.whereabouts import table_of
from parfocal.exporting.formats import Says
from parfocal.model.classifier import Classifier
from parfocal.model.compiled import PART
from parfocal.parts import ImagesPart
from parfocal.progress import progress
from parfocal.recipe import Recipe
from parfocal.run import Run

MOST = 200
"""More images are not compared; they are taken evenly from all."""


@dataclass(frozen=True)
class Sample:
    """Prepared images (N, size, size, 3), what they are called, and their truth where it is known."""

    where: str
    pixels: np.ndarray
    truth: np.ndarray | None

    def __len__(self) -> int:
        return len(self.pixels)

    def every(self, step: int, start: int) -> "Sample":
        """Return every so many of the images."""
        truth = None if self.truth is None else self.truth[start::step]
        return Sample(self.where, self.pixels[start::step], truth)


@dataclass(frozen=True)
class Said:
    """What was said of a sample, how many images a second, and the share that was right where that is known."""

    probabilities: np.ndarray
    labels: np.ndarray
    speed: float
    accuracy: float | None


@dataclass(frozen=True)
class Agreement:
    """The largest difference of a probability from the run's, and how many labels are others."""

    largest: float
    changed: int

    def holds(self, tolerance: float) -> bool:
        """Whether the two agree."""
        return self.changed == 0 and self.largest <= tolerance


def sample(run: Run, images: ImagesPart, named: Sequence[Path | str], most: int = MOST) -> Sample:
    """Prepare images that are named, files or folders, or else those of the run's validation split."""
    if named:
        paths = [path for one in map(Path, named) for path in (images_below(one) if one.is_dir() else [one])]
        where, truth = listing(named), None
    else:
        table = table_of(run)
        where, truth = "valid", table.labels("valid")
        paths = [Path(path) for path in table.of("valid")["path"]]
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int)) if paths else []
    found = list(in_order([paths[row] for row in chosen], _prepared(images), "Reading"))
    read = [place for place, one in enumerate(found) if not isinstance(one, str)]
    if not read or (named and len(read) < len(found)):
        reasons = [f"{paths[row]} ({one})" for row, one in zip(chosen, found, strict=True) if isinstance(one, str)]
        said = f" Not read: {listing(reasons)}." if reasons else ""
        raise ParfocalError(f"An export is compared with its run on images, and of {where} not all can be read.{said} "
                            "Name images of the same kind with --images.")  # fmt: skip
    pixels = np.stack([one for one in found if not isinstance(one, str)])
    return Sample(where, pixels, None if truth is None else truth[np.array(chosen)[read]])


def said_by_run(classifier: Classifier, recipe: Recipe, decision: Decision, images: Sample) -> Said:
    """Return what the run's network says, by PyTorch in float32, as evaluation looks at images."""
    return said_by(lambda pixels: tempered(_in_torch(classifier, recipe, pixels), decision.temperature),
                   images, decision, recipe)  # fmt: skip


def said_by(says: Says, images: Sample, decision: Decision, recipe: Recipe) -> Said:
    """Ask a network about images, and note how long that takes once it is warm."""
    says(images.pixels[:PART])
    started = time.perf_counter()
    probabilities = says(images.pixels).astype(np.float64)
    speed = len(images) / (time.perf_counter() - started)
    labels = decision.labels(probabilities, recipe.judgement)
    return Said(probabilities, labels, speed, None if images.truth is None else float((labels == images.truth).mean()))


def agreement(one: Said, other: Said) -> Agreement:
    """Compare what two networks say of the same images."""
    apart = np.abs(one.probabilities - other.probabilities)
    # A difference that is no number is the largest there is.
    largest = float(apart.max()) if np.isfinite(apart).all() else float("inf")
    return Agreement(largest, int((one.labels != other.labels).sum()))


@torch.inference_mode()
def _in_torch(classifier: Classifier, recipe: Recipe, pixels: np.ndarray) -> np.ndarray:
    """Return the mean over the looks of the probabilities that the network says."""
    with progress("Comparing", len(pixels)) as done:

        def parts() -> Iterator[np.ndarray]:
            for start in range(0, len(pixels), PART):
                part = pixels[start : start + PART]
                yield np.mean([_look(classifier, recipe, part, look) for look in looks(recipe.views)], axis=0)
                done(len(part))

        return np.concatenate(list(parts()))


def _look(classifier: Classifier, recipe: Recipe, pixels: np.ndarray, look: int) -> np.ndarray:
    views = still(1, recipe.images.size, recipe.views, look)
    shown = torch.from_numpy(np.stack([seen(one, views, 0) for one in pixels]))
    return torch.softmax(classifier(shown).float(), dim=1).double().numpy()


def _prepared(images: ImagesPart):
    def prepared(path: Path) -> np.ndarray | str:
        try:
            return prepare_image(path, images)[0]
        except Unreadable as reason:
            return str(reason)

    return prepared
