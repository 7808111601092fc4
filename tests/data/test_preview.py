"""The preview shows images of every class, as in evaluation and as training augments them."""

from pathlib import Path

import parfocal
from parfocal.data.layouts import read
from parfocal.data.preview import draw_preview
from parfocal.data.store import prepare
from parfocal.recipe import Recipe
from tests.cells import SMALL_RECIPE


def test_it_shows_every_class_in_evaluation_and_in_three_epochs(cells: Path, small_recipe: Recipe) -> None:
    table = read(cells)
    figure = draw_preview(table, prepare(table, small_recipe.images), small_recipe)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["normal"] * 4 + ["blast"] * 4
    assert [label.get_text() for label in axes.get_yticklabels()] == ["evaluation", "epoch 1", "epoch 2", "epoch 3"]
    canvas = axes.images[0].get_array()
    assert canvas is not None
    assert canvas.shape == (4 * 36, 8 * 36, 3)
    assert not (canvas[:32, :32] == canvas[36:68, :32]).all()


def test_every_run_has_a_preview(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1})
    assert (run.folder / "views.png").read_bytes().startswith(b"\x89PNG")
