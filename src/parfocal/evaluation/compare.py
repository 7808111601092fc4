"""Comparison of runs on the same images: their metrics with intervals, and which differences are significant.

Runs that differ only in seed or fold form a family and are compared together, because the luck of a seed is no merit
of a recipe. Seeds are averaged; the folds of a cross-validation are combined, each image predicted by the run that was
not trained on it. Differences are paired: each bootstrap sample takes the same patients for both sides. Everything is
computed from the predictions files.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from parfocal.errors import ParfocalError
from parfocal.evaluation.bootstrap import CONFIDENCE_LEVEL, N_SAMPLES, BootstrapResult, bootstrap
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.metrics import SPLIT_METRICS, MetricKey, ResampledMetrics, get_metric
from parfocal.evaluation.predictions import (
    Predictions,
    align_predictions,
    describe_mismatch,
    join_folds,
    number_duplicates,
)
from parfocal.evaluation.significance import adjust_p_values, mcnemar_test, permutation_test
from parfocal.evaluation.summary import TABLE_METRICS, MetricValue
from parfocal.groups import GroupKind, find_common_kind
from parfocal.notebook import render_html_table
from parfocal.recipe import find_differences
from parfocal.run import Run, open_runs

COMPARED_METRICS = tuple(metric.name for metric in SPLIT_METRICS if metric.compared)
"""The metrics whose differences are tested."""

# Recipes that differ only in these keys belong to the same family.
_IGNORED_KEYS = ("name", "about", "seed", "split.fold")

Significance = Literal["significant", "not significant", "not tested"]

BootstrapResults = dict[MetricKey, BootstrapResult]


@dataclass(frozen=True)
class Result:
    """The metrics of a run, or of a family of runs with the standard deviation over them.

    For seeds, evaluated on the same images, a metric is the mean; for folds it is that of all images together.
    """

    name: str
    runs: tuple[str, ...]
    n_images: int
    n_groups: int
    majority_accuracy: float
    metrics: dict[str, MetricValue]


@dataclass(frozen=True)
class Difference:
    """How much higher a metric is for `first` than for `second`.

    `p_value` is the larger of the bootstrap's and the permutation test's. `adjusted_p_value` is corrected for the
    number of pairs (Holm), and `significance` says whether it is below 0.05, or `not_tested_reason` why there is none.
    `mcnemar_p_value` is McNemar's exact test of accuracy, which takes images as independent; it exists if both sides
    predict each image once.
    """

    first: str
    second: str
    metric: str
    value: float
    interval: list[float] | None
    p_value: float | None
    adjusted_p_value: float | None
    significance: Significance
    not_tested_reason: str
    mcnemar_p_value: float | None

    @property
    def metric_value(self) -> MetricValue:
        """The difference with its interval, formatted like a metric."""
        return MetricValue(self.value, self.interval)

    @property
    def significance_text(self) -> str:
        """The significance, with the reason if it was not tested."""
        return f"{self.significance} ({self.not_tested_reason})" if self.not_tested_reason else self.significance


@dataclass(frozen=True)
class Comparison:
    """The results on a split and the differences between each two; or the reason why they are not compared.

    `report_path` is the report that shows the comparison, if it was written.
    """

    split: str
    results: tuple[Result, ...]
    differences: tuple[Difference, ...]
    not_compared_reason: str = ""
    groups_are: GroupKind = "groups"
    report_path: Path | None = None

    def _repr_html_(self) -> str:
        """Show the comparison in a notebook."""
        labels = [get_metric(name).label for name in TABLE_METRICS]
        header = (f"on {self.split}", "images", *labels, "majority")
        rows: list[tuple[str, ...]] = []
        for result in self.results:
            cells = (str(result.metrics[name]) for name in TABLE_METRICS)
            rows.append((result.name, str(result.n_images), *cells, f"{result.majority_accuracy:.3f}"))
        title = f"Report: {self.report_path}" if self.report_path else "Comparison"
        results = render_html_table(title, header, rows)
        rows = [
            (
                f"{difference.first} – {difference.second}",
                get_metric(difference.metric).label,
                str(difference.metric_value),
                difference.significance_text,
            )
            for difference in self.differences
            if difference.metric in TABLE_METRICS
        ]
        header = ("difference", "metric", "value", "significance")
        return results + render_html_table("Differences", header, rows) if rows else results


def compare_runs(runs: Iterable[Path | str | Run], split: str = "", n_samples: int = N_SAMPLES) -> Comparison:
    """Compare runs on a split: by default on test if all its labels are known, else on valid."""
    opened = open_runs(run.folder if isinstance(run, Run) else run for run in runs)
    split = split or choose_split(opened)
    families = {
        name: {run.name: _load_labeled(run, split) for run in family} for name, family in group_runs(opened).items()
    }
    return compare_predictions(families, split, n_samples, find_common_kind(run.groups_are for run in opened))


def compare_predictions(
    families: Mapping[str, Mapping[str, Predictions]],
    split: str,
    n_samples: int = N_SAMPLES,
    groups_are: GroupKind = "groups",
    baseline: str = "",
) -> Comparison:
    """Compare labeled predictions: families by name, each with the predictions of its runs by name.

    Every two families are compared, or each with the `baseline` if it is named.
    """
    folds = {name: join_folds(name, family) for name, family in families.items()}
    labels = [label for family in folds.values() for label, _ in family]
    predictions = [item for family in folds.values() for _, item in family]
    mismatch = describe_mismatch(labels, predictions)
    if mismatch:
        bootstrapped = [bootstrap([ResampledMetrics(item)], n_samples)[0] for item in predictions]
    else:
        predictions = [align_predictions(item, predictions[0]) for item in predictions]
        bootstrapped = bootstrap([ResampledMetrics(item) for item in predictions], n_samples)

    results: list[Result] = []
    predictions_by_family: dict[str, list[Predictions]] = {}
    mean_results: dict[str, dict[str, BootstrapResult]] = {}
    start = 0
    for name, family in families.items():
        rows = slice(start, start + len(folds[name]))
        start = rows.stop
        predictions_by_family[name] = predictions[rows]
        results.append(_build_result(name, family, predictions[rows], bootstrapped[rows], bool(mismatch)))
        if not mismatch:
            mean_results[name] = {metric: _average(bootstrapped[rows], metric) for metric in COMPARED_METRICS}
    if mismatch or len(families) == 1:
        return Comparison(split, tuple(results), (), mismatch, groups_are)
    pairs = [pair for pair in combinations(families, 2) if not baseline or baseline in pair]
    differences = _compute_differences(pairs, mean_results, predictions_by_family, n_samples, groups_are)
    return Comparison(split, tuple(results), tuple(differences), groups_are=groups_are)


def choose_split(runs: Sequence[Run]) -> str:
    """Return `test` if all runs have labeled predictions of it, else `valid`."""
    for run in runs:
        if not run.has_predictions("test") or not Predictions.load(run.predictions_path("test")).labeled:
            return "valid"
    return "test"


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return families of runs that differ only in seed or fold, by name."""
    families: list[list[Run]] = []
    for run in runs:
        for family in families:
            if _is_repetition(family[0], run) and all(_get_draw(run) != _get_draw(other) for other in family):
                family.append(run)
                break
        else:
            families.append([run])
    names: list[str] = []
    for family in families:
        # What the names of its runs share: `resnet18` for `resnet18-seed0` and `resnet18-seed1`.
        words_by_run = [run.name.split("-") for run in family]
        shared = [word for word in words_by_run[0] if all(word in words for words in words_by_run)]
        names.append("-".join(shared) or family[0].name)
    for number, family in enumerate(families):
        if names.count(names[number]) > 1:
            names[number] = ", ".join(str(run.folder) for run in family)
    return dict(zip(names, families, strict=True))


