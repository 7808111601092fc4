"""Predictor: the trained networks of runs, loaded to predict new images as validation decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from parfocal.data.augment import eval_views, tta_views
from parfocal.data.decode import Pixels, prepare_image
from parfocal.data.warp import render_one
from parfocal.engine.device import build_fabric, to_channels_last
from parfocal.errors import ParfocalError
from parfocal.evaluation.calibration import apply_temperature
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.decision_rule import DecisionRule
from parfocal.evaluation.ensemble import MEMBERS_FILE, open_members
from parfocal.evaluation.evaluate import with_tta
from parfocal.evaluation.inference import build_predict_function
from parfocal.evaluation.operating_point import compute_positive_probability, name_referable_grades
from parfocal.evaluation.validation_decision import PredictedBatch
from parfocal.models.classifier import Classifier
from parfocal.recipe_schema import ImagesConfig
from parfocal.run import Run, open_runs
from parfocal.run_files import DamagedFileError


@dataclass(frozen=True)
class PreparedViews:
    """An image as the input of each network, an array (TTA views, side, side, 3), and the flags from its pixels."""

    views: tuple[Pixels, ...]
    flags: Mapping[str, str]

    @property
    def unusual_features(self) -> tuple[str, ...]:
        """The image features that are out of distribution; empty for most images."""
        return tuple(self.flags.get("unusual", "").split())


class Predictor:
    """Networks loaded from runs, and the decision that their predictions follow.

    A single run, or the folder of an ensemble, predicts with its decision. Runs passed together are averaged, each with
    its temperature; a decision rule that all share applies, but no thresholds. With `long_lived`, loading may take
    longer so that predictions are faster.
    """

    def __init__(self, paths: Sequence[Path | str], *, long_lived: bool = False) -> None:
        runs, self.decision, calibrate_each = _open_runs(paths)
        precision = runs[0].recipe.training.precision
        fabric = build_fabric(precision)
        decisions = [Decision.load(run.decision_path) for run in runs]
        networks = [to_channels_last(Classifier.load(run.weights_path)).to(fabric.device) for run in runs]
        self.run_names = tuple(run.name for run in runs)
        self.config = runs[0].recipe.evaluation
        self.classes = networks[0].classes
        self.codes = tuple(map(str, runs[0].read_environment()["data"]["codes"]))
        if len(self.codes) != len(self.classes):
            reason = f"it has {len(self.codes)} codes, and the weights have {len(self.classes)} classes"
            raise DamagedFileError(runs[0].folder / "environment.json", reason)
        for run, network in zip(runs, networks, strict=True):
            if network.classes != self.classes:
                raise ParfocalError(
                    f"Runs with different classes cannot be averaged: {runs[0].name} has {', '.join(self.classes)}, "
                    f"{run.name} has {', '.join(network.classes)}."
                )
        folder = runs[0].folder if len(runs) == 1 else Path(paths[0])
        self.decision.check_classes(len(self.classes), Run(folder).decision_path)
        self._recipes = [with_tta(run.recipe, decision.tta) for run, decision in zip(runs, decisions, strict=True)]
        self._temperatures = [decision.temperature if calibrate_each else 1.0 for decision in decisions]
        self.predict_functions = [
            build_predict_function(fabric, network, recipe.views.crop_size, precision, long_lived=long_lived)
            for network, recipe in zip(networks, self._recipes, strict=True)
        ]

    @property
    def has_positive_class(self) -> bool:
        """Whether images can be positive: with an operating point, or with referable grades."""
        return bool(self.config.referable) or self.decision.operating_point is not None

    @property
    def positive_name(self) -> str:
        """The name of the positive class or grades; "" if there are none."""
        if self.decision.operating_point:
            return self.decision.operating_point.positive_name
        return name_referable_grades(self.classes, self.config.referable) if self.config.referable else ""

    @property
    def flag_names(self) -> list[str]:
        """The flags of predictions, in the order of their columns: of `positive`, `referred` and `unusual`."""
        names = [decision.flag for decision in self.decision.fitted if decision.flag]
        return names if "positive" in names or not self.has_positive_class else ["positive", *names]

    def prepare(self, source: Path | bytes, prepared: dict[ImagesConfig, Pixels] | None = None) -> PreparedViews:
        """Prepare an image file, or its bytes, for each network; raise UnreadableImageError if it cannot be read.

        `prepared` caches the pixels of the same image by their configuration: it is read and extended.
        """
        prepared = {} if prepared is None else prepared
        for recipe in self._recipes:
            if recipe.images not in prepared:
                prepared[recipe.images] = prepare_image(source, recipe.images)[0]
        pixels = prepared[self._recipes[0].images]
        flags = {decision.flag: decision.inspect(pixels) for decision in self.decision.pixel_decisions}
        views_by_network: list[Pixels] = []
        for recipe in self._recipes:
            views = (eval_views(1, recipe.images.size, recipe.views, view) for view in tta_views(recipe.views))
            views_by_network.append(np.stack([render_one(prepared[recipe.images], view, 0) for view in views]))
        return PreparedViews(tuple(views_by_network), flags)

    def predict(self, images: Sequence[PreparedViews]) -> PredictedBatch:
        """Predict prepared images: average the networks, calibrate, and apply the decisions."""
        by_network: list[np.ndarray] = []
        for index, predict_pixels in enumerate(self.predict_functions):
            views = np.stack([image.views[index] for image in images])
            rows = predict_pixels(views.reshape(-1, *views.shape[2:])).astype(np.float64)
            mean = rows.reshape(*views.shape[:2], -1).mean(axis=1)
            by_network.append(apply_temperature(mean, self._temperatures[index]))
        batch = self.decision.apply(np.mean(by_network, axis=0))
        flags = dict(batch.flags)
        if self.has_positive_class and "positive" not in flags:
            flags["positive"] = compute_positive_probability(batch.probabilities, self.config.referable) >= 0.5
        for decision in self.decision.pixel_decisions:
            flags[decision.flag] = np.array([image.flags[decision.flag] for image in images], dtype=object)
        return replace(batch, flags=flags)


def _open_runs(paths: Sequence[Path | str]) -> tuple[list[Run], Decision, bool]:
    """Return the runs, the decision for their average, and whether each is calibrated before averaging."""
    if len(paths) == 1 and (Path(paths[0]) / MEMBERS_FILE).is_file():
        folder = Path(paths[0])
        return open_members(folder), Decision.load(Run(folder).decision_path), False
    runs = open_runs(paths)
    decision = Decision.load(runs[0].decision_path)
    if len(runs) == 1:
        return runs, decision, False
    rules = {Decision.load(run.decision_path).get(DecisionRule) for run in runs}
    shared = {rule and replace(rule, thresholds=()) for rule in rules}
    rule = shared.pop()
    if shared or rule is None or rule.rule == "thresholds":
        return runs, Decision(decision.pixel_decisions), True
    return runs, Decision(decision.pixel_decisions).with_fitted(rule), True
