"""Format metrics, p-values and notes about runs for tables, the report and the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from parfocal.evaluation.bootstrap import MIN_GROUPS
from parfocal.evaluation.compare import Comparison, Difference
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.metrics import MAJORITY_ACCURACY, METRICS, get_metric
from parfocal.evaluation.summary import SPLITS, TABLE_METRICS, MetricValue, select_distinct
from parfocal.groups import GroupKind, find_common_kind
from parfocal.recipe_schema import DecisionRuleName
from parfocal.run import Run

SPLIT_NAMES = {"valid": "validation", "test": "test"}

HEADINGS = {metric.name: metric.heading for metric in (*METRICS, MAJORITY_ACCURACY)}
"""The column heading of each metric."""


RULE_MEANINGS: dict[DecisionRuleName, str] = {
    "likeliest": "most probable class",
    "mean": "rounded mean grade",
    "thresholds": "mean grade, cut at thresholds",
    "cost": "lowest expected cost",
}
"""What each decision rule predicts."""


def format_p_value(p_value: float | None) -> str:
    """Format a p-value for a table."""
    if p_value is None:
        return "–"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def describe_significance(difference: Difference) -> str:
    """Say whether a difference is statistically significant; if it was not tested, why not."""
    if difference.significance == "not tested":
        return f"significance not tested ({difference.not_tested_reason})"
    return difference.significance.replace("significant", "statistically significant")


def format_metric(metrics: Mapping[str, Any], name: str) -> str:
    """Format a metric of the plain data in metrics.json, with its confidence interval."""
    return str(MetricValue.from_metrics(metrics, name))


def format_share(estimate: Mapping[str, Any] | None) -> str:
    """Format an estimated share (`value` and `interval`) with its confidence interval."""
    return "–" if estimate is None else str(MetricValue(estimate["value"], estimate["interval"]))


def select_positive_class(point: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and the metrics, with intervals, of the positive class of an operating point."""
    name = point["positive"]
    return name, {**point["per_class"][name], "intervals": point["intervals"]["per_class"][name]}


def select_table_metrics(comparison: Comparison) -> list[str]:
    """Return the metrics that the tables of a comparison show, without those that repeat another."""
    return select_distinct(TABLE_METRICS, [result.metrics for result in comparison.results])


def read_training_accuracy(run: Run) -> float:
    """Return the training accuracy of the best epoch, measured on augmented images while the network trained."""
    history = run.read_history()
    return float(history.loc[history["epoch"] == run.read_metrics()["best_epoch"], "train_accuracy"].iloc[0])


def read_labeled_metrics(run: Run) -> dict[str, dict[str, Any]]:
    """Return the metrics of each split whose labels are known."""
    metrics = run.read_metrics()
    return {split: metrics[split] for split in SPLITS if metrics.get(split, {}).get("labeled")}


def read_tta_by_run(runs: Sequence[Run]) -> dict[str, str]:
    """Return the test-time augmentation of each run: as chosen after training, else as in its recipe."""
    return {run.name: Decision.load(run.decision_path).tta or run.recipe.views.tta for run in runs}


def find_tta_to_show(runs: Sequence[Run]) -> dict[str, str]:
    """Return the test-time augmentation of each run if `describe_tta` has something to say, else nothing."""
    return read_tta_by_run(runs) if describe_tta(runs) else {}


def describe_tta(runs: Sequence[Run]) -> str:
    """Say which test-time augmentation the runs use if they differ, or if it is not that of their recipe."""
    used = read_tta_by_run(runs)
    in_recipe = {run.name: run.recipe.views.tta for run in runs}
    modes = set(used.values())
    if len(modes) > 1:
        by_run = ", ".join(f"{name}: {tta}" for name, tta in used.items())
        return f"The runs use different test-time augmentation ({by_run}), which contributes to their difference."
    if used == in_recipe:
        return ""
    return f"Test-time augmentation: {modes.pop()} (recipe: {', '.join(sorted(set(in_recipe.values())))})."


# A loss that is higher by less than this factor says nothing.
_NOTABLE_LOSS = 1.02


def describe_worse_calibration(runs: Sequence[Run]) -> list[str]:
    """Say, for each run, if its temperature made the calibration on test worse; test chooses nothing all the same."""
    sentences: list[str] = []
    for run in runs:
        test = read_labeled_metrics(run).get("test", {})
        calibrated = test.get("calibration")
        if calibrated is None or calibrated["loss"] <= test["loss"] * _NOTABLE_LOSS:
            continue
        changes = ", ".join(
            f"{get_metric(name).label} {test[name]:.3f} → {calibrated[name]:.3f}" for name in ("loss", "ece")
        )
        n_images = Decision.load(run.decision_path).n_images
        sentences.append(
            f"The temperature of {run.name} made the calibration on test worse ({changes}). It was fitted on "
            f"{n_images:,} validation images; more of them would help."
        )
    return sentences


def describe_few_groups(runs: Sequence[Run]) -> str:
    """Say which splits have too few groups for confidence intervals; empty if all have enough."""
    return format_few_groups(
        find_common_kind(run.groups_are for run in runs),
        ((SPLIT_NAMES[split], metrics) for run in runs for split, metrics in read_labeled_metrics(run).items()),
    )


def format_few_groups(groups_are: GroupKind, named_metrics: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """Say which of these named metrics have too few groups for confidence intervals; empty if all have enough."""
    counts = {
        f"{metrics['intervals']['groups']} in {name}"
        for name, metrics in named_metrics
        if "intervals" in metrics and metrics["intervals"]["groups"] < MIN_GROUPS
    }
    if not counts:
        return ""
    return f"Too few {groups_are} for confidence intervals: {', '.join(sorted(counts))} (minimum {MIN_GROUPS})."