def _is_repetition(first: Run, second: Run) -> bool:
    """Return whether two runs differ in nothing but seed, fold, name and machine."""
    decisions = [Decision.load(run.decision_path) for run in (first, second)]
    if decisions[0].tta != decisions[1].tta or decisions[0].rule != decisions[1].rule:
        return False
    keys = find_differences(first.recipe, second.recipe)
    return all(key in _IGNORED_KEYS or key.startswith("machine.") for key in keys)


def _get_draw(run: Run) -> tuple[int, int]:
    """Return the seed and the fold: a run that repeats both is no further draw of chance."""
    return run.recipe.seed, run.recipe.split.fold


def _load_labeled(run: Run, split: str) -> Predictions:
    path = run.predictions_path(split)
    predictions = Predictions.load(path)
    if not predictions.labeled:
        raise ParfocalError(f"{path} has images without a label. Compare on another split.")
    return predictions


def _build_result(
    name: str,
    family: Mapping[str, Predictions],
    predictions: Sequence[Predictions],
    bootstrapped: Sequence[BootstrapResults],
    has_mismatch: bool,
) -> Result:
    """Return the result of a family: of its runs, and of their predictions after combining folds."""
    if len(predictions) != len(family):
        run_values = [ResampledMetrics(run_predictions).compute() for run_predictions in family.values()]
    else:
        run_values = [{key: result.value for key, result in results.items()} for results in bootstrapped]
    # Intervals of means over different images would need another method.
    has_intervals = not has_mismatch or len(predictions) == 1
    metrics: dict[str, MetricValue] = {}
    for metric in SPLIT_METRICS:
        value = float(np.mean([results[metric.name,].value for results in bootstrapped]))
        if np.isnan(value):
            metrics[metric.name] = MetricValue(None)
            continue
        has_interval = metric.has_interval and has_intervals
        values = [of_run[metric.name,] for of_run in run_values]
        has_std = len(values) > 1 and not np.isnan(values).any()
        metrics[metric.name] = MetricValue(
            value,
            _average(bootstrapped, metric.name).compute_interval() if has_interval else None,
            float(np.std(values, ddof=1)) if has_std else None,
        )

    # An image that more than 1 run predicts counts once.
    rows = {
        image: (truth, group)
        for item in predictions
        for image, truth, group in zip(number_duplicates(item), item.truth, item.groups, strict=True)
    }
    truths, groups = zip(*rows.values(), strict=True)
    majority_accuracy = float(np.bincount(truths).max() / len(truths))
    return Result(name, tuple(family), len(truths), len(set(groups)), majority_accuracy, metrics)


