"""Predictions of whole groups: what all images of a patient say together."""

from dataclasses import replace

import numpy as np

from parfocal.evaluation.predictions import Predictions

# So little of the mean probabilities decides between equal votes and changes no figure that is read.
_TIE_BREAK_WEIGHT = 1e-9


def aggregate_by_group(predictions: Predictions, ordered: bool) -> tuple[dict[str, Predictions], int]:
    """Return labelled predictions for groups, by how images were joined, and how many groups were left out.

    Of classes in order a group is what its worst image is: `worst` holds the chance that the highest grade of its
    images is each grade, taking images as independent. Of others, groups whose images differ in truth are left out;
    `mean` holds the mean probabilities of a group's images, `vote` the share of its images answered with each class;
    where most images are answered with two classes equally often, the mean probabilities decide between them.
    """
    names, group = np.unique(np.array(predictions.groups, dtype=str), return_inverse=True)
    highest = np.full(len(names), -1)
    np.maximum.at(highest, group, predictions.truth)
    if ordered:
        within = np.clip(np.cumsum(predictions.probabilities, axis=1), np.finfo(np.float64).tiny, 1)
        all_within = np.exp(_sum_by_group(np.log(within), group, len(names)))
        all_within[:, -1] = 1
        return {
            "worst": _build_group_predictions(predictions, names, highest, np.diff(all_within, axis=1, prepend=0))
        }, 0
    lowest = np.full(len(names), len(predictions.classes))
    np.minimum.at(lowest, group, predictions.truth)
    one, images = highest == lowest, np.bincount(group)[:, None]
    votes = np.eye(len(predictions.classes))[predictions.predicted]
    mean, vote = (_sum_by_group(values, group, len(names)) / images for values in (predictions.probabilities, votes))
    tied = (vote == vote.max(axis=1, keepdims=True)).sum(axis=1) > 1
    vote[tied] += _TIE_BREAK_WEIGHT * (mean[tied] - vote[tied])
    joined = {
        way: _build_group_predictions(predictions, names[one], highest[one], values[one])
        for way, values in (("mean", mean), ("vote", vote))
    }
    return joined, int((~one).sum())


def _sum_by_group(values: np.ndarray, group: np.ndarray, n_groups: int) -> np.ndarray:
    sums = np.zeros((n_groups, values.shape[1]))
    np.add.at(sums, group, values)
    return sums


def _build_group_predictions(
    predictions: Predictions, group_names: np.ndarray, truth: np.ndarray, probabilities: np.ndarray
) -> Predictions:
    own = tuple(map(str, group_names))
    return replace(predictions, ids=own, groups=own, truth=truth, probabilities=probabilities)
