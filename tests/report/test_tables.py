"""A comparison as CSV, JSON and LaTeX tables."""

import io
import json
from dataclasses import replace

import pandas as pd
import pytest

from parfocal.evaluation.compare import Comparison, Difference, MetricValue, Result
from parfocal.report.tables import format_comparison

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "kappa", "quadratic_kappa", "auc", "brier", "loss")
TTA = {"plain_20": "none", "a": "none", "b": "d4"}


@pytest.fixture
def comparison() -> Comparison:
    single = Result(
        "plain_20", ("plain_20",), 400, 200, 0.7, {name: MetricValue(0.8, [0.7, 0.9], None) for name in METRICS}
    )
    family = Result(
        "resnet20", ("a", "b"), 400, 200, 0.7, {name: MetricValue(0.9, [0.8, 0.95], 0.01) for name in METRICS}
    )
    difference = Difference(
        "plain_20", "resnet20", "accuracy", -0.1, [-0.2, -0.05], 0.001, 0.002, "significant", "", None
    )
    return Comparison("test", (single, family), (difference,))


def test_csv_has_a_row_for_each_metric_and_each_difference(comparison: Comparison) -> None:
    rows = pd.read_csv(io.StringIO(format_comparison(comparison, "csv", TTA)), dtype={"runs": "Int64"})
    results = rows[rows["compared_with"].isna()]
    differences = rows[rows["compared_with"].notna()]
    assert len(results) == 2 * (len(METRICS) + 1)
    accuracy = results[(results["run"] == "resnet20") & (results["metric"] == "accuracy")].iloc[0]
    assert accuracy[["value", "low", "high", "std", "runs"]].tolist() == [0.9, 0.8, 0.95, 0.01, 2]
    assert differences[["run", "compared_with", "value"]].to_numpy().tolist() == [["plain_20", "resnet20", -0.1]]
    assert differences["significance"].tolist() == ["significant"]
    assert dict(zip(results["run"], results["tta"], strict=True)) == {
        "plain_20": "none",
        "resnet20": "d4, none",
    }


def test_json_holds_the_whole_comparison(comparison: Comparison) -> None:
    content = json.loads(format_comparison(comparison, "json", TTA))
    assert content["split"] == "test"
    assert content["results"][0]["metrics"]["auc"] == {"value": 0.8, "interval": [0.7, 0.9], "std": None}
    assert content["differences"][0]["adjusted_p_value"] == 0.002
    assert content["tta"] == TTA


def test_latex_escapes_names(comparison: Comparison) -> None:
    text = format_comparison(comparison, "latex", TTA)
    assert text.count(r"\begin{tabular}") == 2
    assert r"plain\_20 & 0.800 (0.700–0.900)" in text
    assert "plain_20 &" not in text.replace(r"\_", "")


def test_latex_shows_a_small_p_value_as_less_than_0_001(comparison: Comparison) -> None:
    small = replace(comparison.differences[0], adjusted_p_value=0.0002)
    text = format_comparison(replace(comparison, differences=(small,)), "latex", TTA)
    assert "& < 0.001 &" in text
    assert "0.000 &" not in text


def test_a_metric_value_is_formatted_with_interval_and_standard_deviation() -> None:
    assert str(MetricValue(None, None, None)) == "–"
    assert str(MetricValue(0.5, None, None)) == "0.500"
    assert str(MetricValue(-0.1, [-0.2, 0.05], None)) == "-0.100 (-0.200 to 0.050)"
    assert str(MetricValue(0.5, [0.4, 0.6], 0.02)) == "0.500 ± 0.020 (0.400–0.600)"
