"""A comparison as tables for other programs and for papers: CSV, JSON and LaTeX."""

import json
from dataclasses import asdict
from typing import Any, Literal

import pandas as pd

from parfocal.evaluation.compare import FIGURES, Comparison
from parfocal.report.words import HEADINGS

Format = Literal["csv", "json", "latex"]


def written(comparison: Comparison, form: Format) -> str:
    """Return a comparison as text of a format: every figure in CSV and JSON, the compared ones in LaTeX."""
    if form == "json":
        return json.dumps(_plain(comparison), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return _rows(comparison).to_csv(index=False) if form == "csv" else _latex(comparison)


def _plain(comparison: Comparison) -> dict[str, Any]:
    return {name: value for name, value in asdict(comparison).items() if name != "page"}


def _rows(comparison: Comparison) -> pd.DataFrame:
    """Return one row a figure of a run, then one a difference, of the run less the one it is held `against`."""
    rows: list[dict[str, object]] = []
    for result in comparison.results:
        about = {"run": result.name, "against": "", "runs": len(result.runs), "split": comparison.split}
        rows.append({**about, "figure": "majority_accuracy", "value": result.majority_accuracy})
        for figure, value in result.figures.items():
            low, high = value.interval or (None, None)
            row = {"figure": figure, "value": value.value, "low": low, "high": high, "deviation": value.deviation}
            rows.append({**about, **row})
    for one in comparison.differences:
        low, high = one.interval or (None, None)
        rows.append(
            {
                "run": one.one,
                "against": one.other,
                "split": comparison.split,
                "figure": one.figure,
                "value": one.value,
                "low": low,
                "high": high,
                "chance": one.chance,
                "adjusted": one.adjusted,
                "mcnemar": one.mcnemar,
                "larger_than_chance": one.larger_than_chance,
            }
        )
    return pd.DataFrame(rows).astype({"runs": "Int64"})


def _latex(comparison: Comparison) -> str:
    results = pd.DataFrame(
        [
            {"run": one.name, **{HEADINGS[figure]: str(one.figures[figure]) for figure in FIGURES}}
            | {"majority": f"{one.majority_accuracy:.3f}"}
            for one in comparison.results
        ]
    )
    differences = pd.DataFrame(
        [
            {
                "difference": f"{one.one} – {one.other}",
                "figure": HEADINGS[one.figure],
                "value": str(one.shown),
                "adjusted p": "–" if one.adjusted is None else f"{one.adjusted:.3f}",
                "larger than chance": "yes" if one.larger_than_chance else "no",
            }
            for one in comparison.differences
        ]
    )
    tables = [results, differences] if len(differences) else [results]
    return "\n".join(table.to_latex(index=False, escape=True) for table in tables)
