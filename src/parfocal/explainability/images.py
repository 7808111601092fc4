"""Load the images of a split as the network sees them at evaluation, from the Store if it exists or from the files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parfocal.data.augment import eval_views
from parfocal.data.decode import Pixels, prepare_image
from parfocal.data.parallel import catch_unreadable, map_ordered
from parfocal.data.store import find_store
from parfocal.data.table import Table
from parfocal.data.warp import render_one
from parfocal.errors import ParfocalError, UsageError, did_you_mean, join_limited
from parfocal.evaluation.locate import locate_table
from parfocal.run import Run


@dataclass(frozen=True)
class EvalImages:
    """Images as the network sees them at evaluation, without test-time augmentation.

    `pixels` is (images, side, side, 3) uint8. `ids`, `paths` and `truth` (-1 if unknown) have an entry per image.
    `unreadable` maps the id of each image that cannot be read to the reason.
    """

    pixels: Pixels
    ids: tuple[str, ...]
    paths: tuple[Path, ...]
    truth: tuple[int, ...]
    unreadable: dict[str, str]


def load_eval_images(
    run: Run, split: str, ids: Sequence[str] | None = None, *, max_images: int | None = None
) -> EvalImages:
    """Load the images with these ids, in their order, or all images of a split.

    With `max_images`, load at most that many, evenly spaced over the split. Prepared pixels are taken from the Store
    if it exists; a Store is never built.
    """
    table = locate_table(run)
    paths = _find_paths(run, table, split, ids)
    if max_images is not None:
        step = max(1, -(-len(paths) // max_images))
        paths = dict(list(paths.items())[::step])
    config = run.recipe.images
    views = eval_views(1, config.size, run.recipe.views)
    prepared: dict[str, Pixels | str] = {}
    store = find_store(table, config)
    if store is None:

        def read(path: Path) -> Pixels:
            return render_one(prepare_image(path, config)[0], views, 0)

        images = map_ordered(list(paths.values()), catch_unreadable(read), "Reading")
        prepared.update(zip(paths, images, strict=True))
    else:
        errors = store.index["error"]
        row_of = {path: row for row, path in enumerate(store.index["path"])}
        for image_id, path in paths.items():
            row = row_of[str(path)]
            prepared[image_id] = errors.iloc[row] or render_one(np.asarray(store.pixels[row]), views, 0)
    readable = {image_id: pixels for image_id, pixels in prepared.items() if not isinstance(pixels, str)}
    rows = table.get_rows(split)
    truth = dict(zip(rows["id"], rows["label"], strict=True))
    side = run.recipe.views.crop_size
    return EvalImages(
        pixels=np.stack(list(readable.values())) if readable else np.empty((0, side, side, 3), np.uint8),
        ids=tuple(readable),
        paths=tuple(paths[image_id] for image_id in readable),
        truth=tuple(int(truth[image_id]) for image_id in readable),
        unreadable={image_id: reason for image_id, reason in prepared.items() if isinstance(reason, str)},
    )


def locate_images(run: Run, split: str, ids: Sequence[str] | None = None) -> dict[str, Path]:
    """Return the file of each of these ids of a run's split, in their order, or of all images of the split."""
    return _find_paths(run, locate_table(run), split, ids)


def _find_paths(run: Run, table: Table, split: str, ids: Sequence[str] | None) -> dict[str, Path]:
    if split not in table.splits:
        raise UsageError(f"{run.name} has no split {split!r}. {did_you_mean(split, table.splits)}")
    rows = table.get_rows(split)
    paths = {image_id: Path(path) for image_id, path in zip(rows["id"], rows["path"], strict=True)}
    if ids is None:
        return paths
    missing = [image_id for image_id in ids if image_id not in paths]
    if missing:
        raise ParfocalError(
            f"{run.name} has no such ids in {split}: {join_limited(missing)}. They look like {next(iter(paths))}."
        )
    return {image_id: paths[image_id] for image_id in ids}
