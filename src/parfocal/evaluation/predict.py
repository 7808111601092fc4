"""Reading new images with a trained network: any number of files in, one row each out, in constant memory."""

import csv
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from parfocal.data.decode import Pixels, Unreadable, prepare_image
from parfocal.data.layouts.places import IMAGE_SUFFIXES, images_below
from parfocal.data.layouts.sheets import sheet
from parfocal.data.passes import in_order
from parfocal.data.views import looks, seen, still
from parfocal.errors import ParfocalError
from parfocal.evaluation.inference import EVALUATION_BATCH, fabric_for, probabilities, ready
from parfocal.files import whole
from parfocal.model.classifier import Classifier
from parfocal.recipe import Recipe
from parfocal.run import open_runs


@dataclass
class Outcome:
    """What `predict` did: the file it wrote, how many rows it holds, and the images it could not read, with reasons."""

    path: Path
    count: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)


def predict(run: Path | str, sources: Iterable[Path | str], out: Path | str) -> Outcome:
    """Predict image files, folders of them, or CSV files with a column `Path`, and write a CSV of probabilities.

    Columns are id, predicted and one probability for each class, rows in the order given. Images that cannot be read
    are left out of the file and listed in the outcome.
    """
    opened = open_runs([run])
    if len(opened) != 1:
        raise ParfocalError(
            f"{run} holds {len(opened)} runs. Name one: {', '.join(str(one.folder) for one in opened)}."
        )
    files = _files(sources)
    recipe = opened[0].recipe
    fabric = fabric_for(recipe.training.precision)
    classifier = ready(Classifier.load(opened[0].weights)).to(fabric.device)
    outcome = Outcome(Path(out))
    names = np.array(classifier.classes, dtype=object)
    with (
        whole(outcome.path) as beside,
        beside.open("w", newline="", encoding="utf-8") as file,
        closing(in_order(files, lambda one: (one[0], _seen(one[1], recipe)), "Predicting")) as looked_at,
    ):
        writer = csv.writer(file)
        writer.writerow(["id", "predicted", *(f"probability:{name}" for name in classifier.classes)])
        while chunk := list(islice(looked_at, EVALUATION_BATCH)):
            outcome.unreadable |= {one: reason for one, reason in chunk if isinstance(reason, str)}
            good = [(one, pictures) for one, pictures in chunk if not isinstance(pictures, str)]
            if good:
                pixels = torch.from_numpy(np.stack([pictures for _, pictures in good], axis=1))
                rows = np.mean([probabilities(fabric, classifier, [look]) for look in pixels], axis=0)
                for (one, _), row in zip(good, rows, strict=True):
                    writer.writerow([one, names[row.argmax()], *(f"{value:.9g}" for value in row)])
            outcome.count += len(good)
    return outcome


def _seen(path: Path, recipe: Recipe) -> Pixels | str:
    """Return the pixels the network sees of a file, one picture a look, or why there are none."""
    try:
        prepared, _ = prepare_image(path, recipe.images)
    except Unreadable as reason:
        return str(reason)
    views = (still(1, recipe.images.size, recipe.views, look) for look in looks(recipe.views))
    return np.stack([seen(prepared, one, 0) for one in views])


def _files(sources: Iterable[Path | str]) -> list[tuple[str, Path]]:
    """Return (id, path) of every image that the sources name."""
    found: list[tuple[str, Path]] = []
    for source in map(Path, sources):
        if source.is_dir():
            below = images_below(source)
            if not below:
                raise ParfocalError(f"{source} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
            found += [(str(path), path) for path in below]
        elif source.suffix.lower() == ".csv":
            found += [(one, source.parent / one) for one in sheet(source, ("Path",))["Path"]]
        else:
            found.append((str(source), source))
    return found