def _average(bootstrapped: Sequence[BootstrapResults], metric: str) -> BootstrapResult:
    results = [of_run[metric,] for of_run in bootstrapped]
    return BootstrapResult(
        float(np.mean([result.value for result in results])),
        np.mean([result.jackknife for result in results], axis=0),
        np.mean([result.samples for result in results], axis=0),
        results[0].n_groups,
    )


def _compute_differences(
    pairs: Sequence[tuple[str, str]],
    mean_results: Mapping[str, Mapping[str, BootstrapResult]],
    predictions_by_family: Mapping[str, Sequence[Predictions]],
    n_samples: int,
    groups_are: GroupKind,
) -> list[Difference]:
    permutation_p_values = {
        (first, second): permutation_test(predictions_by_family[first], predictions_by_family[second], n_samples)
        for first, second in pairs
    }
    differences: list[Difference] = []
    for metric in COMPARED_METRICS:
        results = {pair: mean_results[pair[0]][metric] - mean_results[pair[1]][metric] for pair in pairs}
        results = {pair: result for pair, result in results.items() if not np.isnan(result.value)}
        p_values = [
            _combine_p_values(result, permutation_p_values[pair].get(metric, 0.0)) for pair, result in results.items()
        ]
        adjusted_p_values = adjust_p_values(p_values)
        for (pair, result), p_value, adjusted in zip(results.items(), p_values, adjusted_p_values, strict=True):
            first, second = (predictions_by_family[name] for name in pair)
            has_mcnemar = metric == "accuracy" and len(first) == len(second) == 1
            differences.append(
                Difference(
                    first=pair[0],
                    second=pair[1],
                    metric=metric,
                    value=result.value,
                    interval=result.compute_interval(),
                    p_value=p_value,
                    adjusted_p_value=adjusted,
                    significance=_classify_significance(adjusted),
                    not_tested_reason="" if adjusted is not None else result.explain_undefined(groups_are),
                    mcnemar_p_value=mcnemar_test(first[0], second[0]) if has_mcnemar else None,
                )
            )
    return differences


def _classify_significance(adjusted_p_value: float | None) -> Significance:
    if adjusted_p_value is None:
        return "not tested"
    return "significant" if adjusted_p_value < 1 - CONFIDENCE_LEVEL else "not significant"


def _combine_p_values(result: BootstrapResult, permutation_p_value: float) -> float | None:
    """Return the larger of the bootstrap's and the permutation test's p-value; 1 if the sides are always equal."""
    if result.value == 0 and not np.nan_to_num(result.samples).any():
        return 1.0
    bootstrap_p_value = result.compute_p_value()
    return None if bootstrap_p_value is None else max(bootstrap_p_value, permutation_p_value)
