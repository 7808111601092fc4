"""A preview of what the network sees: the same images in evaluation and as three epochs of training augment them."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from parfocal.data.augment import draw_views, eval_views
from parfocal.data.custom_transform import CustomTransform
from parfocal.data.loader import draw_epoch_order
from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.data.warp import render_one
from parfocal.io import atomic_write
from parfocal.recipe import Recipe

_N_IMAGES = 8
_N_EPOCHS = 3
_GAP = 4


def draw_preview(table: Table, store: Store, recipe: Recipe, custom_transform: CustomTransform | None = None) -> Figure:
    """Draw images of the train split, class by class: a row for evaluation and a row for each of three epochs."""
    labels = table.get_labels("train")
    # As many images of each class as possible.
    order = draw_epoch_order(labels, Recipe().training, seed=0, epoch=0)
    turn = pd.Series(order).groupby(labels[order]).cumcount()
    selected = order[np.argsort(turn, kind="stable")][:_N_IMAGES]
    rows = sorted(selected.tolist(), key=lambda row: (labels[row], row))
    indices = table.find_positions_in(store.index)[table.get_positions("train")]
    size = recipe.images.size
    tile = recipe.views.crop_size + _GAP
    lines = {"evaluation": eval_views(len(indices), size, recipe.views)}
    for epoch in range(_N_EPOCHS):
        lines[f"epoch {epoch + 1}"] = draw_views(
            len(indices), size, recipe.views, seed=recipe.seed, epoch=epoch, custom_transform=custom_transform
        )
    canvas = np.full((tile * len(lines), tile * len(rows), 3), 255, np.uint8)
    for line, views in enumerate(lines.values()):
        for column, row in enumerate(rows):
            top = line * tile
            left = column * tile
            image = render_one(store.pixels[indices[row]], views, row)
            canvas[top : top + views.crop_size, left : left + views.crop_size] = image
    figure = Figure(figsize=(1.5 * len(rows) + 1.2, 1.5 * len(lines) + 0.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(canvas)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.set_xticks(tile * (np.arange(len(rows)) + 0.5), [table.classes[labels[row]] for row in rows])
    axes.set_yticks(tile * (np.arange(len(lines)) + 0.5), list(lines))
    return figure


def write_preview(
    path: Path, table: Table, store: Store, recipe: Recipe, custom_transform: CustomTransform | None = None
) -> None:
    """Write the preview as PNG."""
    # A class name with two dollar signs is not a formula.
    with atomic_write(path) as temporary, mpl.rc_context({"text.parse_math": False}):
        figure = draw_preview(table, store, recipe, custom_transform)
        # Compute the layout once; `savefig` would compute it twice.
        if engine := figure.get_layout_engine():
            engine.execute(figure)
        figure.set_layout_engine(None)
        figure.savefig(temporary, format="png", dpi=110)
