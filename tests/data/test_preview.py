"""The mosaic shows every class, straight and as training looks at it."""

from pathlib import Path

import parfocal
from parfocal.data.layouts import read
from parfocal.data.preview import draw_preview
from parfocal.data.store import prepare
from parfocal.recipe import Recipe
from tests.cells import SMALL_RECIPE


def test_it_shows_every_class_in_evaluation_and_training(cells: Path, small_recipe: Recipe) -> None:
    table = read(cells)
    figure = draw_preview(table, prepare(table, small_recipe.images), small_recipe)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["normal"] * 4 + ["blast"] * 4
    assert [label.get_text() for label in axes.get_yticklabels()] == ["evaluation", "epoch 1", "epoch 2", "epoch 3"]
    tiles = axes.images[0].get_array()
    assert tiles is not None
    assert tiles.shape == (4 * 36, 8 * 36, 3)
    assert not (tiles[:32, :32] == tiles[36:68, :32]).all()


def test_every_run_has_one(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1})
    assert (run.folder / "views.png").read_bytes().startswith(b"\x89PNG")
