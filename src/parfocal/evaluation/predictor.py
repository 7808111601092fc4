"""Trained networks that answer for new images as validation decided: one, or several whose answers are averaged."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parfocal.data.augment import eval_views, tta_views
from parfocal.data.decode import Pixels, prepare_image
from parfocal.data.render import render_one
from parfocal.engine.device import build_fabric, to_channels_last
from parfocal.errors import ParfocalError
from parfocal.evaluation.calibration import apply_temperature
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.ensemble import MEMBERS_FILE, open_members
from parfocal.evaluation.evaluate import with_tta
from parfocal.evaluation.inference import build_predict_function
from parfocal.evaluation.operating_point import compute_positive_probability
from parfocal.evaluation.out_of_distribution import compute_features
from parfocal.models.classifier import Classifier
from parfocal.recipe import Recipe
from parfocal.run import Run, open_runs
from parfocal.schema import ImagesConfig


@dataclass(frozen=True)
class PreparedViews:
    """One image as each network sees it (looks, side, side, 3), and in what it is out of the ordinary."""

    views: tuple[Pixels, ...]
    unusual_features: tuple[str, ...]


@dataclass(frozen=True)
class PredictedBatch:
    """What is said of several images: class, calibrated probabilities, and what was decided to be told beside.

    `positive` is there for a question of two answers, `referred` where unsure images are for a human.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    is_positive: np.ndarray | None
    is_referred: np.ndarray | None


class Predictor:
    """Networks loaded from runs, and the decision that their answers follow.

    One run, or one ensemble's folder, answers as its own validation decided. Several runs are averaged, each with its
    own temperature, and no thresholds apply. Where they will answer for long, `lasting`, they may take long to load.
    """

    def __init__(self, paths: Sequence[Path | str], *, long_lived: bool = False) -> None:
        runs, self.decision, apart = _open_runs(paths)
        precision = runs[0].recipe.training.precision
        fabric = build_fabric(precision)
        self.run_names = tuple(run.name for run in runs)
        decisions = [Decision.load(run.decision_path) for run in runs]
        self._recipes = [with_tta(run.recipe, one.tta) for run, one in zip(runs, decisions, strict=True)]
        self._temperatures = [one.temperature if apart else 1.0 for one in decisions]
        networks = [to_channels_last(Classifier.load(run.weights_path)).to(fabric.device) for run in runs]
        self.config = runs[0].recipe.evaluation
        self.classes = networks[0].classes
        self.codes = tuple(map(str, runs[0].read_environment()["data"]["codes"]))
        for run, network in zip(runs, networks, strict=True):
            if network.classes != self.classes:
                told = [", ".join(one) for one in (self.classes, network.classes)]
                raise ParfocalError(f"{runs[0].name} tells {told[0]} apart, {run.name} {told[1]}.")
        self.predict_functions = [
            build_predict_function(fabric, network, recipe.views.crop_size, precision, long_lived=long_lived)
            for network, recipe in zip(networks, self._recipes, strict=True)
        ]

    @property
    def has_positive_class(self) -> bool:
        """Whether there is a question with a positive answer: an operating point of one, or referable grades."""
        operating = self.decision.operating_point
        return bool(self.config.referable) if operating is None else operating.criterion != "kappa"

    def prepare(self, source: Path | bytes, prepared: dict[ImagesConfig, Pixels] | None = None) -> PreparedViews:
        """Prepare an image file, or its bytes, as each network wants it; or raise Unreadable.

        What is `prepared` of the same image is not prepared again, and what had to be is added.
        """
        prepared = {} if prepared is None else prepared
        for recipe in self._recipes:
            if recipe.images not in prepared:
                prepared[recipe.images] = prepare_image(source, recipe.images)[0]
        ordinary = self.decision.ood
        own = prepared[self._recipes[0].images]
        unusual = ordinary.find_unusual_features(compute_features(own)) if ordinary is not None else ()
        return PreparedViews(
            tuple(_make_tta_views(prepared[recipe.images], recipe) for recipe in self._recipes), unusual
        )

    def predict(self, images: Sequence[PreparedViews]) -> PredictedBatch:
        """Answer for images that were looked at."""
        said = [
            self._predict_with(number, [one.views[number] for one in images])
            for number in range(len(self.predict_functions))
        ]
        calibrated = apply_temperature(np.mean(said, axis=0), self.decision.temperature)
        operating, referral = self.decision.operating_point, self.decision.referral
        positive = None
        if self.has_positive_class:
            half = compute_positive_probability(calibrated, self.config) >= 0.5
            positive = half if operating is None else operating.is_positive(calibrated, self.config)
        referred = None if referral is None else referral.is_referred(calibrated)
        return PredictedBatch(self.decision.predict_labels(calibrated, self.config), calibrated, positive, referred)

    def _predict_with(self, index: int, views: Sequence[Pixels]) -> np.ndarray:
        """Return one network's probabilities, the mean over its looks."""
        looks = np.stack(views)
        rows = self.predict_functions[index](looks.reshape(-1, *looks.shape[2:])).astype(np.float64)
        return apply_temperature(rows.reshape(*looks.shape[:2], -1).mean(axis=1), self._temperatures[index])


def _open_runs(paths: Sequence[Path | str]) -> tuple[list[Run], Decision, bool]:
    """Return the runs, the decision that their mean follows, and whether each is calibrated on its own before."""
    if len(paths) == 1 and (Path(paths[0]) / MEMBERS_FILE).is_file():
        folder = Path(paths[0])
        return open_members(folder), Decision.load(Run(folder).decision_path), False
    runs = open_runs(paths)
    decision = Decision.load(runs[0].decision_path)
    return (runs, decision, False) if len(runs) == 1 else (runs, Decision(ood=decision.ood), True)


def _make_tta_views(prepared: Pixels, recipe: Recipe) -> Pixels:
    views = (eval_views(1, recipe.images.size, recipe.views, look) for look in tta_views(recipe.views))
    return np.stack([render_one(prepared, one, 0) for one in views])
