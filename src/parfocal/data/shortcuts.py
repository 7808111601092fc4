"""Shortcut detection: does anything other than the content of an image, such as the file size, predict the label?

Such a confounder (a scale bar in a corner, the brightness of a laboratory) lets a network learn the wrong thing.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from threadpoolctl import threadpool_limits

_THUMBNAIL_SIDE = 4
_CORNERS = ("top left corner", "top right corner", "bottom left corner", "bottom right corner")

SHORTCUT_FEATURES: dict[str, tuple[str, ...]] = {
    "file size": ("log of the file size",),
    "image size": ("log of the width", "log of the height", "log of the aspect ratio"),
    "mean color": ("mean red", "mean green", "mean blue"),
    "brightness": ("mean brightness", "standard deviation of the brightness"),
    "border": ("red of the border", "green of the border", "blue of the border"),
} | {
    corner: tuple(
        f"{color} {row},{column} of the {corner}"
        for row in range(_THUMBNAIL_SIDE)
        for column in range(_THUMBNAIL_SIDE)
        for color in ("red", "green", "blue")
    )
    for corner in _CORNERS
}
"""The names of the features that `compute_shortcut_features` returns, in their order, by kind."""

ALL_FEATURES = "all together"
"""The kind of the `Shortcut` that uses all features at once."""

_MAX_FOLDS = 5
_MAX_ROWS = 5000
_MIN_GAIN = 0.15
_BORDER_SHARE = 0.03
_CORNER_SHARE = 0.15


@dataclass(frozen=True)
class Shortcut:
    """How well a kind of feature predicts the label of patients that the model has not seen.

    Compare `accuracy` with `majority_accuracy`, that of the majority-class baseline, and `balanced_accuracy` with
    `chance_level`, 1 divided by the number of classes. `standard_error` is the standard error of the balanced accuracy
    of random guessing, with a guess for each group.
    """

    kind: str
    accuracy: float
    majority_accuracy: float
    balanced_accuracy: float
    chance_level: float
    standard_error: float

    @property
    def is_clear(self) -> bool:
        """Whether it deserves a warning: clearly better than chance, by more than 3 standard errors."""
        gain = self.balanced_accuracy - self.chance_level
        return gain > _MIN_GAIN and gain > 3 * self.standard_error


def compute_shortcut_features(image: np.ndarray, n_bytes: int, width: int, height: int) -> np.ndarray:
    """Compute the features named in `SHORTCUT_FEATURES` of an RGB image.

    `n_bytes` is the size of its file; `width` and `height` are those of the file, before any reduction.
    """
    brightness, deviation = cv2.meanStdDev(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    rows, columns = image.shape[:2]
    margin_y = max(1, round(_BORDER_SHARE * rows))
    margin_x = max(1, round(_BORDER_SHARE * columns))
    inner = image[margin_y : rows - margin_y, margin_x : columns - margin_x]
    border_sum = np.array(cv2.sumElems(image)[:3]) - (cv2.sumElems(inner)[:3] if inner.size else 0)
    corner_y, corner_x = (max(1, round(_CORNER_SHARE * side)) for side in (rows, columns))
    corners = [
        cv2.resize(image[y, x], (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA).ravel()
        for y in (slice(corner_y), slice(-corner_y, None))
        for x in (slice(corner_x), slice(-corner_x, None))
    ]
    width = max(1, width)
    height = max(1, height)
    sizes = np.log([max(1, n_bytes), width, height, width / height])
    border_color = border_sum / (rows * columns - inner.shape[0] * inner.shape[1])
    colors = [*cv2.mean(image)[:3], brightness[0, 0], deviation[0, 0], *border_color]
    return np.concatenate((sizes, colors, *corners)).astype(np.float32)


def find_shortcuts(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> list[Shortcut]:
    """Measure by cross-validation how well each kind of feature, and all together, predict the labels of new groups.

    Rows without a label (-1) or with features that are not finite are left out, and so are classes with fewer than five
    groups, as long as two other classes have more. Of more than 5,000 rows a sample is taken: few rows of each of many
    groups rather than many rows of few. The result is empty where fewer than two classes have two groups.
    """
    usable = (labels >= 0) & np.isfinite(features).all(axis=1)
    if not usable.any():
        return []
    rows = np.flatnonzero(usable)
    # A sample of few rows of each group: first a row of every group, then a second row, and so on.
    shuffled = np.random.default_rng(seed).permutation(rows)
    turn = pd.Series(shuffled).groupby(_to_integers(groups[shuffled])).cumcount()
    rows = np.sort(shuffled[np.argsort(turn, kind="stable")][:_MAX_ROWS])
    classes = np.unique(labels[rows])
    n_groups = _count_groups(labels[rows], groups[rows], classes)
    n_folds = min(_MAX_FOLDS, int(np.sort(n_groups)[-2])) if len(classes) > 1 else 0
    if n_folds < 2:
        return []
    rows = rows[np.isin(labels[rows], classes[n_groups >= n_folds])]
    features = features[rows].astype(np.float64)
    labels = _to_integers(labels[rows])
    groups = _to_integers(groups[rows])
    folds = list(StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(features, labels, groups))
    kinds = np.repeat(list(SHORTCUT_FEATURES), [len(names) for names in SHORTCUT_FEATURES.values()])
    columns = {kind: np.flatnonzero(kinds == kind) for kind in SHORTCUT_FEATURES}
    columns[ALL_FEATURES] = np.arange(len(kinds))
    # Problems this small take a hundred times longer when threads share them on a busy machine.
    with threadpool_limits(1):
        return [_evaluate_kind(kind, features[:, columns[kind]], labels, groups, folds) for kind in columns]


def _to_integers(values: np.ndarray) -> np.ndarray:
    """Number the different values from 0 on."""
    return np.unique(values, return_inverse=True)[1]


def _count_groups(labels: np.ndarray, groups: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the number of groups of each class."""
    return np.array([len(np.unique(groups[labels == label])) for label in classes])


