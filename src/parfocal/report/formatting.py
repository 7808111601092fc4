"""What figures and splits are called, and how people read a figure with its doubt."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from parfocal.evaluation.bootstrap import MIN_GROUPS
from parfocal.evaluation.compare import Comparison, MetricValue
from parfocal.evaluation.decision import Decision
from parfocal.run import Run

SPLIT_NAMES = {"valid": "validation", "test": "test"}
HEADINGS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "macro_f1": "macro F1",
    "kappa": "kappa",
    "quadratic_kappa": "quadratic kappa",
    "auc": "AUC",
    "brier": "Brier",
    "loss": "loss",
}
"""The figures of a comparison as a table's headings call them."""

_TABLE_METRICS = ("accuracy", "balanced_accuracy", "kappa", "quadratic_kappa", "auc")


def format_p_value(p_value: float | None) -> str:
    """Return a chance as people read it."""
    return "–" if p_value is None else "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def format_metric(metrics: Mapping[str, Any], name: str) -> str:
    """Return a figure of a judgement with its interval, as people read it."""
    return str(MetricValue.from_metrics(metrics, name))


def format_share(estimate: Mapping[str, Any] | None) -> str:
    """Return a measured share with its interval, as people read it."""
    return "–" if estimate is None else str(MetricValue(estimate["value"], estimate["interval"]))


def select_table_metrics(comparison: Comparison) -> list[str]:
    """Return the figures that tables of a comparison show; of two classes quadratic kappa is kappa, and once enough."""
    same = all(one.metrics["kappa"] == one.metrics["quadratic_kappa"] for one in comparison.results)
    return [figure for figure in _TABLE_METRICS if figure != "quadratic_kappa" or not same]


def format_metric_name(metric: str) -> str:
    """Return what people call a figure within a sentence."""
    return "ROC AUC" if metric == "auc" else metric.replace("_", " ")


def format_metric_title(metric: str) -> str:
    """Return what people call a figure at the head of something."""
    words = format_metric_name(metric)
    return words[0].upper() + words[1:]


def read_tta_by_run(runs: Sequence[Run]) -> dict[str, str]:
    """Return how each run's figures look at images: as was decided after training, or else as its recipe says."""
    return {run.name: Decision.load(run.decision_path).tta or run.recipe.views.tta for run in runs}


def find_tta_to_show(runs: Sequence[Run]) -> dict[str, str]:
    """Return how each run's figures look at images where that is worth a word; else nothing."""
    return read_tta_by_run(runs) if describe_tta(runs) else {}


def describe_tta(runs: Sequence[Run]) -> str:
    """Say how images are looked at where the runs differ in it, or where a recipe says otherwise; else nothing."""
    looks, said = read_tta_by_run(runs), {run.name: run.recipe.views.tta for run in runs}
    if len(set(looks.values())) > 1:
        named = ", ".join(f"{name} {own}" for name, own in looks.items())
        return f"The runs look at images in different ways ({named}), which is part of how they differ."
    if looks == said:
        return ""
    ways = ", ".join(sorted(set(said.values())))
    return f"The looks are {next(iter(looks.values()))}, where the recipe says {ways}."


def read_labeled_metrics(run: Run) -> dict[str, dict[str, Any]]:
    """Return the judgement of each split whose truth is known."""
    metrics = run.read_metrics()
    return {split: metrics[split] for split in SPLIT_NAMES if metrics.get(split, {}).get("labelled")}


def describe_few_groups(runs: Sequence[Run]) -> str:
    """Say which splits have too few groups for intervals; nothing where all have enough."""
    return format_few_groups(
        (SPLIT_NAMES[split], judged) for run in runs for split, judged in read_labeled_metrics(run).items()
    )


def format_few_groups(named_metrics: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """Say which judgements, each with what it is of, have too few groups for intervals; nothing where all have."""
    found = {
        f"{one['intervals']['groups']} on {of}"
        for of, one in named_metrics
        if "intervals" in one and one["intervals"]["groups"] < MIN_GROUPS
    }
    told = ", ".join(sorted(found))
    return f"Too few groups (patients) for intervals: {told}; {MIN_GROUPS} are the least." if found else ""
