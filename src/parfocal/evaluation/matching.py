"""Which images predictions are of: brought into one order, and joined from the folds of a cross-validation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from parfocal.errors import ParfocalError, join_limited
from parfocal.evaluation.predictions import Predictions


def number_duplicates(predictions: Predictions) -> list[tuple[str, int]]:
    """Return each image's id, and how many rows before it have the same: rows that are doubled stay two."""
    seen: Counter[str] = Counter()
    found: list[tuple[str, int]] = []
    for one in predictions.ids:
        found.append((one, seen[one]))
        seen[one] += 1
    return found


def align_predictions(predictions: Predictions, reference: Predictions) -> Predictions:
    """Return predictions of the same images in the order, and with the groups, of others."""
    place = {image: number for number, image in enumerate(number_duplicates(predictions))}
    rows = [place[image] for image in number_duplicates(reference)]
    return replace(
        predictions,
        ids=reference.ids,
        groups=reference.groups,
        truth=predictions.truth[rows],
        probabilities=predictions.probabilities[rows],
    )


def describe_mismatch(names: Sequence[str], predictions: Sequence[Predictions]) -> str:
    """Say which predictions are of other images, or judged by another truth, than the first; nothing where none is."""
    first = dict(zip(number_duplicates(predictions[0]), predictions[0].truth, strict=True))
    for name, one in zip(names[1:], predictions[1:], strict=True):
        if one.classes != predictions[0].classes:
            raise ParfocalError(
                f"{names[0]} tells {', '.join(predictions[0].classes)} apart, {name} {', '.join(one.classes)}."
            )
        own = dict(zip(number_duplicates(one), one.truth, strict=True))
        odd = sorted({image for image, _ in own.keys() ^ first.keys()})
        if odd:
            return f"{names[0]} and {name} were judged on different images, such as {join_limited(odd, 2)}"
        changed = [image for (image, number), truth in own.items() if first[image, number] != truth]
        if changed:
            return f"{names[0]} and {name} were judged by different labels, of {join_limited(changed, 2)}"
    return ""


def join_folds(family_name: str, predictions_by_run: Mapping[str, Predictions]) -> list[tuple[str, Predictions]]:
    """Return the predictions of a family's runs under names for them, those of runs that share no image as one.

    The runs of a cross-validation share none. Where all runs come together, they are called as the family is.
    """
    sets: list[dict[str, Predictions]] = []
    for run, one in predictions_by_run.items():
        own = next((several for several in sets if all(_are_disjoint(one, other) for other in several.values())), None)
        if own is None:
            sets.append({run: one})
        else:
            own[run] = one
    if len(sets) == 1 and len(predictions_by_run) > 1:
        return [(family_name, _concatenate(list(predictions_by_run.values())))]
    return [(join_limited(several, 2), _concatenate(list(several.values()))) for several in sets]


def _are_disjoint(first: Predictions, second: Predictions) -> bool:
    return first.classes == second.classes and set(first.ids).isdisjoint(second.ids)


def _concatenate(predictions: Sequence[Predictions]) -> Predictions:
    return replace(
        predictions[0],
        ids=tuple(image for one in predictions for image in one.ids),
        groups=tuple(group for one in predictions for group in one.groups),
        truth=np.concatenate([one.truth for one in predictions]),
        probabilities=np.concatenate([one.probabilities for one in predictions]),
    )
