"""Trained networks that answer for new images as validation decided: one, or several whose answers are averaged."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parfocal.data.decode import Pixels, prepare_image
from parfocal.data.views import looks, seen, still
from parfocal.errors import ParfocalError
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.ensemble import MEMBERS, members
from parfocal.evaluation.evaluate import looked_at
from parfocal.evaluation.inference import answerer, fabric_for, ready
from parfocal.evaluation.operating import score
from parfocal.evaluation.ordinary import measures
from parfocal.evaluation.temperature import tempered
from parfocal.model.classifier import Classifier
from parfocal.parts import ImagesPart
from parfocal.recipe import Recipe
from parfocal.run import Run, open_runs


@dataclass(frozen=True)
class Look:
    """One image as each network sees it (looks, side, side, 3), and in what it is out of the ordinary."""

    pictures: tuple[Pixels, ...]
    unusual: tuple[str, ...]


@dataclass(frozen=True)
class Answers:
    """What is said of several images: class, calibrated probabilities, and what was decided to be told beside.

    `positive` is there for a question of two answers, `referred` where unsure images are for a human.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    positive: np.ndarray | None
    referred: np.ndarray | None


class Answering:
    """Networks loaded from runs, and the decision that their answers follow.

    One run, or one ensemble's folder, answers as its own validation decided. Several runs are averaged, each with its
    own temperature, and no thresholds apply. Where they will answer for long, `lasting`, they may take long to load.
    """

    def __init__(self, paths: Sequence[Path | str], *, lasting: bool = False) -> None:
        runs, self.decision, apart = _opened(paths)
        precision = runs[0].recipe.training.precision
        fabric = fabric_for(precision)
        self.names = tuple(run.name for run in runs)
        decisions = [Decision.load(run.decision) for run in runs]
        self._recipes = [looked_at(run.recipe, one.looks) for run, one in zip(runs, decisions, strict=True)]
        self._temperatures = [one.temperature if apart else 1.0 for one in decisions]
        networks = [ready(Classifier.load(run.weights)).to(fabric.device) for run in runs]
        self.part = runs[0].recipe.judgement
        self.classes = networks[0].classes
        self.codes = tuple(map(str, runs[0].environment()["data"]["codes"]))
        for run, network in zip(runs, networks, strict=True):
            if network.classes != self.classes:
                told = [", ".join(one) for one in (self.classes, network.classes)]
                raise ParfocalError(f"{runs[0].name} tells {told[0]} apart, {run.name} {told[1]}.")
        self.says = [
            answerer(fabric, network, recipe.views.crop, precision, lasting=lasting)
            for network, recipe in zip(networks, self._recipes, strict=True)
        ]

    @property
    def asks(self) -> bool:
        """Whether there is a question with a positive answer: an operating point of one, or referable grades."""
        operating = self.decision.operating
        return bool(self.part.referable) if operating is None else operating.aim != "kappa"

    def look(self, source: Path | bytes, prepared: dict[ImagesPart, Pixels] | None = None) -> Look:
        """Prepare an image file, or its bytes, as each network wants it; or raise Unreadable.

        What is `prepared` of the same image is not prepared again, and what had to be is added.
        """
        prepared = {} if prepared is None else prepared
        for recipe in self._recipes:
            if recipe.images not in prepared:
                prepared[recipe.images] = prepare_image(source, recipe.images)[0]
        ordinary = self.decision.ordinary
        own = prepared[self._recipes[0].images]
        unusual = ordinary.unusual(measures(own)) if ordinary is not None else ()
        return Look(tuple(_pictures(prepared[recipe.images], recipe) for recipe in self._recipes), unusual)

    def answer(self, images: Sequence[Look]) -> Answers:
        """Answer for images that were looked at."""
        said = [self._said(number, [one.pictures[number] for one in images]) for number in range(len(self.says))]
        calibrated = tempered(np.mean(said, axis=0), self.decision.temperature)
        operating, referral = self.decision.operating, self.decision.referral
        positive = None
        if self.asks:
            half = score(calibrated, self.part) >= 0.5
            positive = half if operating is None else operating.positive(calibrated, self.part)
        referred = None if referral is None else referral.referred(calibrated)
        return Answers(self.decision.labels(calibrated, self.part), calibrated, positive, referred)

    def _said(self, number: int, pictures: Sequence[Pixels]) -> np.ndarray:
        """Return one network's probabilities, the mean over its looks."""
        looks = np.stack(pictures)
        rows = self.says[number](looks.reshape(-1, *looks.shape[2:])).astype(np.float64)
        return tempered(rows.reshape(*looks.shape[:2], -1).mean(axis=1), self._temperatures[number])


def _opened(paths: Sequence[Path | str]) -> tuple[list[Run], Decision, bool]:
    """Return the runs, the decision that their mean follows, and whether each is calibrated on its own before."""
    if len(paths) == 1 and (Path(paths[0]) / MEMBERS).is_file():
        folder = Path(paths[0])
        return members(folder), Decision.load(Run(folder).decision), False
    runs = open_runs(paths)
    decision = Decision.load(runs[0].decision)
    return (runs, decision, False) if len(runs) == 1 else (runs, Decision(ordinary=decision.ordinary), True)


def _pictures(prepared: Pixels, recipe: Recipe) -> Pixels:
    views = (still(1, recipe.images.size, recipe.views, look) for look in looks(recipe.views))
    return np.stack([seen(prepared, one, 0) for one in views])
