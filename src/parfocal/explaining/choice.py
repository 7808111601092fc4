"""Which images of a split to look at: some that a network is right about, some it is wrong about, some it doubts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from parfocal.data.table import UNKNOWN
from parfocal.evaluation.predictions import Predictions

KINDS = ("correct", "wrong", "uncertain")


@dataclass(frozen=True)
class Shown:
    """One image to look at: why (a word of KINDS, or nothing), and its true class, -1 where nobody knows it."""

    id: str
    kind: str = ""
    truth: int = UNKNOWN


def chosen(said: Predictions, labels: np.ndarray, each: int) -> list[Shown]:
    """Choose up to so many images of each kind; `labels` are the answers.

    Correct are the surest right answers, the true classes taking turns; wrong the surest mistakes; uncertain those
    whose two likeliest classes are nearest, of the rest. Where the truth is not known, sure answers have no kind.
    """
    rows = np.arange(len(said))
    ranked = np.sort(said.probabilities, axis=1)
    sure, margin = said.probabilities[rows, labels], ranked[:, -1] - ranked[:, -2]
    known = said.truth != UNKNOWN
    surest = np.argsort(-sure, kind="stable")
    right, wrong = (surest[known[surest] & ((labels == said.truth)[surest] == one)] for one in (True, False))
    picked = {"correct": _in_turns(right, said.truth, each), "wrong": wrong[:each].tolist()}
    picked[""] = _in_turns(surest[~known[surest]], labels, each)
    taken = {row for several in picked.values() for row in several}
    picked["uncertain"] = [row for row in np.argsort(margin, kind="stable").tolist() if row not in taken][:each]
    return [_shown(said, row, kind) for kind in ("", *KINDS) for row in picked[kind]]


def asked(said: Predictions, ids: Sequence[str]) -> list[Shown]:
    """Return the images with these ids, all of which are there."""
    places = {one: row for row, one in enumerate(said.ids)}
    return [_shown(said, places[one], "") for one in ids]


def _shown(said: Predictions, row: int, kind: str) -> Shown:
    return Shown(said.ids[row], kind, int(said.truth[row]))


def _in_turns(rows: np.ndarray, labels: np.ndarray, most: int) -> list[int]:
    """Take the first of each class, then the second of each, and return them class by class."""
    turns = np.zeros(len(rows), dtype=int)
    for label in np.unique(labels[rows]):
        of_class = labels[rows] == label
        turns[of_class] = np.arange(int(of_class.sum()))
    first = rows[np.argsort(turns, kind="stable")][:most]
    return sorted(first.tolist(), key=lambda row: int(labels[row]))
