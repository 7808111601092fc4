"""Comparing runs on the same images: whether a difference is larger than what another draw of patients would make.

Runs that differ in seed or fold alone are gathered as one, for a seed's luck is no merit of a recipe: of seeds the mean
counts, and the folds of a cross-validation are joined, each image answered by the run that was not trained on it.
Differences are paired: every draw takes the same patients for both sides. Everything comes from the predictions files.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Self

import numpy as np

from parfocal.errors import ParfocalError
from parfocal.evaluation.bootstrap import (
    CONFIDENCE_LEVEL,
    METRICS_WITHOUT_INTERVAL,
    N_SAMPLES,
    BootstrapResult,
    bootstrap,
)
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.metrics import MetricKey, ResampledMetrics
from parfocal.evaluation.predictions import (
    Predictions,
    align_predictions,
    describe_mismatch,
    join_folds,
    number_duplicates,
)
from parfocal.evaluation.significance import adjust_p_values, mcnemar_test, permutation_test
from parfocal.notebook import render_html_table
from parfocal.recipe import find_differences
from parfocal.run import Run, open_runs

COMPARED_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "kappa", "quadratic_kappa", "auc", "brier", "loss")
"""The figures that runs are compared by."""

_IGNORED_KEYS = ("name", "about", "seed", "split.fold")


@dataclass(frozen=True)
class MetricValue:
    """A figure: its value, the interval of it if one can be told, and its deviation over several runs."""

    value: float | None
    interval: list[float] | None = None
    std: float | None = None

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, Any], name: str) -> Self:
        """Return a figure of a judgement; runs judged by an older Parfocal have no intervals."""
        return cls(metrics[name], metrics.get("intervals", {}).get(name))

    def __str__(self) -> str:
        """Write the figure as people read it: 0.781 ± 0.004 (0.743–0.815)."""
        if self.value is None:
            return "–"
        words = f"{self.value:.3f}"
        if self.std is not None:
            words += f" ± {self.std:.3f}"
        if self.interval is not None:
            low, high = self.interval
            words += f" ({low:.3f} to {high:.3f})" if low < 0 else f" ({low:.3f}–{high:.3f})"
        return words


@dataclass(frozen=True)
class Result:
    """What one run, or several of one recipe, reach: figures by name, with their deviation over the runs.

    Of seeds, judged on the same images, the figures are means; of folds they are those of all their images together.
    """

    name: str
    runs: tuple[str, ...]
    n_images: int
    n_groups: int
    majority_accuracy: float
    metrics: dict[str, MetricValue]


@dataclass(frozen=True)
class Difference:
    """How much higher a figure is for `one` than for `other`.

    `chance` is how likely a difference at least so large would be if there were none: by the draws of groups, and by
    exchanging the sides' answers group by group, whichever says more. `adjusted` is the same among all pairs that were
    compared (Holm), and `larger_than_chance` whether it is below 5 %. `mcnemar` is the exact test of accuracy, which
    takes images as independent; it is there where each side answers every image once.
    """

    first: str
    second: str
    metric: str
    value: float
    interval: list[float] | None
    p_value: float | None
    adjusted_p_value: float | None
    significant: bool
    mcnemar_p_value: float | None

    @property
    def metric_value(self) -> MetricValue:
        """The difference with its interval, to be written as figures are."""
        return MetricValue(self.value, self.interval)


@dataclass(frozen=True)
class Comparison:
    """Results on one split and the differences between each two; `without_differences` says why there are none.

    `page` is the report that shows it, where one was written.
    """

    split: str
    results: tuple[Result, ...]
    differences: tuple[Difference, ...]
    not_compared_reason: str = ""
    report_path: Path | None = None

    def _repr_html_(self) -> str:
        """Show the comparison in a notebook."""
        figures = ("accuracy", "balanced_accuracy", "kappa", "quadratic_kappa", "auc")
        rows = [
            (one.name, str(one.n_images), *(str(one.metrics[name]) for name in figures), f"{one.majority_accuracy:.3f}")
            for one in self.results
        ]
        headings = (f"on {self.split}", "images", *(name.replace("_", " ") for name in figures), "majority")
        shown = render_html_table(f"Report: {self.report_path}" if self.report_path else "Comparison", headings, rows)
        tested = [
            (f"{one.first} – {one.second}", one.metric.replace("_", " "), str(one.metric_value),
             "yes" if one.significant else "no")
            for one in self.differences
            if one.metric in figures
        ]  # fmt: skip
        headings = ("difference", "figure", "value", "larger than chance")
        return shown + (render_html_table("Differences", headings, tested) if tested else "")


def compare_runs(runs: Iterable[Path | str | Run], split: str = "", n_samples: int = N_SAMPLES) -> Comparison:
    """Compare runs on one split: on test where all have its truth, or else on valid."""
    opened = open_runs(run.folder if isinstance(run, Run) else run for run in runs)
    split = split or choose_split(opened)
    families = {
        name: {run.name: _load_labeled(run, split) for run in family} for name, family in group_runs(opened).items()
    }
    return compare_predictions(families, split, n_samples)


def compare_predictions(
    families: Mapping[str, Mapping[str, Predictions]], split: str, n_samples: int = N_SAMPLES, baseline: str = ""
) -> Comparison:
    """Compare labelled predictions by name: those of one run, or of several that are gathered as one.

    Each two are held against each other, or each with the one named by `only`.
    """
    named = [(name, label, one) for name, family in families.items() for label, one in join_folds(name, family)]
    said = [one for _, _, one in named]
    apart = describe_mismatch([label for _, label, _ in named], said)
    if not apart:
        said = [align_predictions(one, said[0]) for one in said]
    found = (
        [_bootstrap_predictions([one], n_samples)[0] for one in said]
        if apart
        else _bootstrap_predictions(said, n_samples)
    )
    places = {name: [place for place, (own, _, _) in enumerate(named) if own == name] for name in families}
    sides = {name: [said[place] for place in several] for name, several in places.items()}
    results = tuple(
        _build_result(name, families[name], sides[name], [found[place] for place in several], bool(apart))
        for name, several in places.items()
    )
    if apart or len(families) == 1:
        return Comparison(split, results, (), apart)
    means = {
        name: {key: _average_results([found[place][key,] for place in several]) for key in COMPARED_METRICS}
        for name, several in places.items()
    }
    pairs = [pair for pair in combinations(means, 2) if not baseline or baseline in pair]
    return Comparison(split, results, tuple(_compute_differences(pairs, means, sides, n_samples)))


def choose_split(runs: Sequence[Run]) -> str:
    """Return `test` where all runs have predictions of it with the truth, or else `valid`."""
    told = [
        run.predictions_path("test").is_file() and Predictions.load(run.predictions_path("test")).labeled
        for run in runs
    ]
    return "test" if all(told) else "valid"


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return runs that differ in seed or fold alone as one family, by a name for them."""
    families: list[list[Run]] = []
    for run in runs:
        own = next((family for family in families if _same_recipe(family[0], run)), None)
        if own is None:
            families.append([run])
        else:
            own.append(run)
    names = [_name_family(family) for family in families]
    for number, family in enumerate(families):
        if names.count(names[number]) > 1:
            names[number] = ", ".join(str(run.folder) for run in family)
    return dict(zip(names, families, strict=True))


