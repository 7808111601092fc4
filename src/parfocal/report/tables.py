"""A comparison as tables for other programs and for papers: CSV, JSON and LaTeX."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import pandas as pd

from parfocal.evaluation.compare import FIGURES, Comparison
from parfocal.report.words import HEADINGS, chance_words

Format = Literal["csv", "json", "latex"]


def written(comparison: Comparison, form: Format, looks: Mapping[str, str]) -> str:
    """Return a comparison as text of a format: every figure in CSV and JSON, the compared ones in LaTeX.

    `looks` says how each run looks at images; CSV and JSON hold it.
    """
    if form == "json":
        return json.dumps(_plain(comparison, looks), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return _rows(comparison, looks).to_csv(index=False) if form == "csv" else _latex(comparison)


def _plain(comparison: Comparison, looks: Mapping[str, str]) -> dict[str, Any]:
    return {**{name: value for name, value in asdict(comparison).items() if name != "page"}, "looks": dict(looks)}


def _rows(comparison: Comparison, looks: Mapping[str, str]) -> pd.DataFrame:
    """Return one row a figure of a run, then one a difference, of the run less the one it is held `against`."""
    rows: list[dict[str, object]] = []
    for result in comparison.results:
        about = {"run": result.name, "against": "", "runs": len(result.runs), "split": comparison.split}
        about["looks"] = ", ".join(sorted({looks[run] for run in result.runs}))
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
                "adjusted p": chance_words(one.adjusted),
                "larger than chance": "yes" if one.larger_than_chance else "no",
            }
            for one in comparison.differences
        ]
    )
    tables = [results, differences] if len(differences) else [results]
    return "\n".join(table.to_latex(index=False, escape=True) for table in tables)
