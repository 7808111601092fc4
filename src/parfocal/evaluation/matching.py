"""Which images predictions are of: brought into one order, and joined from the folds of a cross-validation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from parfocal.errors import ParfocalError, listing
from parfocal.evaluation.predictions import Predictions


def occurrences(predictions: Predictions) -> list[tuple[str, int]]:
    """Return each image's id, and how many rows before it have the same: rows that are doubled stay two."""
    seen: Counter[str] = Counter()
    found: list[tuple[str, int]] = []
    for one in predictions.ids:
        found.append((one, seen[one]))
        seen[one] += 1
    return found


def aligned(predictions: Predictions, like: Predictions) -> Predictions:
    """Return predictions of the same images in the order, and with the groups, of others."""
    place = {image: number for number, image in enumerate(occurrences(predictions))}
    rows = [place[image] for image in occurrences(like)]
    return replace(
        predictions,
        ids=like.ids,
        groups=like.groups,
        truth=predictions.truth[rows],
        probabilities=predictions.probabilities[rows],
    )


def different_images(names: Sequence[str], said: Sequence[Predictions]) -> str:
    """Say which predictions are of other images, or judged by another truth, than the first; nothing where none is."""
    first = dict(zip(occurrences(said[0]), said[0].truth, strict=True))
    for name, one in zip(names[1:], said[1:], strict=True):
        if one.classes != said[0].classes:
            raise ParfocalError(
                f"{names[0]} tells {', '.join(said[0].classes)} apart, {name} {', '.join(one.classes)}."
            )
        own = dict(zip(occurrences(one), one.truth, strict=True))
        odd = sorted({image for image, _ in own.keys() ^ first.keys()})
        if odd:
            return f"{names[0]} and {name} were judged on different images, such as {listing(odd, 2)}"
        changed = [image for (image, number), truth in own.items() if first[image, number] != truth]
        if changed:
            return f"{names[0]} and {name} were judged by different labels, of {listing(changed, 2)}"
    return ""


def joined(name: str, family: Mapping[str, Predictions]) -> list[tuple[str, Predictions]]:
    """Return the predictions of a family's runs under names for them, those of runs that share no image as one.

    The runs of a cross-validation share none. Where all runs come together, they are called as the family is.
    """
    sets: list[dict[str, Predictions]] = []
    for run, one in family.items():
        own = next((several for several in sets if all(_apart(one, other) for other in several.values())), None)
        if own is None:
            sets.append({run: one})
        else:
            own[run] = one
    if len(sets) == 1 and len(family) > 1:
        return [(name, _as_one(list(family.values())))]
    return [(listing(several, 2), _as_one(list(several.values()))) for several in sets]


def _apart(one: Predictions, other: Predictions) -> bool:
    return one.classes == other.classes and set(one.ids).isdisjoint(other.ids)


def _as_one(several: Sequence[Predictions]) -> Predictions:
    return replace(
        several[0],
        ids=tuple(image for one in several for image in one.ids),
        groups=tuple(group for one in several for group in one.groups),
        truth=np.concatenate([one.truth for one in several]),
        probabilities=np.concatenate([one.probabilities for one in several]),
    )
