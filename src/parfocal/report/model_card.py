"""The model card of an exported run: intended use, data, training, results with intervals, and limitations."""

from collections.abc import Mapping, Sequence
from typing import Any

from parfocal.evaluation.metrics import get_metric
from parfocal.evaluation.summary import CLASS_TABLE_METRICS, WIDE_TABLE_METRICS, SummaryRow, add_baseline, summarize
from parfocal.report.formatting import format_metric, format_share, read_labeled_metrics
from parfocal.report.render import render
from parfocal.run import Run

_METRICS = tuple(map(get_metric, add_baseline(WIDE_TABLE_METRICS)))
_CLASS_METRICS = tuple(map(get_metric, CLASS_TABLE_METRICS))
_CALIBRATION_METRICS = ("ece", "brier", "loss")
_MIN_TRAINING_IMAGES = 100


def build_model_card(run: Run, metadata: Mapping[str, Any], export_rows: Sequence[Sequence[object]]) -> str:
    """Return the model card of a finished, exported run in Markdown.

    `metadata` is what the export holds, and `export_rows` (name, value) say how it was written and verified.
    """
    metrics = run.read_metrics()
    metrics_by_split = read_labeled_metrics(run)
    environment = run.read_environment()
    data = environment["data"]
    summary = summarize([run])
    small_classes = [
        f"{name} ({count})" for name, count in data["counts"].get("train", {}).items() if count < _MIN_TRAINING_IMAGES
    ]
    return render(
        "model_card.md",
        run=run,
        recipe=run.recipe,
        metadata=metadata,
        metrics=metrics,
        data=data,
        data_rows=_build_data_rows(data),
        environment=environment,
        is_pretrained=run.read_load_report() is not None,
        export_rows=export_rows,
        # The file names after the colon may identify patients.
        warnings=[
            finding["message"].partition(": ")[0] for finding in data["findings"] if finding["severity"] == "warning"
        ],
        splits=list(metrics_by_split),
        result_rows=_build_result_rows(summary),
        class_metrics=[metric.heading for metric in _CLASS_METRICS],
        class_rows={row.split: _build_class_rows(row) for row in summary},
        temperature=next(
            (values["calibration"]["temperature"] for values in metrics_by_split.values() if "calibration" in values),
            None,
        ),
        calibration_metrics=[get_metric(name).label for name in _CALIBRATION_METRICS],
        calibration_rows=[
            (split, *(f"{values[name]:.3f} → {values['calibration'][name]:.3f}" for name in _CALIBRATION_METRICS))
            for split, values in metrics_by_split.items()
            if "calibration" in values
        ],
        operating_point_rows=_build_operating_point_rows(metrics_by_split),
        referral_rows=_build_referral_rows(metrics_by_split),
        small_classes=small_classes,
    )


def _build_data_rows(data: Mapping[str, Any]) -> list[tuple[object, ...]]:
    splits = list(data["rows"])
    return [
        *((name, *(data["counts"][split].get(name, 0) for split in splits)) for name in data["classes"]),
        ("**images**", *(data["rows"][split] for split in splits)),
        ("**groups**", *(data["groups"][split] for split in splits)),
    ]


def _build_result_rows(summary: Sequence[SummaryRow]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        (metric.label, *(row.metrics[metric.name] for row in summary)) for metric in _METRICS
    ]
    return [*rows, ("images (groups)", *(f"{row.n_images} ({row.n_groups})" for row in summary))]


def _build_class_rows(row: SummaryRow) -> list[tuple[object, ...]]:
    return [
        (name, class_row.n_images, *(class_row.metrics[metric.name] for metric in _CLASS_METRICS))
        for name, class_row in row.classes.items()
    ]


def _build_operating_point_rows(metrics_by_split: Mapping[str, Mapping[str, Any]]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for split, metrics in metrics_by_split.items():
        if point := metrics.get("operating_point"):
            # The second of two classes is the positive one. With thresholds between grades, each grade has a row.
            names = point["classes"][1:] if len(point["classes"]) == 2 else point["classes"]
            for name in names:
                values = {**point["per_class"][name], "intervals": point["intervals"]["per_class"][name]}
                rows.append(
                    (point["goal"], split, name, format_metric(values, "recall"), format_metric(values, "specificity"))
                )
    return rows


def _build_referral_rows(metrics_by_split: Mapping[str, Mapping[str, Any]]) -> list[tuple[object, ...]]:
    return [
        (
            split,
            referral["target_coverage"],
            *(format_share(referral[name]) for name in ("coverage", "referral_rate", "selective_accuracy")),
        )
        for split, metrics in metrics_by_split.items()
        if (referral := metrics.get("referral"))
    ]
