"""Write a comparison as CSV or JSON for other programs, or as LaTeX tables for papers."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Literal

import pandas as pd

from parfocal.evaluation.compare import COMPARED_METRICS, Comparison
from parfocal.evaluation.metrics import MAJORITY_ACCURACY, get_metric
from parfocal.report.formatting import format_p_value

Format = Literal["csv", "json", "latex"]


def format_comparison(comparison: Comparison, file_format: Format, tta: Mapping[str, str]) -> str:
    """Return a comparison as text: CSV and JSON hold every metric and the `tta` of each run, LaTeX less."""
    if file_format == "json":
        content = asdict(comparison)
        del content["report_path"]
        return json.dumps({**content, "tta": dict(tta)}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return _build_rows(comparison, tta).to_csv(index=False) if file_format == "csv" else _format_latex(comparison)


def _build_rows(comparison: Comparison, tta: Mapping[str, str]) -> pd.DataFrame:
    """Return a row for each metric of a run, then a row for each difference between `run` and `compared_with`."""
    rows: list[dict[str, object]] = []
    for result in comparison.results:
        shared = {
            "run": result.name,
            "compared_with": "",
            "runs": len(result.runs),
            "split": comparison.split,
            "tta": ", ".join(sorted({tta[run] for run in result.runs})),
        }
        rows.append({**shared, "metric": MAJORITY_ACCURACY.name, "value": result.majority_accuracy})
        for metric, value in result.metrics.items():
            low, high = value.interval or (None, None)
            rows.append({**shared, "metric": metric, "value": value.value, "low": low, "high": high, "std": value.std})
    for difference in comparison.differences:
        values = asdict(difference)
        low, high = values.pop("interval") or (None, None)
        names = {"run": values.pop("first"), "compared_with": values.pop("second"), "split": comparison.split}
        rows.append({**names, **values, "low": low, "high": high})
    return pd.DataFrame(rows).astype({"runs": "Int64"})


def _format_latex(comparison: Comparison) -> str:
    results = pd.DataFrame(
        {
            "run": result.name,
            **{get_metric(name).heading: str(result.metrics[name]) for name in COMPARED_METRICS},
            MAJORITY_ACCURACY.heading: f"{result.majority_accuracy:.3f}",
        }
        for result in comparison.results
    )
    differences = pd.DataFrame(
        {
            "difference": f"{difference.first} – {difference.second}",
            "metric": get_metric(difference.metric).heading,
            "value": str(difference.metric_value),
            "adjusted p": format_p_value(difference.adjusted_p_value),
            "significance": difference.significance_text,
        }
        for difference in comparison.differences
    )
    tables = [results, differences] if len(differences) else [results]
    return "\n".join(table.to_latex(index=False, escape=True) for table in tables)
