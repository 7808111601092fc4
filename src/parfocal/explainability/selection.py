"""Which images of a split to look at: some that a network is right about, some it is wrong about, some it doubts."""
# MERGED: """The images that are to be looked at, what runs answer for them, and what each run sees of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parfocal.data.decode import Pixels
from parfocal.data.parallel import map_ordered
from parfocal.data.table import UNKNOWN
from parfocal.errors import ParfocalError, UnreadableImageError, UsageError, did_you_mean
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.predict import list_files
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.predictor import Predictor, PreparedViews
from parfocal.explainability.cam import load_eval_views, locate_images
from parfocal.run import Run

KINDS = ("correct", "wrong", "uncertain")


@dataclass(frozen=True)
class SelectedImage:
    """One image to look at: why (a word of KINDS, or nothing), and its true class, -1 where nobody knows it."""

    id: str
    kind: str = ""
    truth: int = UNKNOWN


def select_images(predictions: Predictions, predicted: np.ndarray, n_per_kind: int) -> list[SelectedImage]:
    """Choose up to so many images of each kind; `labels` are the answers.

    Correct are the surest right answers, the true classes taking turns; wrong the surest mistakes; uncertain those
    whose two likeliest classes are nearest, of the rest. Where the truth is not known, sure answers have no kind.
    """
    rows = np.arange(len(predictions))
    ranked = np.sort(predictions.probabilities, axis=1)
    sure, margin = predictions.probabilities[rows, predicted], ranked[:, -1] - ranked[:, -2]
    known = predictions.truth != UNKNOWN
    surest = np.argsort(-sure, kind="stable")
    right, wrong = (surest[known[surest] & ((predicted == predictions.truth)[surest] == one)] for one in (True, False))
    picked = {
        "correct": _take_class_balanced(right, predictions.truth, n_per_kind),
        "wrong": wrong[:n_per_kind].tolist(),
    }
    picked[""] = _take_class_balanced(surest[~known[surest]], predicted, n_per_kind)
    taken = {row for several in picked.values() for row in several}
    picked["uncertain"] = [row for row in np.argsort(margin, kind="stable").tolist() if row not in taken][:n_per_kind]
    return [_make_selected(predictions, row, kind) for kind in ("", *KINDS) for row in picked[kind]]


def select_by_id(predictions: Predictions, ids: Sequence[str]) -> list[SelectedImage]:
    """Return the images with these ids, all of which are there."""
    places = {one: row for row, one in enumerate(predictions.ids)}
    return [_make_selected(predictions, places[one], "") for one in ids]


def _make_selected(predictions: Predictions, row: int, kind: str) -> SelectedImage:
    return SelectedImage(predictions.ids[row], kind, int(predictions.truth[row]))


def _take_class_balanced(rows: np.ndarray, labels: np.ndarray, n_images: int) -> list[int]:
    """Take the first of each class, then the second of each, and return them class by class."""
    turns = np.zeros(len(rows), dtype=int)
    for label in np.unique(labels[rows]):
        of_class = labels[rows] == label
        turns[of_class] = np.arange(int(of_class.sum()))
    first = rows[np.argsort(turns, kind="stable")][:n_images]
    return sorted(first.tolist(), key=lambda row: int(labels[row]))


MAX_IMAGES = 500


@dataclass(frozen=True)
class RunPredictions:
    """What one run answers for images, as `predict` would, and what it sees of them when it looks straight."""

    predicted: np.ndarray
    probabilities: np.ndarray
    pixels: Pixels


@dataclass(frozen=True)
class Selection:
    """Images, what each run says of them, and those that cannot be read, with reasons."""

    images: tuple[SelectedImage, ...]
    predictions: tuple[RunPredictions, ...]
    unreadable: dict[str, str]


def select_from_split(runs: Sequence[Run], split: str, ids: Sequence[str] | None, n_per_kind: int) -> Selection:
    """Take the images with these ids from a split, or `each` so many of every kind, chosen by the first run."""
    judged = [_load_predictions(run, split) for run in runs]
    if ids is not None:
        locate_images(runs[0], split, ids)
    shown = select_images(*judged[0], n_per_kind) if ids is None else select_by_id(judged[0][0], ids)
    wanted = [one.id for one in shown]
    pictures = [load_eval_views(run.recipe, locate_images(run, split, wanted)) for run in runs]
    unreadable = {one: reason for _, _, unread in pictures for one, reason in unread.items()}
    kept = [one for one in wanted if one not in unreadable]
    said: list[RunPredictions] = []
    for (predictions, labels), (pixels, there, _) in zip(judged, pictures, strict=True):
        rows = [predictions.ids.index(one) for one in kept]
        places = [there.index(one) for one in kept]
        said.append(RunPredictions(labels[rows], predictions.probabilities[rows], pixels[places]))
    return Selection(tuple(one for one in shown if one.id not in unreadable), tuple(said), unreadable)


def select_from_files(runs: Sequence[Run], sources: Iterable[Path | str]) -> Selection:
    """Take image files, folders of them, and CSV files with a column `Path`."""
    named = dict(list_files(sources))
    if len(named) > MAX_IMAGES:
        raise UsageError(f"{len(named):,} images are too many to look at; name at most {MAX_IMAGES}.")
    looks = [_read_inputs(answering, named) for answering in (Predictor([run.folder]) for run in runs)]
    unreadable = {one: found for several, _ in looks for one, found in several.items() if isinstance(found, str)}
    said: list[RunPredictions] = []
    for several, answering in looks:
        if good := [look for look in several.values() if not isinstance(look, str)]:
            answers = answering.predict(good)
            # The first of several looks is the straight one.
            said.append(
                RunPredictions(answers.labels, answers.probabilities, np.stack([one.views[0][0] for one in good]))
            )
    return Selection(tuple(SelectedImage(one) for one in named if one not in unreadable), tuple(said), unreadable)


def _load_predictions(run: Run, split: str) -> tuple[Predictions, np.ndarray]:
    """Return what a run says of a split, calibrated, and the classes it answers with."""
    if not run.predictions_path(split).is_file():
        there = sorted(path.stem for path in run.predictions_path(split).parent.glob("*.csv"))
        if not there:
            raise ParfocalError(f"{run.folder} has no predictions. Make them with `parfocal evaluate {run.folder}`.")
        raise UsageError(f"{run.name} has no predictions of the split {split!r}. {did_you_mean(split, there)}")
    decision = Decision.load(run.decision_path)
    said = decision.calibrate(Predictions.load(run.predictions_path(split)))
    return said, decision.predict_labels(said.probabilities)


def _read_inputs(predictor: Predictor, files: dict[str, Path]) -> tuple[dict[str, PreparedViews | str], Predictor]:
    def look(one: str) -> PreparedViews | str:
        try:
            return predictor.prepare(files[one])
        except UnreadableImageError as reason:
            return str(reason)

    return dict(zip(files, map_ordered(list(files), look, "Reading"), strict=True)), predictor
