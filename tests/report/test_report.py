"""The report: self-contained, clear about what selected what, and built without the networks."""

import base64
import html
import io
import re
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parfocal
from parfocal.commands.tables import print_decisions, print_differences, print_results
from parfocal.errors import ParfocalError
from parfocal.evaluation.compare import compare_runs
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.decision_rule import DecisionRule
from parfocal.evaluation.evaluate import evaluate_split
from parfocal.evaluation.patients import FellowEyes
from parfocal.recipe import load_recipe
from parfocal.report.live import write_live_page
from parfocal.report.report import find_best_run
from parfocal.run import Run, open_runs
from tests.cells import SMALL_RECIPE, draw_cells
from tests.evaluation.make_predictions import make_predictions
from tests.report.hostile_run import CLASS_NAME, RUN_NAME, make_hostile_run
from tests.report.read_report import read_report


class _LinkCollector(HTMLParser):
    """Collects what a browser would load or follow."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.anchors: set[str] = set()
        self.images_without_alt = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.anchors.add(attributes.get("id") or "")
        self.urls += [value for name in ("src", "href", "action") if (value := attributes.get(name))]
        self.images_without_alt += tag == "img" and not attributes.get("alt")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    patch = pytest.MonkeyPatch()
    patch.setenv("PARFOCAL_STORES", str(folder / "stores"))
    changes = {
        **SMALL_RECIPE,
        "epochs": 2,
        "test_curve": True,
        "model": ["resnet20", "plain20"],
        "name": "<b>odd & name</b>",
    }
    parfocal.train(draw_cells(folder / "cells"), out=folder / "runs", **changes)
    patch.undo()
    return folder / "runs"


def test_the_page_loads_nothing_from_a_server(runs: Path) -> None:
    path = parfocal.compare(runs).report_path
    assert path is not None
    page = path.read_text(encoding="utf-8")
    links = _LinkCollector()
    links.feed(page)
    assert links.urls
    assert all(url.startswith(("data:image/svg+xml;base64,", "data:image/jpeg;base64,", "#")) for url in links.urls)
    assert {url[1:] for url in links.urls if url[0] == "#"} <= links.anchors
    assert links.images_without_alt == 0
    assert not re.search(r"url\(|@import|<script|<link", page)


def _set_valid_accuracy(runs: Path, folder: Path, accuracies: tuple[float, float], *alarms: dict[str, Any]) -> Path:
    """Return a copy of two runs with these validation accuracies, and the alarms in the metrics of the first."""
    shutil.copytree(runs, folder)
    for run, accuracy, raised in zip(open_runs([folder]), accuracies, (alarms, ()), strict=True):
        metrics = run.read_metrics()
        valid = {**metrics["valid"], "accuracy": accuracy}
        run.write_metrics({**metrics, "valid": valid, "alarms": list(raised), "best_epoch": 2})
    return folder


def test_it_names_the_best_run_unless_all_are_equal_or_it_learned_nothing(runs: Path, tmp_path: Path) -> None:
    def read_title(name: str, accuracies: tuple[float, float], *alarms: dict[str, Any]) -> str:
        page = read_report(_set_valid_accuracy(runs, tmp_path / name, accuracies, *alarms))
        assert ('<tr class="best">' in page) == ("selected from" in page)
        return page.partition("<h1>")[2].partition("</h1>")[0]

    first = open_runs([runs])[0].name
    assert read_title("better", (0.9, 0.6)).startswith(f"{first}, selected from 2 runs: accuracy 0.")
    assert read_title("equal", (0.5, 0.5)) == (
        "None of the 2 runs is the best: all have the same accuracy on validation"
    )
    alarm = {"code": "collapse", "since": 1, "until": 2, "text": "Epochs 1 to 2: all are 'blast'."}
    assert read_title("collapsed", (0.9, 0.6), alarm).startswith(f"{first} learned nothing")
    assert "selected from 2 runs" in read_title("later", (0.9, 0.6), {**alarm, "since": 3, "until": 3})


def test_it_says_where_the_temperature_made_the_calibration_on_test_worse(runs: Path, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(open_runs([runs])[0].folder, tmp_path / "one")))
    metrics = run.read_metrics()
    for change, is_worse in ((0.1, True), (-0.1, False)):
        calibration = {**metrics["test"]["calibration"], "loss": metrics["test"]["loss"] + change}
        run.write_metrics({**metrics, "test": {**metrics["test"], "calibration": calibration}})
        assert (
            f"The temperature of {run.name} made the calibration on test worse" in read_report(run.folder)
        ) == is_worse


def test_it_names_the_majority_class_baseline(runs: Path) -> None:
    page = read_report(runs)
    assert "Always predicting the largest class would score 50.0% accuracy." in page
    assert "Test split: not used for any choice" in page
    assert "&lt;b&gt;odd &amp; name&lt;/b&gt;" in page
    assert "<b>odd" not in page


def test_it_opens_with_the_answer(runs: Path) -> None:
    header = read_report(runs).partition("<header>")[2].partition("</header>")[0]
    best = find_best_run(open_runs([runs])).name
    assert re.search(rf"<h1>.*{best}.*</h1>", header)
    assert re.search(r"<strong>.*[01]\.\d{3}", header)
    assert "Always predicting the largest class would score 50.0% accuracy." in header
    assert "significance not tested (fewer than 40 patients)" in header


def test_with_too_few_patients_it_describes_no_intervals_and_no_bands(runs: Path) -> None:
    page = read_report(runs)
    assert "Too few patients for confidence intervals" in page
    for phrase in ("Below each metric", "The bands contain", "the same bootstrap samples"):
        assert phrase not in page
    comparison = compare_runs([runs])
    with redirect_stdout(io.StringIO()) as output:
        print_differences(comparison)
    assert "bootstrapped over" not in output.getvalue()
    assert "not the randomness of training" in output.getvalue()


def test_the_table_of_other_questions_names_only_what_it_contains(runs: Path, tmp_path: Path) -> None:
    assert "<caption>Whole patients, on test</caption>" in read_report(runs)
    run = Run(Path(shutil.copytree(open_runs([runs])[0].folder, tmp_path / "one")))
    metrics = run.read_metrics()
    patients = metrics["test"]["by_group"]["mean"]
    run.write_metrics({**metrics, "test": {**metrics["test"], "referable": patients}})
    assert "<caption>Whole patients and referable grades, on test</caption>" in read_report(run.folder)


def test_an_alarm_that_ended_before_the_best_epoch_is_not_at_the_top(runs: Path, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(open_runs([runs])[0].folder, tmp_path / "one")))
    for best_epoch, is_at_top in ((2, False), (1, True)):
        alarm = {"code": "collapse", "since": 1, "until": 1, "text": "Epoch 1: all are 'blast'."}
        run.write_metrics({**run.read_metrics(), "alarms": [alarm], "best_epoch": best_epoch})
        page = read_report(run.folder)
        assert ('id="alarms"' in page) == is_at_top
        assert ("Alarms that ended before the best epoch" in page) != is_at_top
        assert page.count("Epoch 1: all are &#39;blast&#39;.") == 1


def test_it_names_the_test_time_augmentation_if_it_is_not_that_of_the_recipe(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs, tmp_path / "copy")
    plain_run, residual_run = open_runs([tmp_path / "copy"])
    assert ">TTA</th>" not in read_report(tmp_path / "copy")
    decision = Decision.load(residual_run.decision_path).with_fitted(FellowEyes(0.5))
    replace(decision, tta="d4").save(residual_run.decision_path)
    page = read_report(tmp_path / "copy")
    assert "The runs use different test-time augmentation (plain20: none, resnet20: d4)" in page
    assert page.count('<th scope="col" class="word">TTA</th>') == 2
    assert [page.count(f'<td class="word">{tta}</td><td>') for tta in ("none", "d4")] == [2, 2]
    assert "\nparfocal evaluate runs/rerun/resnet20 --tta d4 --fellow-eyes</code>" in page
    assert page.count("parfocal evaluate runs/rerun") == 1
    assert "Test-time augmentation: d4 (recipe: none)." in read_report(residual_run.folder)
    print_results([plain_run, residual_run])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[4] for line in lines[:3]] == ["images", "none", "none"]
    assert "different test-time augmentation" in lines[-2]


def test_accuracy_and_kappa_are_shown_under_each_decision_rule(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "resnet20", tmp_path / "resnet20")
    run = Run(tmp_path / "resnet20")
    config = load_recipe(None, ordered=True).evaluation
    truth = np.arange(60) % 3
    decision = Decision((DecisionRule("mean", True, (0.5, 1.5)),))
    predictions = decision.decide(make_predictions(truth, np.eye(3)[truth] * 0.8 + 0.2 / 3))
    metrics = run.read_metrics()
    metrics["test"]["decisions"] = evaluate_split(predictions, config, decision)["decisions"]
    metrics["test"]["by_group"] = {"excluded": 3}
    run.write_metrics(metrics)
    page = read_report(run.folder)
    (row,) = re.findall(r"<tr[^>]*>.*rounded mean grade \(in force\).*</tr>", page)
    assert re.findall(r"<td[^>]*>(.*?)</td>", row)[1:] == ["1.000"] * 3
    assert page.count("mean grade, cut at thresholds</td>") == 1
    assert "Whole patients, referable disease" not in page
    assert "3 patients whose images have different true classes are excluded" in page
    print_decisions([run])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["resnet20", "test", "mean", "yes", "1.000", "1.000", "1.000"] in lines
    assert ["resnet20", "test", "thresholds", "1.000", "1.000", "1.000"] in lines


def test_the_accuracy_that_the_source_document_reports_is_shown(tmp_path: Path) -> None:
    changes = {**SMALL_RECIPE, "epochs": 1, "model": ["resnet18", "resnet20"], "batch_size": 16}
    trained = parfocal.train(
        draw_cells(tmp_path / "cells", 16, 8, 4), "leukemia-adam", out=tmp_path / "runs", **changes
    )
    page = read_report(trained)
    test, valid = (page.index(f"<caption>{split}") for split in ("Test", "Validation"))
    assert "Reported" not in page[valid : page.index("Reported: the accuracy")]
    rows = page[test:valid].split("<tr")
    assert '<th scope="col">Reported</th>' in rows[1]
    assert "<td>0.931</td>" in rows[2]
    assert "chosen on test, optimistic" in rows[3]
    assert "<td>–</td>" in rows[4]
    assert "resnet18 deviates from its source document in: images.size, training.batch_size, training.epochs" in page
    assert "resnet20 deviates from its source document" not in page


def test_a_reported_training_accuracy_is_beside_that_of_the_run(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(shutil.copytree(runs / "resnet20", tmp_path / "resnet18"))
    changes = {"name": "fundus-cifar10", "model": "resnet18", "init": "runs/cifar10"}
    load_recipe(run.recipe, **changes).save(run.folder / "recipe.yaml")
    history = run.read_history()
    best_epoch = run.read_metrics()["best_epoch"]
    accuracy = float(history["train_accuracy"][best_epoch - 1])
    run = Run(run.folder)
    table = read_report(run.folder).split("<caption>Training accuracy of the best epoch")[1]
    assert f"<td>{accuracy:.3f}</td><td>0.794</td>" in table
    print_results([run])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["resnet18", str(best_epoch), "train", f"{accuracy:.3f}", "(during", "training)", "0.794"] in lines


def test_where_the_test_split_has_no_labels_the_report_says_why_there_is_no_test_curve(
    runs: Path, tmp_path: Path
) -> None:
    message = "The test split has no labels, so there is no test curve."
    run = Run(shutil.copytree(runs / "resnet20", tmp_path / "resnet20"))
    assert message not in read_report(run.folder)
    environment = run.read_environment()
    del environment["data"]["counts"]["test"]
    run.write_environment(environment)
    assert message in read_report(run.folder)


def test_figures_are_written_as_svg_and_png_and_are_identical_each_time(runs: Path, tmp_path: Path) -> None:
    parfocal.compare(runs, tmp_path / "one" / "report.html")
    parfocal.compare(runs, tmp_path / "two" / "report.html")
    names = {path.name for path in (tmp_path / "one" / "figures").iterdir()}
    pairs = product(("resnet20", "plain20"), ("valid", "test"))
    stems = {
        "accuracy",
        "learning-curves",
        "error",
        "classes",
        "scores-1",
        "reliability-resnet20",
        "reliability-plain20",
    }
    stems |= {f"confusion-{run}-{split}" for run, split in pairs}
    assert {f"{stem}.{suffix}" for stem in stems for suffix in ("svg", "png")} <= names
    for name in (name for name in names if name.endswith(".svg")):
        svgs = [(tmp_path / folder / "figures" / name).read_bytes() for folder in ("one", "two")]
        assert svgs[0] == svgs[1]


def test_figures_of_another_comparison_in_the_folder_are_not_shown(runs: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures"
    figures.mkdir()
    for name in ("error", "predicted-shares-resnet20", "scores-0", "reliability-resnet20"):
        (figures / f"{name}.svg").write_text("<svg>of another comparison</svg>")
    parfocal.compare(runs / "resnet20", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert base64.b64encode(b"<svg>of another comparison</svg>").decode() not in page


def test_the_report_is_built_from_the_files_without_the_network(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*"):
        if path.name in ("model.safetensors", "last.ckpt", "report.html") or path.suffix in (".svg", ".png"):
            path.unlink()
    assert read_report(tmp_path / "copy")


def test_the_best_run_is_selected_on_validation_and_not_on_test(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "copy")
    opened = open_runs([tmp_path / "copy"])
    for run, valid, test in zip(opened, (0.6, 0.7), (0.9, 0.1), strict=True):
        metrics = run.read_metrics()
        metrics["valid"]["accuracy"], metrics["test"]["accuracy"] = valid, test
        run.write_metrics(metrics)
    assert find_best_run(opened) == opened[1]


def test_runs_that_cannot_be_compared_are_an_error(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match="resnet20 is named twice"):
        parfocal.compare([runs / "resnet20", runs / "resnet20"])
    shutil.copytree(runs, tmp_path / "copy")
    (tmp_path / "copy" / "plain20" / "metrics.json").unlink()
    with pytest.raises(ParfocalError, match=r"plain20 has no metrics\.json: the run has not finished"):
        parfocal.compare(tmp_path / "copy")
    other = Run(tmp_path / "copy" / "resnet20")
    environment = other.read_environment()
    environment["data"]["classes"] = ["cat", "dog"]
    other.write_environment(environment)
    with pytest.raises(ParfocalError, match="The runs have different classes"):
        parfocal.compare([other.folder, runs / "plain20"])


def test_names_cannot_add_markup_to_a_page_or_a_notebook(runs: Path, tmp_path: Path) -> None:
    run = make_hostile_run(runs / "resnet20", tmp_path / "runs")
    comparison = parfocal.compare([run], tmp_path / "report.html")
    live = write_live_page([run], tmp_path / "live.html").read_text(encoding="utf-8")
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    for page in (report, live):
        (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="(.+?)">', page)
        assert html.unescape(policy).startswith("default-src 'none';")
    for text in (report, live, comparison._repr_html_(), run._repr_html_()):
        assert html.escape(RUN_NAME) in text
        assert not re.search(r"<script|<b>|<img src=x", text)
    assert html.escape(CLASS_NAME) in report
