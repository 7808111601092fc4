"""Patient-level predictions: all images of a group combined by mean probability, majority vote or worst grade."""

from dataclasses import replace

import numpy as np

from parfocal.evaluation.predictions import Predictions, index_groups

# Breaks ties between votes by mean probability, and is too small to change any printed digit.
_TIE_BREAK_WEIGHT = 1e-9


def aggregate_by_group(predictions: Predictions, ordered: bool) -> tuple[dict[str, Predictions], int]:
    """Return the predictions of groups by method of aggregation, and the number of groups that were excluded.

    If the classes are ordered, the grade of a group is that of its worst image: `worst` holds the probability that
    each grade is the highest among its images, taking images as independent. Otherwise, `mean` holds the mean
    probabilities of the images, and `vote` the share of images predicted as each class, with ties between the leading
    classes broken by mean probability; groups whose images have different true classes are excluded.
    """
    group_names, group_index = index_groups(predictions.groups)
    n_groups = len(group_names)
    highest = np.full(n_groups, -1)
    np.maximum.at(highest, group_index, predictions.truth)
    if ordered:
        at_most = np.clip(np.cumsum(predictions.probabilities, axis=1), np.finfo(np.float64).tiny, 1)
        all_at_most = np.exp(_sum_by_group(np.log(at_most), group_index, n_groups))
        all_at_most[:, -1] = 1
        worst = np.diff(all_at_most, axis=1, prepend=0)
        return {"worst": _build_group_predictions(predictions, group_names, highest, worst)}, 0

    lowest = np.full(n_groups, len(predictions.classes))
    np.minimum.at(lowest, group_index, predictions.truth)
    is_consistent = highest == lowest
    n_images = np.bincount(group_index)[:, None]
    mean = _sum_by_group(predictions.probabilities, group_index, n_groups) / n_images
    one_hot = np.eye(len(predictions.classes))[predictions.predicted]
    vote = _sum_by_group(one_hot, group_index, n_groups) / n_images
    is_tied = (vote == vote.max(axis=1, keepdims=True)).sum(axis=1) > 1
    vote[is_tied] += _TIE_BREAK_WEIGHT * (mean[is_tied] - vote[is_tied])
    aggregated = {
        method: _build_group_predictions(
            predictions, group_names[is_consistent], highest[is_consistent], probabilities[is_consistent]
        )
        for method, probabilities in (("mean", mean), ("vote", vote))
    }
    return aggregated, int((~is_consistent).sum())


def _sum_by_group(values: np.ndarray, group_index: np.ndarray, n_groups: int) -> np.ndarray:
    sums = np.zeros((n_groups, values.shape[1]))
    np.add.at(sums, group_index, values)
    return sums


def _build_group_predictions(
    predictions: Predictions, group_names: np.ndarray, truth: np.ndarray, probabilities: np.ndarray
) -> Predictions:
    names = tuple(map(str, group_names))
    return replace(predictions, ids=names, groups=names, truth=truth, probabilities=probabilities)
