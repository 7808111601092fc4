"""The summary of runs: the rows of every table of results, in the terminal, the report, papers and notebooks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from parfocal.evaluation.metrics import CLASS_METRICS, MAJORITY_ACCURACY, SPLIT_METRICS, get_metric
from parfocal.run import Run

TABLE_METRICS = tuple(metric.name for metric in SPLIT_METRICS if metric.tables == "all")
"""The metrics that every table of results shows."""
WIDE_TABLE_METRICS = tuple(metric.name for metric in SPLIT_METRICS if metric.tables != "none")
"""The metrics that a table of results shows if there is room for many columns, as in the report."""
CLASS_TABLE_METRICS = tuple(metric.name for metric in CLASS_METRICS if metric.tables == "all")
WIDE_CLASS_TABLE_METRICS = tuple(metric.name for metric in CLASS_METRICS if metric.tables != "none")

SPLITS = ("valid", "test")


@dataclass(frozen=True)
class MetricValue:
    """The value of a metric with its confidence interval, if defined, and its standard deviation over runs."""

    value: float | None
    interval: list[float] | None = None
    std: float | None = None

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, Any], name: str) -> Self:
        """Return a metric of the plain data that `evaluate_split` returns, or of a class of it."""
        return cls(metrics.get(name), metrics.get("intervals", {}).get(name))

    def __str__(self) -> str:
        """Format the value for a table: 0.781 ± 0.004 (0.743–0.815)."""
        if self.value is None:
            return "–"
        text = f"{self.value:.3f}"
        if self.std is not None:
            text += f" ± {self.std:.3f}"
        if self.interval is not None:
            low, high = self.interval
            text += f" ({low:.3f} to {high:.3f})" if low < 0 else f" ({low:.3f}–{high:.3f})"
        return text


@dataclass(frozen=True)
class ClassRow:
    """The metrics of a class, by name, and how many images have it as true and as predicted class."""

    n_images: int
    n_predicted: int
    metrics: dict[str, MetricValue]


@dataclass(frozen=True)
class SummaryRow:
    """The metrics of a run on a split, by name, with the majority-class baseline, and those of each class."""

    run: str
    split: str
    n_images: int
    n_groups: int
    best_epoch: int | None
    metrics: dict[str, MetricValue]
    classes: dict[str, ClassRow]

    @classmethod
    def from_metrics(cls, run: str, split: str, metrics: Mapping[str, Any], best_epoch: int | None = None) -> Self:
        """Return the row of labeled metrics: the plain data that `evaluate_split` returns, or a section of it."""
        names = [MAJORITY_ACCURACY.name, *(metric.name for metric in SPLIT_METRICS)]
        values = {name: MetricValue.from_metrics(metrics, name) for name in names}
        class_intervals = metrics.get("intervals", {}).get("per_class", {})
        classes: dict[str, ClassRow] = {}
        for name, of_class in metrics["per_class"].items():
            content = {**of_class, "intervals": class_intervals.get(name, {})}
            class_values = {metric.name: MetricValue.from_metrics(content, metric.name) for metric in CLASS_METRICS}
            classes[name] = ClassRow(of_class["support"], of_class["predicted"], class_values)
        return cls(run, split, metrics["count"], metrics["groups"], best_epoch, values, classes)


def summarize(runs: Sequence[Run]) -> list[SummaryRow]:
    """Return a row for each finished run and each of its splits with known labels."""
    rows: list[SummaryRow] = []
    for run in runs:
        metrics = run.read_metrics()
        splits = [split for split in SPLITS if metrics.get(split, {}).get("labeled")]
        best_epoch = metrics.get("best_epoch")
        rows += [SummaryRow.from_metrics(run.name, split, metrics[split], best_epoch) for split in splits]
    return rows


def has_intervals(rows: Sequence[SummaryRow]) -> bool:
    """Return whether a metric of any row has a confidence interval; with few groups none has."""
    return any(value.interval is not None for row in rows for value in row.metrics.values())


def select_distinct(names: Sequence[str], results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Leave out metrics that repeat another in all results: for two classes, quadratic kappa is kappa."""

    def is_repeated(name: str) -> bool:
        original = get_metric(name).same_as
        return bool(original) and all(result[name] == result[original] for result in results)

    return [name for name in names if not is_repeated(name)]


def select_for_order(names: Sequence[str], ordered: bool) -> list[str]:
    """Leave out the metrics of ordered classes, or if the classes are ordered, the metrics that those replace."""
    metrics = [get_metric(name) for name in names]
    if not ordered:
        return [metric.name for metric in metrics if not metric.needs_order]
    replaced = {metric.same_as for metric in metrics if metric.needs_order}
    return [metric.name for metric in metrics if metric.name not in replaced]


def add_baseline(names: Sequence[str]) -> list[str]:
    """Insert the majority-class baseline after accuracy, the metric that it is a baseline of."""
    position = list(names).index("accuracy") + 1
    return [*names[:position], MAJORITY_ACCURACY.name, *names[position:]]
