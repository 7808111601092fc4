"""Figures show what they are made of, and hold where a class is absent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

import parfocal
from parfocal.recipe import load_recipe
from parfocal.report.class_figures import draw_confusion_matrix
from parfocal.report.figures import assign_colors, draw_accuracy, draw_error, draw_learning_curves, save_figure
from parfocal.run import Run
from tests.cells import SMALL_RECIPE
from tests.report.read_report import read_report

METRICS = {"confusion": [[8, 2, 0], [0, 0, 0], [1, 0, 3]], "classes": ["no DR", "mild", "moderate"]}


def _read_texts(figure: Figure) -> list[list[str]]:
    return [[text.get_text() for text in axes.texts] for axes in figure.axes]


def test_a_confusion_matrix_shows_counts_and_shares_and_an_absent_class_as_a_dash() -> None:
    counts, shares = _read_texts(draw_confusion_matrix("run, valid", METRICS))
    assert counts == ["8", "2", "0", "0", "0", "0", "1", "0", "3"]
    assert shares == ["80.0%", "20.0%", "0.0%", "–", "–", "–", "25.0%", "0.0%", "75.0%"]


def test_a_confusion_matrix_names_its_axes_and_classes() -> None:
    for axes in draw_confusion_matrix("run, valid", METRICS).axes:
        assert (axes.get_ylabel(), axes.get_xlabel()) == ("Truth", "Prediction")
        assert [label.get_text() for label in axes.get_yticklabels()] == METRICS["classes"]


def test_a_name_with_dollar_signs_is_no_formula(tmp_path: Path) -> None:
    judged = {"confusion": [[1, 0], [0, 1]], "classes": ["p$_$", "$^$"]}
    save_figure(draw_confusion_matrix("a$_$b, valid", judged), tmp_path, "odd")
    assert "a$_$b" in (tmp_path / "odd.svg").read_text()
    assert "p$_$" in (tmp_path / "odd.svg").read_text()


@pytest.fixture
def runs(cells: Path, tmp_path: Path) -> Sequence[Run]:
    changes = {**SMALL_RECIPE, "model": ["resnet20", "plain20"], "epochs": 2, "test_curve": True}
    return parfocal.train(cells, out=tmp_path / "runs", **changes)


@pytest.mark.filterwarnings("error:constrained_layout not applied")
def test_a_very_long_name_leaves_the_axes_their_room(runs: Sequence[Run], tmp_path: Path) -> None:
    name = "resnet20-started-from-" + "a-folder-with-many-words-" * 4 + "w" * 60
    run = Run(runs[0].folder.rename(tmp_path / name))
    for figure in (draw_accuracy([run]), draw_learning_curves([run]), draw_error([run, runs[1]])):
        save_figure(figure, tmp_path, "figure")
        assert all(axes.get_position().width * figure.get_figwidth() > 2 for axes in figure.axes)
        words = [text.get_text() for text in figure.legends[0].get_texts()]
        assert name in [word.replace("\n", "") for word in words]


def test_the_accuracy_figure_has_each_runs_curves(runs: Sequence[Run]) -> None:
    figure = draw_accuracy(runs)
    drawn = [list(line.get_ydata()) for line in figure.axes[0].lines]  # type: ignore[arg-type]
    for run in runs:
        for phase in ("train", "valid", "test"):
            assert run.read_history()[f"{phase}_accuracy"].tolist() in drawn
    assert figure.axes[0].get_xlabel() == "Epoch"
    errors = draw_error(runs)
    assert [axes.get_title() for axes in errors.axes] == ["Training error", "Test error"]
    for axes, phase in zip(errors.axes, ("train", "test"), strict=True):
        for run, line in zip(runs, axes.lines, strict=True):
            assert list(line.get_ydata()) == (1 - run.read_history()[f"{phase}_accuracy"]).tolist()  # type: ignore[arg-type]
            assert line.get_linestyle() == ("--" if run.name == "plain20" else "-")
    assert "without shortcuts" in read_report([run.folder for run in runs])
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"resnet20", "plain20", "validation", "test (chooses nothing)", "majority class"} <= set(words)


def _make_run(folder: Path, **values: Any) -> Run:
    load_recipe(None, **values).save(folder / "recipe.yaml")
    return Run(folder)


def test_a_network_keeps_its_colour_whatever_stands_beside_it(tmp_path: Path) -> None:
    three = [_make_run(tmp_path / model, model=model) for model in ("resnet18", "resnet50", "resnet152")]
    assert assign_colors(three)[1:] == assign_colors(three[1:])
    same = [_make_run(tmp_path / f"seed{seed}", model="resnet18", seed=seed) for seed in range(3)]
    assert len(set(assign_colors(same))) == 3


def test_where_runs_are_more_than_colours_seeds_share_theirs(tmp_path: Path) -> None:
    kinds = [(rate, seed) for rate in (0.1, 0.2) for seed in range(4)]
    runs = [_make_run(tmp_path / f"rate{rate}-seed{seed}", learning_rate=rate, seed=seed) for rate, seed in kinds]
    drawn = assign_colors(runs)
    assert len(set(drawn[:4])) == len(set(drawn[4:])) == 1
    assert drawn[0] != drawn[4]


def test_what_chose_the_epochs_is_drawn_where_it_is_another_figure(runs: Sequence[Run]) -> None:
    assert len(draw_learning_curves(runs).axes) == 2
    for run in runs:
        load_recipe(run.recipe, select="balanced_accuracy").save(run.folder / "recipe.yaml")
    middle = draw_learning_curves([Run(run.folder) for run in runs]).axes[1]
    assert middle.get_ylabel() == "Balanced accuracy on validation"
    drawn = [list(line.get_ydata()) for line in middle.lines]  # type: ignore[arg-type]
    assert all(run.read_history()["valid_balanced_accuracy"].tolist() in drawn for run in runs)


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_saving_writes_both_forms(tmp_path: Path, suffix: str) -> None:
    save_figure(draw_confusion_matrix("run, valid", METRICS), tmp_path / "figures", "confusion")
    assert (tmp_path / "figures" / f"confusion.{suffix}").stat().st_size > 1000