def _evaluate_kind(
    kind: str, features: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]]
) -> Shortcut:
    n_classes = int(labels.max()) + 1
    # A linear model, with squares of sizes and colors: what predicts the label is often the middle of their range.
    degree = 2 if features.shape[1] <= 3 else 1
    predicted = np.zeros_like(labels)
    predicted_with_equal_priors = np.zeros_like(labels)
    for train, test in folds:
        priors = np.bincount(labels[train], minlength=n_classes) / len(train)
        probabilities = np.tile(priors, (len(test), 1))
        if np.count_nonzero(priors) > 1 and np.ptp(features[train], axis=0).any():
            model = make_pipeline(
                StandardScaler(),
                PolynomialFeatures(degree, include_bias=False),
                LogisticRegression(C=0.1, tol=1e-3, max_iter=300),
            ).fit(features[train], labels[train])
            probabilities[:, model.classes_] = model.predict_proba(features[test])
        predicted[test] = probabilities.argmax(axis=1)
        # Divided by the class frequencies, so that small classes are predicted too and their recall counts.
        predicted_with_equal_priors[test] = (probabilities / np.maximum(priors, 1e-9)).round(6).argmax(axis=1)
    class_sizes = np.bincount(labels)
    recalls = np.bincount(labels, weights=predicted_with_equal_priors == labels) / class_sizes
    chance_level = 1 / n_classes
    variances = chance_level * (1 - chance_level) / _count_groups(labels, groups, np.arange(n_classes))
    return Shortcut(
        kind=kind,
        accuracy=float(np.mean(predicted == labels)),
        majority_accuracy=float(class_sizes.max() / class_sizes.sum()),
        balanced_accuracy=float(recalls.mean()),
        chance_level=chance_level,
        standard_error=float(np.sqrt(variances.sum()) / n_classes),
    )
