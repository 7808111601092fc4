"""The images that are to be looked at, what runs answer for them, and what each run sees of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parfocal.data.decode import Pixels, Unreadable
from parfocal.data.passes import in_order
from parfocal.errors import ParfocalError, UsageError, nearest
from parfocal.evaluation.answering import Answering, Look
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.predict import named_files
from parfocal.evaluation.predictions import Predictions
from parfocal.explaining.cam import files_of, seen_files
from parfocal.explaining.choice import Shown, asked, chosen
from parfocal.run import Run

MOST_IMAGES = 500


@dataclass(frozen=True)
class Said:
    """What one run answers for images, as `predict` would, and what it sees of them when it looks straight."""

    labels: np.ndarray
    probabilities: np.ndarray
    pixels: Pixels


@dataclass(frozen=True)
class Subjects:
    """Images, what each run says of them, and those that cannot be read, with reasons."""

    shown: tuple[Shown, ...]
    said: tuple[Said, ...]
    unreadable: dict[str, str]


def of_split(runs: Sequence[Run], split: str, ids: Sequence[str] | None, each: int) -> Subjects:
    """Take the images with these ids from a split, or `each` so many of every kind, chosen by the first run."""
    judged = [_judged(run, split) for run in runs]
    if ids is not None:
        files_of(runs[0], split, ids)
    shown = chosen(*judged[0], each) if ids is None else asked(judged[0][0], ids)
    wanted = [one.id for one in shown]
    pictures = [seen_files(run.recipe, files_of(run, split, wanted)) for run in runs]
    unreadable = {one: reason for _, _, unread in pictures for one, reason in unread.items()}
    kept = [one for one in wanted if one not in unreadable]
    said: list[Said] = []
    for (predictions, labels), (pixels, there, _) in zip(judged, pictures, strict=True):
        rows = [predictions.ids.index(one) for one in kept]
        places = [there.index(one) for one in kept]
        said.append(Said(labels[rows], predictions.probabilities[rows], pixels[places]))
    return Subjects(tuple(one for one in shown if one.id not in unreadable), tuple(said), unreadable)


def of_files(runs: Sequence[Run], sources: Iterable[Path | str]) -> Subjects:
    """Take image files, folders of them, and CSV files with a column `Path`."""
    named = dict(named_files(sources))
    if len(named) > MOST_IMAGES:
        raise UsageError(f"{len(named):,} images are too many to look at; name at most {MOST_IMAGES}.")
    looks = [_looks(answering, named) for answering in (Answering([run.folder]) for run in runs)]
    unreadable = {one: found for several, _ in looks for one, found in several.items() if isinstance(found, str)}
    said: list[Said] = []
    for several, answering in looks:
        if good := [look for look in several.values() if not isinstance(look, str)]:
            answers = answering.answer(good)
            # The first of several looks is the straight one.
            said.append(Said(answers.labels, answers.probabilities, np.stack([one.pictures[0][0] for one in good])))
    return Subjects(tuple(Shown(one) for one in named if one not in unreadable), tuple(said), unreadable)


def _judged(run: Run, split: str) -> tuple[Predictions, np.ndarray]:
    """Return what a run says of a split, calibrated, and the classes it answers with."""
    if not run.predictions(split).is_file():
        there = sorted(path.stem for path in run.predictions(split).parent.glob("*.csv"))
        if not there:
            raise ParfocalError(f"{run.folder} has no predictions. Make them with `parfocal evaluate {run.folder}`.")
        raise UsageError(f"{run.name} has no predictions of the split {split!r}. {nearest(split, there)}")
    decision = Decision.load(run.decision)
    said = decision.calibrated(Predictions.load(run.predictions(split)))
    return said, decision.labels(said.probabilities, run.recipe.judgement)


def _looks(answering: Answering, named: dict[str, Path]) -> tuple[dict[str, Look | str], Answering]:
    def look(one: str) -> Look | str:
        try:
            return answering.look(named[one])
        except Unreadable as reason:
            return str(reason)

    return dict(zip(named, in_order(list(named), look, "Reading"), strict=True)), answering