def _same_recipe(first: Run, second: Run) -> bool:
    if Decision.load(first.decision_path).tta != Decision.load(second.decision_path).tta:
        return False
    changed = find_differences(first.recipe, second.recipe)
    return bool(changed) and all(key in _IGNORED_KEYS or key.startswith("machine.") for key in changed)


def _name_family(family: Sequence[Run]) -> str:
    """Name a family after what its runs' names share: `resnet18` for `resnet18-seed0` and `resnet18-seed1`."""
    parts = [run.name.split("-") for run in family]
    shared = [part for part in parts[0] if all(part in others for others in parts)]
    return "-".join(shared) or family[0].name


def _load_labeled(run: Run, split: str) -> Predictions:
    said = Predictions.load(run.predictions_path(split))
    if not said.labeled:
        raise ParfocalError(f"{run.predictions_path(split)} has images without truth; compare on another split.")
    return said


def _bootstrap_predictions(
    predictions: Sequence[Predictions], n_samples: int
) -> list[dict[MetricKey, BootstrapResult]]:
    return bootstrap([ResampledMetrics(one) for one in predictions], n_samples)


def _build_result(
    name: str,
    predictions_by_run: Mapping[str, Predictions],
    predictions: Sequence[Predictions],
    bootstrap_results: Sequence[dict[MetricKey, BootstrapResult]],
    different_images_used: bool,
) -> Result:
    whole = len(predictions) == len(predictions_by_run)
    runs = [] if whole else [ResampledMetrics(one).compute() for one in predictions_by_run.values()]
    figures: dict[str, MetricValue] = {}
    for key in (key for key in bootstrap_results[0] if len(key) == 1):
        several = [one[key] for one in bootstrap_results]
        # Other images are other witnesses, whose doubts do not simply join.
        unsure = key[0] in METRICS_WITHOUT_INTERVAL or (different_images_used and len(several) > 1)
        values = [one.value for one in several] if whole else [one[key] for one in runs]
        figures[key[0]] = _build_metric_value(_average_results(several), values, not unsure)
    held = {
        image: row
        for one in predictions
        for image, *row in zip(number_duplicates(one), one.truth, one.groups, strict=True)
    }
    truth, groups = zip(*held.values(), strict=True)
    majority = float(np.bincount(truth).max() / len(truth))
    return Result(name, tuple(predictions_by_run), len(truth), len(set(groups)), majority, figures)


