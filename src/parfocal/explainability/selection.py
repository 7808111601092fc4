"""Select the images to explain: correct, wrong and uncertain predictions of a split, images by id, or image files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parfocal.data.decode import Pixels
from parfocal.data.parallel import catch_unreadable, map_ordered
from parfocal.data.table import UNKNOWN
from parfocal.errors import ParfocalError, UsageError, did_you_mean, join_limited
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.predict import list_files
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.predictor import Predictor
from parfocal.explainability.images import load_eval_images, locate_images
from parfocal.run import Run

MAX_IMAGES = 500
"""The most image files that a call explains."""


@dataclass(frozen=True)
class SelectedImage:
    """An image to explain: its kind is `correct`, `wrong`, `uncertain` or empty, and its truth -1 if unknown."""

    id: str
    kind: str = ""
    truth: int = UNKNOWN


@dataclass(frozen=True)
class RunPredictions:
    """The predictions of a run, as `predict` makes them, and the pixels it saw (without test-time augmentation)."""

    predicted: np.ndarray
    probabilities: np.ndarray
    pixels: Pixels


@dataclass(frozen=True)
class Selection:
    """The selected images, the predictions of each run, and the unreadable images with the reason."""

    images: tuple[SelectedImage, ...]
    predictions: tuple[RunPredictions, ...]
    unreadable: dict[str, str]


def select_from_split(runs: Sequence[Run], split: str, ids: Sequence[str] | None, n_per_kind: int) -> Selection:
    """Select the images with these ids from a split, or `n_per_kind` of each kind by the first run's predictions."""
    predictions_by_run = [_load_predictions(run, split) for run in runs]
    first_predictions, first_predicted = predictions_by_run[0]
    if ids is None:
        selected = select_images(first_predictions, first_predicted, n_per_kind)
    else:
        # An unknown id is an error that lists the ids of the run's table.
        locate_images(runs[0], split, ids)
        selected = select_by_id(first_predictions, ids)
    images_by_run = [load_eval_images(run, split, [image.id for image in selected]) for run in runs]
    unreadable = {image_id: reason for images in images_by_run for image_id, reason in images.unreadable.items()}
    selected = [image for image in selected if image.id not in unreadable]
    run_predictions: list[RunPredictions] = []
    for (predictions, predicted), images in zip(predictions_by_run, images_by_run, strict=True):
        rows = [predictions.ids.index(image.id) for image in selected]
        positions = [images.ids.index(image.id) for image in selected]
        run_predictions.append(
            RunPredictions(predicted[rows], predictions.probabilities[rows], images.pixels[positions])
        )
    return Selection(tuple(selected), tuple(run_predictions), unreadable)


def _load_predictions(run: Run, split: str) -> tuple[Predictions, np.ndarray]:
    """Return a run's calibrated predictions of a split, and the classes that its decision predicts."""
    path = run.predictions_path(split)
    if not run.has_predictions(split):
        splits = sorted(file.stem for file in path.parent.glob("*.csv"))
        if not splits:
            raise ParfocalError(f"{run.folder} has no predictions. Make them with `parfocal evaluate {run.folder}`.")
        raise UsageError(f"{run.name} has no predictions of the split {split!r}. {did_you_mean(split, splits)}")
    decision = Decision.load(run.decision_path)
    calibrated = decision.calibrate(Predictions.load(path))
    return calibrated, decision.predict_labels(calibrated.probabilities)


def select_images(predictions: Predictions, predicted: np.ndarray, n_per_kind: int) -> list[SelectedImage]:
    """Select up to `n_per_kind` images of each kind; `predicted` is the class predicted for each image.

    Correct: the most confident correct predictions, balanced over the true classes. Wrong: the most confident
    mistakes. Uncertain: of the remaining images, those with the smallest margin between the two most probable classes.
    If the truth of an image is unknown, a confident prediction has no kind.
    """
    truth = predictions.truth
    confidence = predictions.probabilities[np.arange(len(predictions)), predicted]
    by_confidence = np.argsort(-confidence, kind="stable")
    is_known = (truth != UNKNOWN)[by_confidence]
    is_correct = (predicted == truth)[by_confidence]
    rows_by_kind = {
        "": _take_class_balanced(by_confidence[~is_known], predicted, n_per_kind),
        "correct": _take_class_balanced(by_confidence[is_known & is_correct], truth, n_per_kind),
        "wrong": by_confidence[is_known & ~is_correct][:n_per_kind].tolist(),
    }
    taken = {row for rows in rows_by_kind.values() for row in rows}
    ascending = np.sort(predictions.probabilities, axis=1)
    by_margin = np.argsort(ascending[:, -1] - ascending[:, -2], kind="stable").tolist()
    rows_by_kind["uncertain"] = [row for row in by_margin if row not in taken][:n_per_kind]
    return [
        SelectedImage(predictions.ids[row], kind, int(truth[row]))
        for kind, rows in rows_by_kind.items()
        for row in rows
    ]


def _take_class_balanced(rows: np.ndarray, labels: np.ndarray, n_images: int) -> list[int]:
    """Take the first row of each class, then the second of each, and so on; return them sorted by class."""
    rounds = np.zeros(len(rows), dtype=int)
    for label in np.unique(labels[rows]):
        has_label = labels[rows] == label
        rounds[has_label] = np.arange(int(has_label.sum()))
    taken = rows[np.argsort(rounds, kind="stable")][:n_images]
    return sorted(taken.tolist(), key=lambda row: int(labels[row]))


def select_by_id(predictions: Predictions, ids: Sequence[str]) -> list[SelectedImage]:
    """Select the images with these ids, which must all have predictions."""
    row_of = {image_id: row for row, image_id in enumerate(predictions.ids)}
    return [SelectedImage(image_id, "", int(predictions.truth[row_of[image_id]])) for image_id in ids]


def select_from_files(runs: Sequence[Run], sources: Iterable[Path | str]) -> Selection:
    """Select image files, the images of folders, and the images that CSV files list in their column `Path`."""
    files = dict(list_files(sources))
    if len(files) > MAX_IMAGES:
        raise UsageError(f"{len(files):,} images are too many to explain; name at most {MAX_IMAGES}.")
    unreadable: dict[str, str] = {}
    run_predictions: list[RunPredictions] = []
    for run in runs:
        predictor = Predictor([run.folder])
        prepared = list(map_ordered(list(files.values()), catch_unreadable(predictor.prepare), "Reading"))
        unreadable |= {name: views for name, views in zip(files, prepared, strict=True) if isinstance(views, str)}
        readable = [views for views in prepared if not isinstance(views, str)]
        if readable:
            batch = predictor.predict(readable)
            if not batch.is_finite.all():
                names = np.array([name for name in files if name not in unreadable])[~batch.is_finite]
                raise ParfocalError(
                    f"{run.name} gives a probability that is not finite (NaN) for {join_limited(names)}. "
                    "Train it again."
                )
            # The first TTA view is the plain evaluation view.
            pixels = np.stack([image.views[0][0] for image in readable])
            run_predictions.append(RunPredictions(batch.labels, batch.probabilities, pixels))
    images = tuple(SelectedImage(name) for name in files if name not in unreadable)
    return Selection(images, tuple(run_predictions), unreadable)
