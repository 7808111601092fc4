"""A picture of what the network will see: the same images straight, and as training looks at them."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from parfocal.data.augment import draw_views, eval_views
from parfocal.data.loader import draw_epoch_order
from parfocal.data.render import render_one
from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.io import atomic_write
from parfocal.recipe import Recipe

_N_IMAGES = 8
_N_EPOCHS = 3
_GAP = 4


def draw_preview(table: Table, store: Store, recipe: Recipe) -> Figure:
    """Draw images of train, class by class, as evaluation looks at them and as three epochs of training do."""
    rows = _select_rows(table)
    places = store.get_positions(table)[table.get_positions("train")]
    size, count, side = recipe.images.size, len(places), recipe.views.crop_size + _GAP
    kinds = {"tta": eval_views(count, size, recipe.views)}
    for epoch in range(_N_EPOCHS):
        kinds[f"epoch {epoch + 1}"] = draw_views(count, size, recipe.views, seed=recipe.seed, epoch=epoch)
    tiles = np.full((side * len(kinds), side * len(rows), 3), 255, np.uint8)
    for line, views in enumerate(kinds.values()):
        for column, row in enumerate(rows):
            top, left = line * side, column * side
            out = tiles[top : top + views.crop_size, left : left + views.crop_size]
            out[:] = render_one(store.pixels[places[row]], views, row)
    figure = Figure(figsize=(1.5 * len(rows) + 1.2, 1.5 * len(kinds) + 0.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(tiles)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    labels = table.get_labels("train")
    axes.set_xticks(side * (np.arange(len(rows)) + 0.5), [table.classes[labels[row]] for row in rows])
    axes.set_yticks(side * (np.arange(len(kinds)) + 0.5), list(kinds))
    return figure


def write_preview(path: Path, table: Table, store: Store, recipe: Recipe) -> None:
    """Write the mosaic as PNG."""
    # A name with two dollar signs is no formula.
    with atomic_write(path) as beside, mpl.rc_context({"text.parse_math": False}):
        draw_preview(table, store, recipe).savefig(beside, format="png", dpi=110)


def _select_rows(table: Table) -> list[int]:
    """Return rows of train, the classes taking turns."""
    labels = table.get_labels("train")
    order = draw_epoch_order(labels, Recipe().training, seed=0, epoch=0)
    turn = np.zeros(len(order), dtype=int)
    for label in np.unique(labels):
        of_class = labels[order] == label
        turn[of_class] = np.arange(int(of_class.sum()))
    chosen = order[np.argsort(turn, kind="stable")][:_N_IMAGES]
    return sorted(chosen.tolist(), key=lambda row: (labels[row], row))
