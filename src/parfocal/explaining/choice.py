"""Which images of a split to look at: some that a network is right about, some it is wrong about, some it doubts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from parfocal.data.table import UNKNOWN
from parfocal.evaluation.predictions import Predictions

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
