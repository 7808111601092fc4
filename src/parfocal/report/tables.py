"""A comparison as tables for other programs and for papers: CSV, JSON and LaTeX."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import pandas as pd

from parfocal.evaluation.compare import COMPARED_METRICS, Comparison
from parfocal.report.formatting import HEADINGS, format_p_value

Format = Literal["csv", "json", "latex"]


def format_comparison(comparison: Comparison, file_format: Format, tta: Mapping[str, str]) -> str:
    """Return a comparison as text of a format: every figure in CSV and JSON, the compared ones in LaTeX.

    `looks` says how each run looks at images; CSV and JSON hold it.
    """
    if file_format == "json":
        return json.dumps(_to_plain_data(comparison, tta), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return _build_rows(comparison, tta).to_csv(index=False) if file_format == "csv" else _format_latex(comparison)


def _to_plain_data(comparison: Comparison, tta: Mapping[str, str]) -> dict[str, Any]:
    return {**{name: value for name, value in asdict(comparison).items() if name != "report_path"}, "looks": dict(tta)}


def _build_rows(comparison: Comparison, tta: Mapping[str, str]) -> pd.DataFrame:
    """Return one row a figure of a run, then one a difference, of the run less the one it is held `against`."""
    rows: list[dict[str, object]] = []
    for result in comparison.results:
        about = {"run": result.name, "against": "", "runs": len(result.runs), "split": comparison.split}
        about["looks"] = ", ".join(sorted({tta[run] for run in result.runs}))
        rows.append({**about, "figure": "majority_accuracy", "value": result.majority_accuracy})
        for figure, value in result.metrics.items():
            low, high = value.interval or (None, None)
            row = {"figure": figure, "value": value.value, "low": low, "high": high, "deviation": value.std}
            rows.append({**about, **row})
    for one in comparison.differences:
        low, high = one.interval or (None, None)
        rows.append(
            {
                "run": one.first,
                "against": one.second,
                "split": comparison.split,
                "figure": one.metric,
                "value": one.value,
                "low": low,
                "high": high,
                "chance": one.p_value,
                "adjusted": one.adjusted_p_value,
                "mcnemar": one.mcnemar_p_value,
                "larger_than_chance": one.significant,
            }
        )
    return pd.DataFrame(rows).astype({"runs": "Int64"})


def _format_latex(comparison: Comparison) -> str:
    results = pd.DataFrame(
        [
            {"run": one.name, **{HEADINGS[figure]: str(one.metrics[figure]) for figure in COMPARED_METRICS}}
            | {"majority": f"{one.majority_accuracy:.3f}"}
            for one in comparison.results
        ]
    )
    differences = pd.DataFrame(
        [
            {
                "difference": f"{one.first} – {one.second}",
                "figure": HEADINGS[one.metric],
                "value": str(one.metric_value),
                "adjusted p": format_p_value(one.adjusted_p_value),
                "larger than chance": "yes" if one.significant else "no",
            }
            for one in comparison.differences
        ]
    )
    tables = [results, differences] if len(differences) else [results]
    return "\n".join(table.to_latex(index=False, escape=True) for table in tables)
