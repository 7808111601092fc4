"""Figures show the values they are drawn from, also if a class is absent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

import parfocal
from parfocal.recipe import load_recipe
from parfocal.report.batch_sizes import draw_batch_sizes
from parfocal.report.figure_style import assign_colors, save_figure
from parfocal.report.learning_curves import draw_accuracy, draw_error, draw_learning_curves
from parfocal.report.result_figures import draw_confusion_matrix
from parfocal.run import Run
from tests.cells import SMALL_RECIPE
from tests.report.read_report import read_report

METRICS = {"confusion": [[8, 2, 0], [0, 0, 0], [1, 0, 3]], "classes": ["no DR", "mild", "moderate"]}


def _read_texts(figure: Figure) -> list[list[str]]:
    return [[text.get_text() for text in axes.texts] for axes in figure.axes]


def test_a_confusion_matrix_shows_counts_and_shares_and_a_dash_for_an_absent_class() -> None:
    counts, shares = _read_texts(draw_confusion_matrix("run, valid", METRICS))
    assert counts == ["8", "2", "0", "0", "0", "0", "1", "0", "3"]
    assert shares == ["80.0%", "20.0%", "0.0%", "–", "–", "–", "25.0%", "0.0%", "75.0%"]


def test_a_confusion_matrix_names_its_axes_and_classes() -> None:
    for axes in draw_confusion_matrix("run, valid", METRICS).axes:
        assert (axes.get_ylabel(), axes.get_xlabel()) == ("True class", "Predicted class")
        assert [label.get_text() for label in axes.get_yticklabels()] == METRICS["classes"]


def test_a_name_with_dollar_signs_is_not_read_as_a_formula(tmp_path: Path) -> None:
    metrics = {"confusion": [[1, 0], [0, 1]], "classes": ["p$_$", "$^$"]}
    save_figure(draw_confusion_matrix("a$_$b, valid", metrics), tmp_path, "odd")
    assert "a$_$b" in (tmp_path / "odd.svg").read_text()
    assert "p$_$" in (tmp_path / "odd.svg").read_text()


@pytest.fixture
def runs(cells: Path, tmp_path: Path) -> Sequence[Run]:
    changes = {**SMALL_RECIPE, "model": ["resnet20", "plain20"], "epochs": 2, "test_curve": True}
    return parfocal.train(cells, out=tmp_path / "runs", **changes)


@pytest.mark.filterwarnings("error:constrained_layout not applied")
def test_a_very_long_name_does_not_shrink_the_axes(runs: Sequence[Run], tmp_path: Path) -> None:
    name = "resnet20-started-from-" + "a-folder-with-many-words-" * 4 + "w" * 60
    run = Run(runs[0].folder.rename(tmp_path / name))
    for figure in (draw_accuracy([run]), draw_learning_curves([run]), draw_error([run, runs[1]])):
        save_figure(figure, tmp_path, "figure")
        assert all(axes.get_position().width * figure.get_figwidth() > 2 for axes in figure.axes)
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert name in [label.replace("\n", "") for label in labels]


def test_the_accuracy_figure_has_the_curves_of_each_run(runs: Sequence[Run]) -> None:
    figure = draw_accuracy(runs)
    curves = [list(line.get_ydata()) for line in figure.axes[0].lines]  # type: ignore[arg-type]
    for run in runs:
        for split in ("train", "valid", "test"):
            assert run.read_history()[f"{split}_accuracy"].tolist() in curves
    assert figure.axes[0].get_xlabel() == "Epoch"
    error_figure = draw_error(runs)
    assert [axes.get_title() for axes in error_figure.axes] == ["Training error", "Test error"]
    for axes, split in zip(error_figure.axes, ("train", "test"), strict=True):
        for run, line in zip(runs, axes.lines, strict=True):
            assert list(line.get_ydata()) == (1 - run.read_history()[f"{split}_accuracy"]).tolist()  # type: ignore[arg-type]
            assert line.get_linestyle() == ("--" if run.name == "plain20" else "-")
    assert "without shortcuts" in read_report([run.folder for run in runs])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"resnet20", "plain20", "validation", "test (not used to select)", "majority class"} <= set(labels)


def test_figures_of_one_epoch_have_dots_and_whole_epochs(runs: Sequence[Run]) -> None:
    for run in runs:
        write_epochs(run, run.read_history().iloc[:1])
    figures = draw_error(runs), draw_accuracy(runs)
    for axes in (axes for figure in figures for axes in figure.axes):
        curves = [line for line in axes.lines if len(line.get_xdata()) == 1]  # type: ignore[arg-type]
        assert curves
        assert all(line.get_marker() in (".", "o") for line in curves)
        ticks = axes.get_xticks()
        low, high = axes.get_xlim()
        assert [tick for tick in ticks if low <= tick <= high] == [1]


def write_epochs(run: Run, history: Any) -> None:
    """Replace the epochs of a run, whose best epoch must be among them."""
    run.write_history(history.to_dict("records"))
    metrics = run.read_metrics()
    run.write_metrics({**metrics, "best_epoch": 1})


def test_the_accuracy_by_batch_size_has_a_line_for_each_scaling_of_the_learning_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Run] = []
    metrics: dict[str, Any] = {}
    for scaling, accuracy in (("none", 0.5), ("linear", 0.7)):
        for batch_size in (8, 32, 128):
            for seed in range(2):
                folder = tmp_path / f"{scaling}-{batch_size}-{seed}"
                run = _make_run(folder, batch_size=batch_size, lr_scaling=scaling, seed=seed)
                metrics[run.name] = {"test": {"accuracy": accuracy + batch_size / 1000 + seed / 100}}
                runs.append(run)
    monkeypatch.setattr("parfocal.report.batch_sizes.read_labeled_metrics", lambda run: metrics[run.name])
    figure = draw_batch_sizes(runs, "test")
    assert figure is not None
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines if not str(line.get_label()).startswith("_")}
    assert set(lines) == {"learning rate not scaled", "linear scaling of the learning rate"}
    constant = lines["learning rate not scaled"]
    assert list(constant.get_xdata()) == [8, 32, 128]  # type: ignore[arg-type]
    assert list(constant.get_ydata()) == pytest.approx([0.513, 0.537, 0.633])  # type: ignore[arg-type]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["8", "32", "128"]


def test_networks_with_batch_sizes_of_their_own_have_no_figure_of_batch_sizes(tmp_path: Path) -> None:
    sizes = {"resnet18": 32, "resnet50": 16, "resnet152": 8}
    runs = [_make_run(tmp_path / model, model=model, batch_size=size) for model, size in sizes.items()]
    assert draw_batch_sizes(runs, "test") is None


def _make_run(folder: Path, **values: Any) -> Run:
    load_recipe(None, **values).save(folder / "recipe.yaml")
    return Run(folder)


def test_a_network_has_the_same_color_in_every_comparison(tmp_path: Path) -> None:
    three = [_make_run(tmp_path / model, model=model) for model in ("resnet18", "resnet50", "resnet152")]
    assert assign_colors(three)[1:] == assign_colors(three[1:])
    same = [_make_run(tmp_path / f"seed{seed}", model="resnet18", seed=seed) for seed in range(3)]
    assert len(set(assign_colors(same))) == 3


def test_if_there_are_more_runs_than_colors_seeds_share_a_color(tmp_path: Path) -> None:
    settings = [(rate, seed) for rate in (0.1, 0.2) for seed in range(4)]
    runs = [_make_run(tmp_path / f"rate{rate}-seed{seed}", learning_rate=rate, seed=seed) for rate, seed in settings]
    colors = assign_colors(runs)
    assert len(set(colors[:4])) == len(set(colors[4:])) == 1
    assert colors[0] != colors[4]


def test_the_metric_that_selects_the_epoch_is_drawn_if_it_is_neither_loss_nor_accuracy(runs: Sequence[Run]) -> None:
    assert len(draw_learning_curves(runs).axes) == 2
    for run in runs:
        load_recipe(run.recipe, select="balanced_accuracy").save(run.folder / "recipe.yaml")
    middle = draw_learning_curves([Run(run.folder) for run in runs]).axes[1]
    assert middle.get_ylabel() == "Balanced accuracy on validation"
    curves = [list(line.get_ydata()) for line in middle.lines]  # type: ignore[arg-type]
    assert all(run.read_history()["valid_balanced_accuracy"].tolist() in curves for run in runs)


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_figure_is_saved_as_svg_and_png(tmp_path: Path, suffix: str) -> None:
    save_figure(draw_confusion_matrix("run, valid", METRICS), tmp_path / "figures", "confusion")
    assert (tmp_path / "figures" / f"confusion.{suffix}").stat().st_size > 1000