def _build_metric_value(
    bootstrap_result: BootstrapResult, run_values: Sequence[float], with_interval: bool
) -> MetricValue:
    if np.isnan(bootstrap_result.value):
        return MetricValue(None)
    deviation = float(np.std(run_values, ddof=1)) if len(run_values) > 1 and not np.isnan(run_values).any() else None
    return MetricValue(
        bootstrap_result.value, bootstrap_result.compute_interval() if with_interval else None, deviation
    )


def _average_results(bootstrap_results: Sequence[BootstrapResult]) -> BootstrapResult:
    return BootstrapResult(
        float(np.mean([one.value for one in bootstrap_results])),
        np.mean([one.jackknife for one in bootstrap_results], axis=0),
        np.mean([one.samples for one in bootstrap_results], axis=0),
        bootstrap_results[0].n_groups,
    )


def _compute_differences(
    pairs: Sequence[tuple[str, str]],
    mean_results: dict[str, dict[str, BootstrapResult]],
    predictions_by_family: dict[str, list[Predictions]],
    n_samples: int,
) -> list[Difference]:
    by_lot = {
        pair: permutation_test(predictions_by_family[pair[0]], predictions_by_family[pair[1]], n_samples)
        for pair in pairs
    }
    found: list[Difference] = []
    for figure in COMPARED_METRICS:
        spread = {pair: mean_results[pair[0]][figure] - mean_results[pair[1]][figure] for pair in pairs}
        spread = {pair: between for pair, between in spread.items() if not np.isnan(between.value)}
        chances = [_combine_p_values(between, by_lot[pair].get(figure, 0.0)) for pair, between in spread.items()]
        for (pair, between), chance, adjusted in zip(spread.items(), chances, adjust_p_values(chances), strict=True):
            one, other = (predictions_by_family[name] for name in pair)
            tested = figure == "accuracy" and len(one) == len(other) == 1
            exact = mcnemar_test(one[0], other[0]) if tested else None
            beyond = adjusted is not None and adjusted < 1 - CONFIDENCE_LEVEL
            told = between.compute_interval()
            found.append(Difference(*pair, figure, between.value, told, chance, adjusted, beyond, exact))
    return found


def _combine_p_values(difference: BootstrapResult, permutation_p_value: float) -> float | None:
    """Return the chance of a difference, the larger of draws' and lots'; 1 where both say the same throughout."""
    if difference.value == 0 and not np.nan_to_num(difference.samples).any():
        return 1.0
    drawn = difference.compute_p_value()
    return None if drawn is None else max(drawn, permutation_p_value)
