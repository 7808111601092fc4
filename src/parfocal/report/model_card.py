"""The model card of an exported run: intended use, data, training, results with intervals, and limitations."""

from collections.abc import Mapping, Sequence
from typing import Any

from parfocal.evaluation.metrics import get_metric
from parfocal.evaluation.summary import CLASS_TABLE_METRICS, WIDE_TABLE_METRICS, add_baseline, has_intervals, summarize
from parfocal.groups import SINGULAR
from parfocal.markdown import Markdown
from parfocal.report.formatting import (
    describe_few_groups,
    describe_worse_calibration,
    format_metric,
    format_share,
    read_labeled_metrics,
    select_positive_class,
)
from parfocal.report.html import render
from parfocal.run import Run

_METRICS = tuple(map(get_metric, add_baseline(WIDE_TABLE_METRICS)))
_CLASS_METRICS = tuple(map(get_metric, CLASS_TABLE_METRICS))
_CALIBRATION_METRICS = ("ece", "brier", "loss")
_MIN_TRAINING_IMAGES = 100


def build_model_card(run: Run, metadata: Mapping[str, Any], export_rows: Sequence[Sequence[object]]) -> str:
    """Return the model card in Markdown; `export_rows` (name, value) say how the export was written and verified."""
    environment = run.read_environment()
    data = environment["data"]
    summary = summarize([run])
    data_rows = [
        *((name, *(data["counts"][split].get(name, 0) for split in data["rows"])) for name in data["classes"]),
        (Markdown("**images**"), *data["rows"].values()),
    ]
    if run.groups_are != "images":
        data_rows.append((Markdown(f"**{run.groups_are}**"), *(data["groups"][split] for split in data["rows"])))
    class_rows = {
        row.split: [
            (name, class_row.n_images, *(class_row.metrics[metric.name] for metric in _CLASS_METRICS))
            for name, class_row in row.classes.items()
        ]
        for row in summary
    }
    temperature = None
    calibration_rows: list[tuple[object, ...]] = []
    operating_point_rows: list[tuple[object, ...]] = []
    referral_rows: list[tuple[object, ...]] = []
    metrics_by_split = read_labeled_metrics(run)
    for split, metrics in metrics_by_split.items():
        if calibrated := metrics.get("calibration"):
            temperature = temperature or calibrated["temperature"]
            changes = (f"{metrics[name]:.3f} → {calibrated[name]:.3f}" for name in _CALIBRATION_METRICS)
            calibration_rows.append((split, *changes))
        if point := metrics.get("operating_point"):
            name, values = select_positive_class(point)
            cells = (format_metric(values, metric) for metric in ("recall", "specificity"))
            operating_point_rows.append((point["goal"], split, name, *cells))
        if referral := metrics.get("referral"):
            shares = (format_share(referral[name]) for name in ("coverage", "referral_rate", "selective_accuracy"))
            referral_rows.append((split, referral["target_coverage"], *shares))
    return render(
        "model_card.md",
        run=run,
        recipe=run.recipe,
        metadata=metadata,
        metrics=run.read_metrics(),
        data=data,
        group=SINGULAR[run.groups_are],
        data_rows=data_rows,
        environment=environment,
        is_pretrained=run.read_load_report() is not None,
        export_rows=export_rows,
        # The file names after the colon may identify patients.
        warnings=[
            finding["message"].partition(": ")[0] for finding in data["findings"] if finding["severity"] == "warning"
        ],
        splits=list(metrics_by_split),
        has_intervals=has_intervals(summary),
        few_groups=describe_few_groups([run]),
        result_rows=[
            *((metric.label, *(row.metrics[metric.name] for row in summary)) for metric in _METRICS),
            ("images", *(row.n_images for row in summary)),
            *([(run.groups_are, *(row.n_groups for row in summary))] if run.groups_are != "images" else []),
        ],
        class_metrics=[metric.heading for metric in _CLASS_METRICS],
        class_rows=class_rows,
        temperature=temperature,
        calibration_metrics=[get_metric(name).label for name in _CALIBRATION_METRICS],
        calibration_rows=calibration_rows,
        worse_calibration=describe_worse_calibration([run]),
        operating_point_rows=operating_point_rows,
        referral_rows=referral_rows,
        small_classes=[
            f"{name} ({count})"
            for name, count in data["counts"].get("train", {}).items()
            if count < _MIN_TRAINING_IMAGES
        ],
    )
